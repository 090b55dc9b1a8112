"""Texts of TensorFlow Datasets, from mocked data: no network, no files."""

import itertools

import pytest

from bert_jax.errors import UserError
from bert_jax.text import tfds_reader
from bert_jax.text.documents import read_passages


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("tfds:wikipedia", ("wikipedia", "text")),
        ("tfds:wikipedia/20230601.en", ("wikipedia/20230601.en", "text")),
        ("tfds:wikipedia/20230601.en:title", ("wikipedia/20230601.en", "title")),
        ("tfds:imdb_reviews/plain_text:1.0.0:text", ("imdb_reviews/plain_text:1.0.0", "text")),
        ("tfds:imdb_reviews:1.0.0", ("imdb_reviews:1.0.0", "text")),
    ],
)
def test_specification(inputs, expected):
    assert tfds_reader.parse(inputs) == expected


def read_mocked(inputs, texts):
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")

    def as_dataset(self, *args, **kwargs):
        return tf.data.Dataset.from_tensor_slices({"text": texts, "label": [0] * len(texts)})

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        return list(read_passages(inputs))


def test_each_example_is_a_document_of_paragraphs():
    passages = read_mocked("tfds:imdb_reviews", ["First paragraph\nis wrapped.\n\nSecond.", "  ", "中文。"])
    assert [passage.text for passage in passages] == ["First paragraph is wrapped.", "Second.", "中文。"]
    assert [passage.document_id for passage in passages] == [f"tfds:imdb_reviews#{number}" for number in (1, 1, 3)]


def test_mock_data_of_tfds_itself():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=3):
        passages = list(read_passages("tfds:imdb_reviews/plain_text:text"))
    assert len(list(itertools.groupby(passages, key=lambda passage: passage.document_id))) == 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("tfds:imdb_reviews:body", "has no feature 'body': it has label, text"),
        ("tfds:imdb_reviews:label", "feature 'label' .* is no text"),
        ("tfds:imdb_reviews/nothing", "TFDS has no dataset 'imdb_reviews/nothing'"),
    ],
)
def test_mistakes_are_named(inputs, message):
    with pytest.raises(UserError, match=message):
        read_mocked(inputs, ["x"])


def test_bad_bytes_name_the_example():
    with pytest.raises(UserError, match="example 2 is not UTF-8 at byte 1"):
        read_mocked("tfds:imdb_reviews", [b"fine", b"a\xff"])
