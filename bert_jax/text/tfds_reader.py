"""Texts of TensorFlow Datasets, such as `tfds:wikipedia/20230601.en`. TensorFlow is imported only for these."""

import re
from collections.abc import Iterator
from typing import Any

from bert_jax.errors import UserError
from bert_jax.text.formats import split_paragraphs
from bert_jax.text.passage import Passage

PREFIX = "tfds:"
DEFAULT_FEATURE = "text"

# A configuration may carry dots and dashes (20230601.en); a feature may be nested (article/text).
_SPECIFICATION = re.compile(r"tfds:(?P<name>\w+(?:/[\w.\-]+)*(?::\d+\.\d+\.\d+)?)(?::(?P<feature>[A-Za-z_][\w/]*))?")


def parse(inputs: str) -> tuple[str, str]:
    """Returns (name of the dataset, feature) of `tfds:NAME[/CONFIG][:VERSION][:FEATURE]`."""
    match = _SPECIFICATION.fullmatch(inputs)
    if not match:
        raise UserError(f"cannot read the input {inputs!r}: write tfds:NAME[/CONFIG][:FEATURE]")
    return match["name"], match["feature"] or DEFAULT_FEATURE


def read_dataset(inputs: str) -> Iterator[Passage]:
    """Yields the passages of a dataset's train split, one document an example, in the order of storage.

    A dataset that is not on this machine yet is downloaded and prepared by TFDS first; where it is kept follows TFDS's
    own rules (environment variable TFDS_DATA_DIR).
    """
    name, feature = parse(inputs)
    builder = find_dataset(name, "; check --input")
    import tensorflow_datasets as tfds

    _check_feature(tfds, builder, name, feature)
    dataset = read_in_order(builder, "train", f"the dataset {name!r}")
    for number, example in enumerate(tfds.as_numpy(dataset), start=1):
        value = example
        for part in feature.split("/"):
            value = value[part]
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{inputs}: example {number} is not UTF-8 at byte {error.start}") from error
        for paragraph in split_paragraphs(text.replace("\r\n", "\n").replace("\0", " ")):
            yield Passage(f"{PREFIX}{name}#{number}", paragraph, False)


def find_dataset(name: str, advice: str = "") -> Any:
    """Returns the TFDS builder of a dataset; downloads nothing. A UserError, with the advice, if there is none."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f"TFDS has no dataset {name!r} ({_first_line(error)}){advice}") from error
    except (tfds.core.registered.PackageNotFoundError, ImportError) as error:
        raise UserError(f"the dataset {name!r} cannot be loaded: {_first_line(error)}") from error


def read_in_order(builder: Any, split: str, what: str) -> Any:
    """Returns a split as a tf.data.Dataset, in the order of storage; downloads and prepares it first if need be.

    Args:
        builder: of `find_dataset`.
        split: its name, or a part of it.
        what: what the user calls it, for messages.
    """
    import tensorflow_datasets as tfds

    try:
        builder.download_and_prepare()
        # Files in order, one at a time: the same order on every machine.
        config = tfds.ReadConfig(interleave_cycle_length=1, shuffle_seed=None, try_autocache=False)
        return builder.as_dataset(split=split, shuffle_files=False, read_config=config)
    except Exception as error:
        # TFDS raises what its downloaders and file systems raise; all of it is about the dataset, not about this code.
        raise UserError(f"{what} cannot be prepared: {_first_line(error)}") from error


def _check_feature(tfds, builder, name: str, feature: str) -> None:
    """Raises a UserError unless the dataset has a train split's feature of that name that is a text."""
    features = builder.info.features
    if features is None:
        return
    found = features
    for part in feature.split("/"):
        found = found[part] if isinstance(found, tfds.features.FeaturesDict) and part in found else None
        if found is None:
            raise UserError(f"the dataset {name!r} has no feature {feature!r}: it has {', '.join(sorted(features))}")
    if not isinstance(found, tfds.features.Text):
        raise UserError(f"feature {feature!r} of the dataset {name!r} is no text ({type(found).__name__})")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
