"""TFDS names as tables, from mocked data: no network, no files."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples import tfds_tables
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.tables import open_table

ROWS = {"text": ["good", "中文"], "label": [1, 0]}


@pytest.fixture
def mock():
    """Returns a context in which datasets hold the given columns and know the splits train and test."""
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")

    def make(columns):
        splits = []

        def as_dataset(self, split=None, *args, **kwargs):
            splits.append(split)
            return tf.data.Dataset.from_tensor_slices(columns)

        return tfds.testing.mock_data(as_dataset_fn=as_dataset), splits

    return make


def read(mock, source, columns, policy="fail", **options):
    context, splits = mock(columns)
    with context:
        table = open_table(source, **options)
        return table, list(table.read(BadRows(policy))), splits


def test_a_split_is_a_table(mock):
    table, examples, splits = read(mock, "tfds:imdb_reviews[train[:10%]]", ROWS)
    assert [(e.text, e.label, e.id) for e in examples] == [("good", "pos", "0"), ("中文", "neg", "1")]
    assert splits == ["train[:10%]"]
    assert str(examples[1].place) == "tfds:imdb_reviews[train[:10%]]: example 1"
    assert "text from column 'text', label from 'label'" in table.describe()


def test_pairs_ids_and_numbers(mock):
    columns = {"sentence1": ["a"], "sentence2": ["b"], "idx": [7], "label": np.array([3.8], np.float32)}
    _, (example,), _ = read(mock, "tfds:glue/stsb[validation]", columns, kind="float")
    assert (example.text, example.pair, example.label, example.id) == ("a", "b", 3.8, "7")


def test_labels_that_are_not_public_are_bad_rows(mock):
    columns = {"sentence": ["a", "b"], "idx": [0, 1], "label": [-1, 1]}
    with pytest.raises(UserError, match=r"tfds:glue/sst2\[test\]: example 0: the label is empty"):
        read(mock, "tfds:glue/sst2[test]", columns)
    _, examples, _ = read(mock, "tfds:glue/sst2[test]", columns, policy="skip")
    assert [e.label for e in examples] == ["positive"]
    _, examples, _ = read(mock, "tfds:glue/sst2[test]", columns, kind="none")
    assert len(examples) == 2


def test_bad_bytes_are_a_bad_row(mock):
    columns = {"text": [b"fine", b"a\xff"], "label": [1, 0]}
    with pytest.raises(UserError, match="example 1: a text is not UTF-8 at byte 1"):
        read(mock, "tfds:imdb_reviews[train]", columns)
    assert len(read(mock, "tfds:imdb_reviews[train]", columns, policy="skip")[1]) == 1


def test_features_become_what_json_would_hold():
    features = pytest.importorskip("tensorflow_datasets").features
    tfds = pytest.importorskip("tensorflow_datasets")
    names = features.ClassLabel(names=["a", "b"])
    several = features.Sequence(names)
    assert tfds_tables._value(tfds, several, np.array([1, 0])) == ["b", "a"]
    assert tfds_tables._value(tfds, features.Scalar(np.int64), np.int64(7)) == 7
    assert tfds_tables._value(tfds, features.Scalar(np.bool_), np.bool_(True)) is True
    readable = {"text": features.Text(), "label": names, "labels": several, "score": features.Scalar(np.float32)}
    assert all(tfds_tables._is_readable(tfds, feature) for feature in readable.values())
    unreadable = [features.Image(), features.Tensor(shape=(3,), dtype=np.int64), features.FeaturesDict(readable)]
    assert not any(tfds_tables._is_readable(tfds, feature) for feature in unreadable)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:", "write tfds:NAME"),
        ("tfds:imdb_reviews[", "write tfds:NAME"),
        ("tfds:imdb_reviews/nothing[train]", "TFDS has no dataset 'imdb_reviews/nothing'"),
        ("tfds:mnist[train]", "no column looks like the text"),
    ],
)
def test_mistakes_are_named(mock, source, message):
    with pytest.raises(UserError, match=message):
        read(mock, source, ROWS)
