"""The variables of a TensorFlow checkpoint, read without a graph, and without keeping TensorFlow in memory.

TensorFlow alone takes more memory than a base-size model. Unless it is in this process already, it reads in one of its
own, which leaves the variables in a temporary file and ends:

    python -m bert_jax.interop.google_variables PREFIX FILE
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from bert_jax.errors import UserError
from bert_jax.interop.bert import GOOGLE

_PACKAGES = pathlib.Path(__file__).resolve().parents[2]
_DAMAGED = 3


class VariableReader(Protocol):
    """Variables by name."""

    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """Reads one variable as float32."""


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
        return _damaged(self._prefix, reason)


class _ExtractedReader:
    """Variables that another process left in a temporary file, which goes when this reader goes."""

    def __init__(self, prefix: pathlib.Path):
        from bert_jax.interop.huggingface import SafetensorsReader

        folder = tempfile.TemporaryDirectory(prefix="bert_jax_variables_")
        self._cleanup = weakref.finalize(self, folder.cleanup)
        file = pathlib.Path(folder.name) / "variables.safetensors"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_PACKAGES), os.getenv("PYTHONPATH")])),
        }
        command = [sys.executable, "-m", __name__, str(prefix), str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode == _DAMAGED:
            raise _damaged(prefix, done.stderr.strip().rpartition("\n")[2])
        if done.returncode != 0:
            last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise UserError(f"TensorFlow could not read {prefix}: {last}")
        from safetensors import safe_open

        with safe_open(file, framework="np") as variables:
            self._reader = SafetensorsReader(dict.fromkeys(variables.keys(), file))
        self.shapes = self._reader.shapes

    def read(self, name: str) -> np.ndarray:
        return self._reader.read(name)


def open_variables(prefix: pathlib.Path) -> VariableReader:
    """Opens the floating-point variables of the files DIR/NAME.index and DIR/NAME.data-*.

    Raises:
        UserError: they are damaged.
    """
    return TensorFlowReader(prefix) if "tensorflow" in sys.modules else _ExtractedReader(prefix)


def _damaged(prefix: pathlib.Path, reason: str) -> UserError:
    return UserError(f"{prefix}.index or its data is truncated or damaged ({reason}): copy both again")


def _extract(prefix: pathlib.Path, file: pathlib.Path) -> int:
    """Writes the variables of a model, without those of its optimizer, into a safetensors file."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from safetensors.numpy import save_file

    reader = TensorFlowReader(prefix)
    wanted = [name for name in reader.shapes if GOOGLE.canonical_name(name) is not None]
    save_file({name: reader.read(name) for name in wanted}, file)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_extract(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
    except UserError as error:
        print(error.__cause__ or error, file=sys.stderr)
        sys.exit(_DAMAGED)
