"""Gin: the one place where the library's plain dataclasses become configurable by files and parameters."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import gin

from bert_jax.config import BertConfig
from bert_jax.data.masking_recipe import Masking
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain
from bert_jax.training.recipe import Optimizer, Schedule

_CONFIGURABLE = {
    "BertConfig": BertConfig,
    "Optimizer": Optimizer,
    "Schedule": Schedule,
    "Masking": Masking,
    "Execution": Execution,
    "Phase": Phase,
    "pretrain": Pretrain,
}
_WRAPPED = {
    name: gin.external_configurable(cls, name=name, module="bert_jax") for name, cls in _CONFIGURABLE.items()
}
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def load_pretrain(gin_files: Sequence[str], gin_params: Sequence[str]) -> tuple[Pretrain, str]:
    """Reads the configuration of a pre-training run.

    Args:
        gin_files: paths; includes are looked for beside the working directory and in the repository.
        gin_params: bindings such as "pretrain.steps=200", which win over the files.

    Returns:
        The recipe, and the operative configuration as text, for the record.
    """
    gin.clear_config()
    gin.add_config_file_search_path(str(REPOSITORY))
    for path in gin_files:
        if not pathlib.Path(path).is_file() and not (REPOSITORY / path).is_file():
            raise UserError(f"--gin_file={path}: no such file")
    # Nothing from the record of an earlier call in this process; later bindings win over earlier ones.
    _parse(lambda: gin.parse_config_files_and_bindings(list(gin_files), list(gin_params), finalize_config=False))
    # Every part is made by gin, whether or not the run's own bindings mention it, so that no binding is ignored.
    parts: dict[str, Any] = {
        "model": _WRAPPED["BertConfig"],
        "optimizer": _WRAPPED["Optimizer"],
        "schedule": _WRAPPED["Schedule"],
        "masking": _WRAPPED["Masking"],
        "execution": _WRAPPED["Execution"],
    }
    recipe = _parse(lambda: _WRAPPED["pretrain"](**{name: make() for name, make in parts.items()}))
    return recipe, gin.operative_config_str()


def _parse(call: Any) -> Any:
    """Runs something of gin's; what users got wrong becomes one line."""
    try:
        return call()
    except UserError:
        raise
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}: " if error.filename else ""
        raise UserError(f"{where}cannot parse the configuration: {error.msg}: {(error.text or '').strip()}") from error
    except (ValueError, TypeError, AttributeError, OSError, RuntimeError, KeyError) as error:
        raise UserError(_readable(str(error))) from error


def _readable(message: str) -> str:
    """Rearranges gin's message, whose place comes at the end, into place: what."""
    message = " ".join(message.split())
    message = re.sub(r"No configurable matching '([^']+)'", r"unknown name '\1' in the configuration", message)
    place = re.search(r'In file "([^"]+)", line (\d+)', message)
    what = re.split(r" In (?:file|bindings|call)", message)[0].rstrip(" .:")
    return f"{place[1]}:{place[2]}: {what}" if place else f"configuration: {what}"
