"""Starting from other weights: every tensor is accounted for."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.training.initialization import load_matching, paths

_INITIAL = {"bert": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}, "head": {"bias": np.zeros(1)}}
_OTHER = {"bert": {"kernel": np.ones((2, 3)), "bias": np.full(3, 2.0)}, "other": {"bias": np.ones(4)}}


def test_paths():
    assert list(paths(_INITIAL)) == ["bert/bias", "bert/kernel", "head/bias"]


def test_what_fits_is_taken_and_the_rest_is_named():
    loaded, report = load_matching(_INITIAL, _OTHER, "runs/x")
    np.testing.assert_array_equal(loaded["bert"]["kernel"], np.ones((2, 3)))
    np.testing.assert_array_equal(loaded["bert"]["bias"], np.full(3, 2.0))
    np.testing.assert_array_equal(loaded["head"]["bias"], np.zeros(1))
    assert set(loaded) == {"bert", "head"}
    assert (report.loaded, report.missing, report.unexpected) == (
        ["bert/bias", "bert/kernel"],
        ["head/bias"],
        ["other/bias"],
    )
    lines = report.lines()
    assert lines[0] == "2 tensors loaded, 1 missing, 1 unexpected"
    assert [line.split()[:2] for line in lines[1:]] == [
        ["loaded:", "bert/bias"],
        ["loaded:", "bert/kernel"],
        ["missing:", "head/bias"],
        ["unexpected:", "other/bias"],
    ]


def test_another_shape_is_another_architecture():
    with pytest.raises(UserError, match=r"bert/kernel has shape \(3, 3\) in runs/x, and \(2, 3\) in this model"):
        load_matching(_INITIAL, {"bert": {"kernel": np.ones((3, 3))}}, "runs/x")


def test_a_head_of_another_shape_is_left_out_as_a_whole():
    initial = {**_INITIAL, "head": {"kernel": np.zeros((3, 2)), "bias": np.zeros(1)}}
    other = {**_OTHER, "head": {"kernel": np.ones((3, 5)), "bias": np.ones(1)}, "header": {"bias": np.ones(2)}}
    loaded, report = load_matching(initial, other, "runs/x", heads=("head", "tail"))
    assert report.other_shapes == ["head/bias", "head/kernel"] and report.missing == []
    assert report.unexpected == ["header/bias", "other/bias"] and report.loaded == ["bert/bias", "bert/kernel"]
    np.testing.assert_array_equal(loaded["head"]["bias"], np.zeros(1))
    np.testing.assert_array_equal(loaded["head"]["kernel"], np.zeros((3, 2)))
    assert report.lines()[0] == "2 tensors loaded, 0 missing, 2 unexpected, 2 of heads of another shape"
    assert "  other head: head/bias (keeps its initial value)" in report.lines()
    # Of the same shape, it is taken; and of another, without being named, it is still another architecture.
    assert "head/bias" in load_matching(_INITIAL, {"head": {"bias": np.ones(1)}}, "runs/x", ("head",))[1].loaded
    with pytest.raises(UserError, match="head/kernel has shape"):
        load_matching(initial, other, "runs/x", heads=("tail",))


def test_nothing_that_fits():
    with pytest.raises(UserError, match="runs/x has no tensor that this model knows"):
        load_matching(_INITIAL, {"other": {"bias": np.ones(3)}}, "runs/x")
