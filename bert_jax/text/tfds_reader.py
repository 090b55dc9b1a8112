"""Texts of TensorFlow Datasets, such as `tfds:wikipedia/20230601.en`. The only reader that imports TensorFlow."""

import re
from collections.abc import Iterator

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
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f"TFDS has no dataset {name!r} ({_first_line(error)}); check --input") from error
    except (tfds.core.registered.PackageNotFoundError, ImportError) as error:
        raise UserError(f"the dataset {name!r} cannot be loaded: {_first_line(error)}") from error
    _check_feature(tfds, builder, name, feature)
    try:
        builder.download_and_prepare()
        # Files in order, one at a time: the same order on every machine.
        config = tfds.ReadConfig(interleave_cycle_length=1, shuffle_seed=None, try_autocache=False)
        dataset = builder.as_dataset(split="train", shuffle_files=False, read_config=config)
    except Exception as error:
        # TFDS raises what its downloaders and file systems raise; all of it is about the dataset, not about this code.
        raise UserError(f"the dataset {name!r} cannot be prepared: {_first_line(error)}") from error
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
