"""Writing rows: Examples into ArrayRecord shards, and the files beside them that make a directory of rows."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.data import rows

# One record a group, so that any row is read alone. Compressing records of a few hundred bytes, each alone, costs six
# times the time and saves nothing.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_COUNT_EVERY_ROWS = 1 << 12
DATASET_VERSION = "1.0.0"


def serialize_row(
    input_ids: np.ndarray,
    pair_ids: Sequence[int],
    first_lengths: Sequence[int],
    second_lengths: Sequence[int],
    next_sentence_labels: Sequence[int],
) -> bytes:
    """Returns the row as a serialized `tf.train.Example`; the features are described at `rows.FEATURES`.

    TFDS carries a copy of the message's definition, so that a worker need not spend seconds importing TensorFlow. The
    same row always gives the same bytes.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    lists = (input_ids.tolist(), pair_ids, first_lengths, second_lengths, next_sentence_labels)
    for name, values in zip(rows.FEATURES, lists, strict=True):
        feature[name].int64_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


class ShardWriter:
    """Writes the rows of one shard to `path` and counts their tokens."""

    def __init__(self, path: pathlib.Path, vocab_size: int):
        from array_record.python import array_record_module

        self.path = path
        self.num_rows = 0
        with _os_errors():
            self._writer = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)
        self._counts = np.zeros(vocab_size, np.int64)
        self._uncounted: list[np.ndarray] = []

    def write(self, input_ids: np.ndarray, *lists: Sequence[int]) -> None:
        """Appends one row; the arguments are those of `serialize_row`."""
        row = serialize_row(input_ids, *lists)
        with _os_errors():
            self._writer.write(row)
        self.num_rows += 1
        self._uncounted.append(input_ids)
        if len(self._uncounted) >= _COUNT_EVERY_ROWS:
            self._count()

    def close(self) -> tuple[rows.Shard, np.ndarray]:
        """Finishes the file; returns its description and how often each id was written, int64 [vocab_size]."""
        with _os_errors():
            self._writer.close()
        self._count()
        size = os.path.getsize(self.path)
        return rows.Shard(self.path.name, rows=self.num_rows, bytes=size, sha256=_sha256(self.path)), self._counts

    def _count(self) -> None:
        if self._uncounted:
            self._counts += np.bincount(np.concatenate(self._uncounted), minlength=len(self._counts))
            self._uncounted = []


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Gives failures to write, which ArrayRecord reports as RuntimeError, the type that they have elsewhere."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def finish_rows(
    directory: pathlib.Path,
    recipe: rows.Recipe,
    source: Mapping[str, str],
    tokenizer: Any,
    shards: Mapping[str, Sequence[rows.Shard]],
    token_counts: np.ndarray,
) -> rows.Manifest:
    """Turns a directory of shards into a directory of rows: names the shards, describes them, writes rows.json last.

    Args:
        directory: where the shards lie.
        recipe: how they were made.
        source: the flags that name the text.
        tokenizer: the tokenizer that made the ids; a copy is saved beside the rows.
        shards: for each split its shards in order; those without a row are removed.
        token_counts: of the training rows, int64 [vocab_size].
    """
    counts = token_counts.copy()
    counts[[tokenizer.cls_id, tokenizer.sep_id]] = 0
    np.save(directory / rows.TOKEN_COUNTS_FILE, counts)
    final_shards = {
        split: _name_shards(directory, split, its_shards) for split, its_shards in shards.items() if its_shards
    }
    manifest = rows.Manifest(
        recipe=recipe,
        source=dict(source),
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        shards={split: its_shards for split, its_shards in final_shards.items() if its_shards},
        token_counts_sha256=_sha256(directory / rows.TOKEN_COUNTS_FILE),
    )
    _describe_for_tfds(directory, manifest)
    tokenizer.save(directory / rows.TOKENIZER_DIRECTORY)
    text = json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n"
    (directory / rows.MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_shards(directory: pathlib.Path, split: str, shards: Sequence[rows.Shard]) -> list[rows.Shard]:
    """Gives the shards the names that TFDS expects, which tell how many there are."""
    kept = [shard for shard in shards if shard.rows]
    for shard in shards:
        if not shard.rows:
            (directory / shard.file).unlink()
    named = []
    for number, shard in enumerate(kept):
        file = f"{rows.DATASET_NAME}-{split}.array_record-{number:05d}-of-{len(kept):05d}"
        (directory / shard.file).rename(directory / file)
        named.append(dataclasses.replace(shard, file=file))
    return named


def _describe_for_tfds(directory: pathlib.Path, manifest: rows.Manifest) -> None:
    """Writes dataset_info.json and features.json.

    `tfds.folder_dataset.write_metadata` would read the rows back through tf.data, which ArrayRecord does not allow;
    the counts are known here anyway.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info

    identity = dataset_info.DatasetIdentity(
        name=rows.DATASET_NAME,
        version=tfds.core.Version(DATASET_VERSION),
        data_dir=os.fspath(directory),
        module_name="",
    )
    integers = tfds.features.Tensor(shape=(None,), dtype=np.int64)
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict(dict.fromkeys(rows.FEATURES, integers)),
        description="Rows of token ids for BERT pre-training.",
    )
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    splits = []
    for split, shards in manifest.shards.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory, dataset_name=rows.DATASET_NAME, split=split, filetype_suffix="array_record"
        )
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard.rows for shard in shards],
                num_bytes=sum(shard.bytes for shard in shards),
                filename_template=template,
            )
        )
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(directory)
