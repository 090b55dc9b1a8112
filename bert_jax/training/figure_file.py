"""Pictures that a run draws anew while somebody may be looking at them."""

import io
import os
import pathlib
from typing import Any

from bert_jax.durable_files import write_file
from bert_jax.errors import UserError


def replace_figure(figure: Any, image_file: str | os.PathLike[str], dpi: int | None = None) -> None:
    """Writes a figure as a PNG, in one piece or not at all; it is on disk when this returns.

    Args:
        figure: matplotlib's.
        image_file: replaced as a whole.
        dpi: dots an inch; the figure's own if None.

    Raises:
        UserError: it cannot be written.
    """
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi or "figure")
    try:
        write_file(pathlib.Path(image_file), image.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {image_file}: {error.strerror or error}") from error
