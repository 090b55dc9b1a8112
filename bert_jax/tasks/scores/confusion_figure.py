"""A confusion matrix as a PNG, for 2 labels or 50, in any script that an installed font has."""

from collections.abc import Sequence

import numpy as np

from bert_jax.training.figure_file import replace_figure

# Fonts with Chinese, Japanese and Korean characters, of the usual systems; asked after matplotlib's own.
_WIDE_FONTS = (
    *(
        "Noto Sans CJK SC",
        "Noto Sans CJK TC",
        "Noto Sans CJK JP",
        "Noto Sans CJK KR",
        "Noto Sans SC",
        "Source Han Sans SC",
    ),
    *("Source Han Sans CN", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei"),
    *("SimHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "Arial Unicode MS"),
)
_COUNTS_UP_TO = 30  # labels; beyond, the numbers in the cells would be smaller than a reader's eye
_LABEL_CHARACTERS = 24


def write_confusion_figure(
    path: str, matrix: np.ndarray, labels: Sequence[str], title: str = "Confusion matrix"
) -> list[str]:
    """Draws counts of true (down) and predicted (across) labels; a cell's colour is its share of the true label.

    A label with a character that no installed font has is shown as its number, `#3`.

    Args:
        path: where the PNG goes.
        matrix: counts `[true label, predicted label]`.
        labels: the names.
        title: the line above.

    Returns:
        Lines for people: which labels are shown as numbers, and why; usually none.

    Raises:
        UserError: the file cannot be written.
    """
    # The figure is made without pyplot, which would keep it and might look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    number = len(labels)
    if matrix.shape != (number, number):
        raise ValueError(f"a matrix {matrix.shape} does not fit {number} labels")
    fonts, available = _fonts()
    names, remarks = _drawable(labels, available)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)

    size = float(np.clip(0.42 * number, 2.2, 15))  # of the matrix, in inches
    text_size = float(np.clip(size * 72 / number * 0.36, 5, 11))
    longest = max(map(len, names)) * text_size / 72
    figure = Figure(figsize=(size + longest + 1.6, size + longest * 0.75 + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(number), names, rotation=0 if number <= 3 else 45, ha="center" if number <= 3 else "right")
    axes.set_yticks(range(number), names)
    for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        tick.set(rotation_mode="anchor" if number > 3 and tick in axes.get_xticklabels() else "default")
        tick.set(fontsize=text_size, fontfamily=fonts)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontfamily=fonts, fontsize=11)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true label")
    if number <= _COUNTS_UP_TO:
        for row, column in np.argwhere(matrix > 0):
            color = "white" if shares[row, column] > 0.5 else "black"
            count = str(matrix[row, column])
            fitting = min(text_size, size * 72 / number * 1.3 / len(count))
            axes.text(column, row, count, ha="center", va="center", color=color, fontsize=fitting)
    replace_figure(figure, path, dpi=120)
    return remarks


def _fonts() -> tuple[list[str], set[int]]:
    """Returns the families to ask for glyphs, in order, and the code points that they have together."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in _WIDE_FONTS if name in installed)]
    available: set[int] = set()
    for family in families:
        available.update(font_manager.get_font(font_manager.findfont(family)).get_charmap())
    return families, available


def _drawable(labels: Sequence[str], available: set[int]) -> tuple[list[str], list[str]]:
    """Returns the names to draw, and lines about those that are numbers because a glyph is missing."""
    names, numbered = [], []
    for at, label in enumerate(labels):
        if all(ord(character) in available for character in label):
            # A dollar sign would begin a formula.
            short = label if len(label) <= _LABEL_CHARACTERS else f"{label[: _LABEL_CHARACTERS - 1]}…"
            names.append(short.replace("$", r"\$"))
        else:
            names.append(f"#{at}")
            numbered.append(f"#{at} = {label}")
    if not numbered:
        return names, []
    return names, [
        f"no installed font has all characters of some labels, which the figure numbers: {', '.join(numbered)};"
        " install a font such as Noto Sans CJK"
    ]
