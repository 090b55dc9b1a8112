"""Checkpoints of the original BERT code: bert_config.json, vocab.txt and a TensorFlow checkpoint bert_model.ckpt.*.

The variables are read from the files without a graph, and the optimizer's are left out. "gelu" in the configuration is
the exact function, as it was in the first release and as everyone's conversions of the published checkpoints have it;
later versions of the original code compute the approximation by tanh under the same name.
"""

import pathlib

from bert_jax.errors import UserError
from bert_jax.interop.bert import GOOGLE
from bert_jax.interop.google_variables import VariableReader, open_variables
from bert_jax.interop.json_config import bert_config
from bert_jax.interop.tensor_files import Match, match_tensors
from bert_jax.text.json_files import read_json_object

CONFIG_FILE = "bert_config.json"
_PUBLISHED_PREFIX = "bert_model.ckpt"
_INDEX, _DATA = ".index", ".data-?????-of-?????"


def find_prefix(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the checkpoint's prefix, given it or its directory; None where this is no such checkpoint.

    Raises:
        UserError: several checkpoints in one directory, or none, or a configuration is missing.
    """
    if path.is_dir():
        if not (path / CONFIG_FILE).is_file():
            return None
        prefixes = sorted(index.name.removesuffix(_INDEX) for index in path.glob(f"*{_INDEX}"))
        if not prefixes:
            raise UserError(f"{path} has a {CONFIG_FILE} but no checkpoint: no {_PUBLISHED_PREFIX}{_INDEX} beside it")
        if _PUBLISHED_PREFIX not in prefixes and len(prefixes) > 1:
            raise UserError(
                f"{path} has several checkpoints: name one of {', '.join(prefixes[:8])} after the directory"
            )
        path = path / (_PUBLISHED_PREFIX if _PUBLISHED_PREFIX in prefixes else prefixes[0])
    elif not path.with_name(path.name + _INDEX).is_file():
        return None
    if not (path.parent / CONFIG_FILE).is_file():
        raise UserError(f"{path} is a TensorFlow checkpoint without a {CONFIG_FILE} beside it: copy that too")
    if not any(path.parent.glob(path.name + _DATA)):
        raise UserError(f"{path}{_INDEX} has no data beside it, {path.name}.data-00000-of-00001: copy that too")
    return path


def open_checkpoint(prefix: pathlib.Path) -> tuple[Match, VariableReader]:
    """Reads the configuration and the variables' shapes.

    Raises:
        UserError: this does not hold a BERT, or not all of it.
    """
    path = prefix.parent / CONFIG_FILE
    config = bert_config(path, read_json_object(path), {"gelu": "gelu"})
    reader = open_variables(prefix)
    return match_tensors(GOOGLE, reader.shapes, config, str(prefix)), reader
