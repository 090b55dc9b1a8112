"""JSON files of one object that others made."""

import json
import pathlib
from typing import Any

from bert_jax.errors import UserError


def read_json_object(path: pathlib.Path, remedy: str = "copy it again") -> dict[str, Any]:
    """Reads a JSON object; a UserError names the file if that is not what it is, and says the remedy."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged (no valid JSON): {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (no JSON object): {remedy}")
    return value
