"""Checkpoints of the original BERT code: bert_config.json, vocab.txt and a TensorFlow checkpoint bert_model.ckpt.*.

The variables are read from the files without a graph, and the optimizer's are left out. "gelu" in the configuration is
the exact function, as it was in the first release and as everyone's conversions of the published checkpoints have it;
later versions of the original code compute the approximation by tanh under the same name.
"""

import pathlib
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.interop.json_config import bert_config, read_json_object
from bert_jax.interop.names import GOOGLE
from bert_jax.interop.tensor_files import Match, match_tensors

CONFIG_FILE = "bert_config.json"
_PUBLISHED_PREFIX = "bert_model.ckpt"
_INDEX, _DATA = ".index", ".data-?????-of-?????"


class TensorFlowReader:
    """The floating-point variables of a TensorFlow checkpoint, and their shapes by name."""

    def __init__(self, prefix: pathlib.Path):
        """Opens DIR/NAME of the files DIR/NAME.index and DIR/NAME.data-*."""
        import tensorflow as tf

        # TensorFlow would take most of an accelerator's memory, which JAX needs.
        for kind in ("GPU", "TPU"):
            tf.config.set_visible_devices([], kind)
        self._prefix = prefix
        try:
            self._checkpoint = tf.train.load_checkpoint(str(prefix))
        except Exception as error:  # the reader raises whatever Python has that is like TensorFlow's error
            raise self._damaged(error) from error
        dtypes = self._checkpoint.get_variable_to_dtype_map()
        shapes = self._checkpoint.get_variable_to_shape_map()
        self.shapes = {name: tuple(shapes[name]) for name in sorted(shapes) if dtypes[name].is_floating}

    def read(self, name: str) -> np.ndarray:
        """Reads one variable as float32."""
        try:
            return self._checkpoint.get_tensor(name).astype(np.float32, copy=False)
        except Exception as error:  # the reader raises whatever Python has that is like TensorFlow's error
            raise self._damaged(error) from error

    def _damaged(self, error: Any) -> UserError:
        reason = " ".join(str(error).split())[:200]
        return UserError(f"{self._prefix}{_INDEX} or its data is truncated or damaged ({reason}): copy both again")


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


def open_checkpoint(prefix: pathlib.Path) -> tuple[Match, TensorFlowReader]:
    """Reads the configuration and the variables' shapes.

    Raises:
        UserError: this does not hold a BERT, or not all of it.
    """
    path = prefix.parent / CONFIG_FILE
    config = bert_config(path, read_json_object(path), {"gelu": "gelu"})
    reader = TensorFlowReader(prefix)
    return match_tensors(GOOGLE, reader.shapes, config, str(prefix)), reader
