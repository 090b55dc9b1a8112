"""Entity scores against conlleval's rules, worked out by hand."""

import random

import pytest

from bert_jax.tasks.examples.tag_schemes import predicted_entities
from bert_jax.tasks.scores.entities import TypeScores, entity_scores, entity_table, scores_by_type

GOLD = [
    ["B-PER", "I-PER", "O", "B-LOC", "O"],
    ["B-ORG", "I-ORG", "I-ORG", "O", "B-LOC"],
    ["O", "O", "B-PER"],
    ["B-LOC", "B-LOC", "O"],
]
# By sentence: both right; one word short, and the wrong type; `I-PER` after O opens an entity, the right one; one LOC
# of two words for two of one.
PREDICTED = [
    ["B-PER", "I-PER", "O", "B-LOC", "O"],
    ["B-ORG", "I-ORG", "O", "O", "B-ORG"],
    ["O", "O", "I-PER"],
    ["B-LOC", "I-LOC", "O"],
]


def test_a_hand_worked_example():
    # 7 gold entities, 6 predicted, 3 right; words: 16, wrong are 1 + 1, 1 and 1.
    scores = entity_scores(GOLD, PREDICTED)
    assert scores["precision"] == pytest.approx(3 / 6)
    assert scores["recall"] == pytest.approx(3 / 7)
    assert scores["f1"] == pytest.approx(2 * (3 / 6) * (3 / 7) / (3 / 6 + 3 / 7))
    assert scores["token_accuracy"] == pytest.approx(12 / 16)


def test_scores_of_every_type():
    by_type = scores_by_type(GOLD, PREDICTED)
    assert list(by_type) == ["LOC", "ORG", "PER"]
    assert by_type["PER"] == TypeScores(1.0, 1.0, 1.0, 2)
    assert by_type["LOC"] == TypeScores(1 / 2, 1 / 4, pytest.approx(1 / 3), 4)
    assert by_type["ORG"] == TypeScores(0.0, 0.0, 0.0, 1)


def test_the_table_has_a_line_for_every_type_and_for_all():
    lines = entity_table(GOLD, PREDICTED)
    assert len(lines) == 5
    assert lines[1].split() == ["LOC", "0.5000", "0.2500", "0.3333", "4"]
    assert lines[-1].split() == ["all", "(micro)", "0.5000", "0.4286", "0.4615", "7"]


def test_random_tags_are_counted_as_conlleval_counts():
    """Whatever is predicted, the counts are those of entities found by conlleval's rules."""
    generator = random.Random(0)
    choices = ["O", "O", "B-A", "I-A", "B-B-2", "I-B-2"]

    def sentences():
        return [[generator.choice(choices) for _ in range(generator.randint(1, 12))] for _ in range(200)]

    gold = sentences()
    predicted = [[tag if generator.random() < 0.7 else generator.choice(choices) for tag in tags] for tags in gold]
    true = {(index, entity) for index, tags in enumerate(gold) for entity in predicted_entities(tags)}
    found = {(index, entity) for index, tags in enumerate(predicted) for entity in predicted_entities(tags)}
    scores = entity_scores(gold, predicted)
    assert scores["precision"] == pytest.approx(len(true & found) / len(found))
    assert scores["recall"] == pytest.approx(len(true & found) / len(true))


def test_nothing_to_find_and_nothing_found():
    nothing = {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert entity_scores([["O", "O"]], [["O", "O"]]) == {**nothing, "token_accuracy": 1.0}
    assert entity_scores([["B-A"]], [["O"]]) == {**nothing, "token_accuracy": 0.0}
    assert scores_by_type([["O"]], [["O"]]) == {}
    assert entity_table([["O"]], [["O"]])[-1].split()[-1] == "0"


def test_word_segmentation_has_one_type_without_a_name():
    assert entity_scores([["B", "I", "B"]], [["B", "I", "B"]])["f1"] == 1.0
    assert entity_scores([["B", "I", "B"]], [["B", "B", "B"]])["precision"] == pytest.approx(1 / 3)
