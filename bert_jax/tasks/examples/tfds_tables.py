"""Splits of TensorFlow Datasets as tables, such as `tfds:glue/sst2[train]`. TensorFlow is imported only for these."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.text.tfds_reader import find_dataset, read_in_order

# A split may be a part of one, which has brackets of its own: train[:10%].
_SPECIFICATION = re.compile(r"tfds:(?P<name>\w+(?:/[\w.\-]+)*(?::\d+\.\d+\.\d+)?)(?:\[(?P<split>.+)\])?")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a dataset.

    Attributes:
        source: `tfds:NAME[SPLIT]`, as the user gave it.
        names: its features that are texts, labels, numbers, or lists of those.
    """

    source: str
    names: tuple[str, ...]
    _builder: object
    _split: str

    def rows(self, bad_rows: BadRows) -> Iterator[tuple[Place, dict | None]]:
        """Yields the examples as Python values, labels by name, in the order of storage.

        A dataset that is not on this machine is downloaded and prepared by TFDS first. A label of -1, which TFDS gives
        to test sets whose labels are not public, is None.
        """
        import tensorflow_datasets as tfds

        dataset = read_in_order(self._builder, self._split, self.source)
        features = self._builder.info.features
        for number, example in enumerate(tfds.as_numpy(dataset)):
            place = Place(self.source, None, f"example {number}")
            try:
                yield place, {name: _value(tfds, features[name], example[name]) for name in self.names}
            except UnicodeDecodeError as error:
                bad_rows.reject(place, f"a text is not UTF-8 at byte {error.start}")
                yield place, None


def open_dataset(source: str) -> Dataset:
    """Finds a dataset, its split and its features; downloads nothing.

    Raises:
        UserError: there is no such dataset or split, or no split is given and there are several.
    """
    match = _SPECIFICATION.fullmatch(source)
    if not match:
        raise UserError(
            f"cannot read {source!r}: write tfds:NAME[/CONFIG] and a split in brackets, tfds:glue/sst2[train]"
        )
    name, split = match["name"], match["split"]
    import tensorflow_datasets as tfds

    builder = find_dataset(name)
    splits = list(builder.info.splits)
    if split is None:
        if len(splits) > 1:
            raise UserError(f"{source} has splits {', '.join(splits)}: name one, as {source}[{splits[0]}]")
        split = splits[0] if splits else "train"
    elif splits and re.split(r"\W", split)[0] not in (*splits, "all"):
        raise UserError(f"{source}: no such split; the dataset {name!r} has {', '.join(splits)}")
    features = builder.info.features
    names = tuple(key for key in features if _is_readable(tfds, features[key]))
    return Dataset(source, names, builder, split)


def _is_readable(tfds, feature) -> bool:
    if isinstance(feature, tfds.features.Sequence):
        feature = feature.feature
    if isinstance(feature, tfds.features.Text | tfds.features.ClassLabel):
        return True
    return type(feature) in (tfds.features.Scalar, tfds.features.Tensor) and feature.shape == ()


def _value(tfds, feature, value):
    """Returns a value of a feature as JSON would hold it."""
    if isinstance(feature, tfds.features.Sequence):
        return [_value(tfds, feature.feature, part) for part in value]
    if isinstance(feature, tfds.features.ClassLabel):
        return None if value < 0 else feature.int2str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8")
    # float32 in its own decimals: 3.8, not the double 3.799999952316284.
    return (
        float(str(value))
        if isinstance(value, np.floating)
        else value.item()
        if isinstance(value, np.generic)
        else value
    )
