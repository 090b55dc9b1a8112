"""The figure of a confusion matrix: drawn for few and many labels, and glyphs that no font has are said."""

import warnings

import numpy as np
import pytest

from bert_jax.tasks.scores import confusion_figure
from bert_jax.tasks.scores.confusion_figure import write_confusion_figure


def draw(path, labels):
    number = len(labels)
    matrix = np.random.default_rng(0).integers(0, 9, (number, number)) + np.eye(number, dtype=int) * 90
    with warnings.catch_warnings():
        # matplotlib warns of glyphs that are missing and of labels that do not fit.
        warnings.simplefilter("error")
        return write_confusion_figure(str(path), matrix, labels)


@pytest.mark.parametrize("number", [2, 50])
def test_a_png_is_written(tmp_path, number):
    from matplotlib import image

    path = tmp_path / "confusion.png"
    assert draw(path, [f"label ${number}$ is long{'!' * number}" for number in range(number)]) == []
    pixels = image.imread(path)
    assert 300 < min(pixels.shape[:2]) <= max(pixels.shape[:2]) < 3000
    # The diagonal is dark blue and the paper white.
    assert (pixels[..., :3].sum(axis=-1) < 1).any()
    assert (pixels[0, 0] == 1).all()


def test_figures_leave_no_state_behind(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    draw(tmp_path / "confusion.png", ["a", "b"])
    assert pyplot.get_fignums() == before


def test_labels_without_glyphs_are_numbered_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(confusion_figure, "_WIDE_FONTS", ())
    (line,) = draw(tmp_path / "confusion.png", ["neg", "正面", "Ä"])
    assert "#1 = 正面;" in line
    assert "neg" not in line


def test_an_installed_font_with_the_glyphs_is_used(tmp_path, monkeypatch):
    wide = confusion_figure._fonts()
    if all(ord(character) in wide[1] for character in "正面"):
        assert draw(tmp_path / "confusion.png", ["neg", "正面"]) == []
    # Without one, any font that is installed serves to show that the list is followed: these letters are its own.
    monkeypatch.setattr(confusion_figure, "_WIDE_FONTS", ("no such font", "STIXGeneral"))
    families, available = confusion_figure._fonts()
    assert families == ["DejaVu Sans", "STIXGeneral"]
    monkeypatch.setattr(confusion_figure, "_WIDE_FONTS", ())
    more = sorted(available - confusion_figure._fonts()[1])
    letter = next(chr(code) for code in more if code >= 0xE000)
    assert draw(tmp_path / "confusion.png", ["neg", letter])
    monkeypatch.setattr(confusion_figure, "_WIDE_FONTS", ("STIXGeneral",))
    assert draw(tmp_path / "confusion.png", ["neg", letter]) == []
