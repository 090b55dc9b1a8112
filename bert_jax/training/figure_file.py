"""Pictures that a run draws anew while somebody may be looking at them."""

import os
import pathlib
from typing import Any

from bert_jax.errors import UserError


def replace_figure(canvas: Any, image_file: str | os.PathLike[str]) -> None:
    """Writes a figure as a PNG, in one piece or not at all.

    Args:
        canvas: matplotlib's, of the figure.
        image_file: replaced as a whole.

    Raises:
        UserError: it cannot be written.
    """
    image_file = pathlib.Path(image_file)
    temporary = image_file.with_name(image_file.name + ".part")
    try:
        canvas.print_figure(temporary, format="png")
        os.replace(temporary, image_file)
    except OSError as error:
        raise UserError(f"cannot write {image_file}: {error.strerror or error}") from error
