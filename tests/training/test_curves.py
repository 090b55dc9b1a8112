"""The picture of a run: what is read, how it is smoothed, and that something is drawn."""

import json

import numpy as np
import pytest
from matplotlib import image

from bert_jax.errors import UserError
from bert_jax.training import curves


def write_run(path, steps, pairs=True):
    """A run that looks like one: a falling loss with noise, validation every twentieth of it."""
    random = np.random.default_rng(0)
    with open(path, "w") as file:
        for step in range(1, steps + 1):
            progress = step / steps
            values = {
                "loss": 9 * (0.4 + 0.6 * np.exp(-5 * progress)) + 0.3 * random.standard_normal(),
                "mlm_accuracy": max(0.0, 0.3 * progress + 0.02 * random.standard_normal()),
                "learning_rate": 1e-4 * min(10 * progress, 1 - progress),
            }
            if pairs:
                values["nsp_accuracy"] = 0.5 + 0.2 * progress + 0.05 * random.standard_normal()
            file.write(json.dumps({"step": step, "split": "train", **values}) + "\n")
            if step % max(steps // 20, 1) == 0:
                values = {"loss": values["loss"] + 0.2, "mlm_accuracy": 0.28 * progress, "mlm_accuracy_baseline": 0.06}
                if pairs:
                    values |= {"nsp_accuracy": 0.5 + 0.18 * progress, "nsp_accuracy_baseline": 0.53}
                file.write(json.dumps({"step": step, "split": "validation", **values}) + "\n")


def has_colour(pixels, colour):
    wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return bool((np.abs(pixels[..., :3] - wanted).max(axis=-1) < 0.02).any())


@pytest.mark.parametrize("steps, pairs", [(1, True), (2, False), (400, True), (20_000, True)])
def test_training_validation_and_baselines_are_drawn(tmp_path, steps, pairs):
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    write_run(metrics, steps, pairs)
    curves.draw_curves(metrics, picture)
    pixels = image.imread(picture)
    assert pixels.shape[0] > 500 and pixels.shape[1] > 900
    for colour in (curves.TRAIN_COLOUR, curves.VALIDATION_COLOUR, curves.BASELINE_COLOUR):
        assert has_colour(pixels, colour)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_each_baseline_is_drawn_where_it_lies_and_named(tmp_path, monkeypatch):
    values = {"mlm_hidden_loss": 4.0, "mlm_hidden_loss_baseline": 6.25, "mlm_hidden_loss_bigram_baseline": 4.5}
    values |= {"mlm_loss": 3.9, "mlm_loss_copier_baseline": 5.75}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 3, "split": "validation", **values}) + "\n")
    figures = []
    monkeypatch.setattr(curves, "replace_figure", lambda figure, _: figures.append(figure))
    curves.draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    (figure,) = figures
    drawn = {
        axes.get_title(loc="left").partition(":")[0]: {line.get_label(): line.get_ydata()[0] for line in axes.lines}
        for axes in figure.axes
    }
    assert drawn["loss of hidden words"] == {
        "validation": 4.0,
        "frequencies alone: 6.250": 6.25,
        "nearest neighbours, counted: 4.500": 4.5,
    }
    assert drawn["masked-word loss"] == {"validation": 3.9, "copying without context: 5.750": 5.75}
    assert len({line.get_linestyle() for axes in figure.axes for line in axes.lines}) == 4


def test_a_picture_follows_its_run(tmp_path):
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    write_run(metrics, 10)
    curves.draw_curves(metrics, picture)
    before = image.imread(picture)
    write_run(metrics, 60)
    curves.draw_curves(metrics, picture)
    assert not np.array_equal(before, image.imread(picture))


def test_a_run_without_validation_is_drawn_without_it(tmp_path):
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    metrics.write_text("".join(f'{{"step": {step}, "split": "train", "loss": {9 / step}}}\n' for step in range(1, 30)))
    curves.draw_curves(metrics, picture)
    pixels = image.imread(picture)
    assert has_colour(pixels, curves.TRAIN_COLOUR)
    assert not has_colour(pixels, curves.VALIDATION_COLOUR)


def test_read_curves_leaves_out_nulls_and_torn_lines(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        '{"step": 1, "split": "train", "loss": 3.5}\n'
        '{"step": 2, "split": "train", "loss": null, "grad_norm": 1}\n'
        '{"step": 2, "split": "validation", "loss": 4.0}\n'
        '{"step": 3, "split": "train", "loss": 2.5}\n'
        f'{{"step": 3, "split": "train", "loss": {10**400}}}\n'
        f'{{"step": {10**400}, "split": "train", "loss": 1.0}}\n'
        '{"step": 4, "split": "train", "lo'
    )
    found = {key: (steps.tolist(), values.tolist()) for key, (steps, values) in curves.read_curves(metrics).items()}
    assert found == {
        ("train", "loss"): ([1, 3], [3.5, 2.5]),
        ("train", "grad_norm"): ([2], [1.0]),
        ("validation", "loss"): ([2], [4.0]),
    }


@pytest.mark.parametrize("window", [0, 1, 5, 6, 100])
def test_smooth_is_the_mean_of_the_neighbourhood(window):
    values = np.random.default_rng(1).standard_normal(40)
    expected = []
    for centre in range(40):
        expected.append(values[max(centre - window // 2, 0) : centre + window // 2 + 1].mean())
    np.testing.assert_allclose(curves.smooth(values, window), expected, atol=1e-12)


def test_mistakes_are_said(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*missing"):
        curves.draw_curves(tmp_path / "missing.jsonl", tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="train for a step"):
        curves.draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    write_run(tmp_path / "metrics.jsonl", 3)
    with pytest.raises(UserError, match="cannot write"):
        curves.draw_curves(tmp_path / "metrics.jsonl", tmp_path / "no" / "such" / "curves.png")
