"""The set of labels, labels that training never had, and few-shot samples."""

import collections

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.example_types import TextExample
from bert_jax.tasks.examples.labels import collect_labels, few_shot, parse_label, unknown_label
from bert_jax.tasks.examples.places import Place


def examples(*labels):
    return [TextExample("a", None, label, str(at), Place("train.csv", at + 2)) for at, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("pos", "neg", "pos"), ("neg", "pos")),
        (("10", "9", "1", "-1"), ("-1", "1", "9", "10")),
        (("4.5", "10", "4"), ("4", "4.5", "10")),
        (("10", "9", "x"), ("10", "9", "x")),
        (("nan", "1"), ("1", "nan")),
        ((("b", "a"), (), ("c",)), ("a", "b", "c")),
        ((("b",), ()), ("b",)),
    ],
)
def test_labels_are_sorted(labels, expected):
    assert collect_labels(examples(*labels)) == expected


def test_labels_that_are_given_keep_their_order():
    assert collect_labels(examples("a", "b"), given=["b", "a", "never"]) == ("b", "a", "never")
    with pytest.raises(UserError, match="names 'a' twice"):
        collect_labels(examples("a"), given=["a", "b", "a"])
    with pytest.raises(UserError, match="names 'a' alone"):
        collect_labels(examples("a", "b"), given=["a"])


def test_a_number_is_one_that_can_be_squared():
    assert parse_label("-1e18", "float", "|") == -1e18
    with pytest.raises(ValueError, match="too large"):
        parse_label("1e300", "float", "|")


def test_too_few_labels():
    with pytest.raises(UserError, match="every training example has the label 'a'"):
        collect_labels(examples("a", "a"))
    with pytest.raises(UserError, match="no training example has a label"):
        collect_labels(examples((), ()))


def test_a_label_that_training_never_had_is_named():
    for example in examples("a", ("b", "a"), (), None):
        assert unknown_label(example, ("a", "b")) is None
    for example in examples("c", ("a", "c")):
        assert unknown_label(example, ("a", "b")).startswith("the label 'c' is not among those of training, or of")


def test_few_shot_takes_as_many_of_each_in_the_order_of_the_file():
    sample, remarks = few_shot(examples(*"aabbbacabbb"), 2, seed=0)
    assert collections.Counter(example.label for example in sample) == {"a": 2, "b": 2, "c": 1}
    ids = [int(example.id) for example in few_shot(examples(*("ab" * 50)), 10, seed=0)[0]]
    assert ids == sorted(ids)
    # One label's draw does not repeat the other's.
    assert {number // 2 for number in ids if number % 2} != {number // 2 for number in ids if not number % 2}
    assert remarks == ["label 'c' has 1 example, 2 were asked for"]


def test_few_shot_depends_on_the_seed_alone():
    many = examples(*("ab" * 100))
    ids = [[example.id for example in few_shot(many, 8, seed)[0]] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    # Other labels' examples do not change the draw of this one, as long as its own stay the same.
    only_a = [example for example in many if example.label == "a"]
    with_b = [example.id for example in few_shot(many, 8, 0)[0] if example.label == "a"]
    assert [example.id for example in few_shot(only_a, 8, 0)[0]] == with_b


def test_few_shot_draws_every_example_equally_often():
    many = examples(*("ab" * 10))
    drawn = collections.Counter(example.id for seed in range(400) for example in few_shot(many, 3, seed)[0])
    # 120 expected for each, with a standard deviation of about 9.
    assert len(drawn) == 20
    assert all(80 < count < 160 for count in drawn.values())


def test_few_shot_refuses_numbers():
    with pytest.raises(UserError, match="regression has none"):
        few_shot(examples(1.5, 2.0), 1, 0)
    with pytest.raises(UserError, match="give a number from 1"):
        few_shot(examples("a"), 0, 0)
