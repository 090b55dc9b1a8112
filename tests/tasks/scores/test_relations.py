"""SemEval-2010 task 8's official macro F1, against an example worked by hand."""

import pytest

from bert_jax.tasks.scores.relations import relation_of, relation_table, score_relations

CAUSE, CAUSED, WHOLE = "Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Component-Whole(e1,e2)"
TRUE = [CAUSE, CAUSE, CAUSED, WHOLE, "Other", "Other"]
PREDICTED = [CAUSE, CAUSED, "Other", WHOLE, WHOLE, "Other"]


def test_by_hand():
    # Cause-Effect: one right (the second is turned round) of two predicted and three true: P 1/2, R 1/3, F1 0.4.
    # Component-Whole: one right of two predicted (one is truly Other) and one true: P 1/2, R 1, F1 2/3.
    scores = score_relations(TRUE, PREDICTED)
    assert scores["macro_f1"] == pytest.approx((0.4 + 2 / 3) / 2)
    assert scores["micro_f1"] == pytest.approx(2 * 2 / (4 + 4))
    assert scores["accuracy"] == pytest.approx(3 / 6)


def test_direction_and_other_decide():
    turned = [CAUSED if label == CAUSE else CAUSE if label == CAUSED else label for label in TRUE]
    assert score_relations(TRUE, TRUE)["macro_f1"] == 1
    assert score_relations(TRUE, turned)["macro_f1"] == pytest.approx(1 / 2)
    # Other alone right: no relation is.
    assert score_relations(TRUE, ["Other"] * 6) == {"macro_f1": 0, "micro_f1": 0, "accuracy": pytest.approx(2 / 6)}
    assert score_relations(["Other"], ["Other"]) == {"macro_f1": 0, "micro_f1": 0, "accuracy": 1}


def test_relations_that_are_only_predicted_count_as_other():
    elsewhere = ["Message-Topic(e1,e2)" if label == "Other" else label for label in PREDICTED]
    scores = score_relations(TRUE, elsewhere)
    for name in ("macro_f1", "micro_f1"):
        assert scores[name] == score_relations(TRUE, PREDICTED)[name]


def test_undirected_relations_are_relations_too():
    assert relation_of("Cause-Effect(e2,e1)") == "Cause-Effect"
    assert relation_of("born in") == "born in"
    assert score_relations(["born in", "Other"], ["born in", "born in"])["macro_f1"] == pytest.approx(2 / 3)


def test_table():
    assert [line.split() for line in relation_table(TRUE, PREDICTED)] == [
        ["relation", "precision", "recall", "F1", "support"],
        ["Cause-Effect", "0.5000", "0.3333", "0.4000", "3"],
        ["Component-Whole", "0.5000", "1.0000", "0.6667", "1"],
    ]


def test_predictions_of_other_length_are_refused():
    with pytest.raises(ValueError, match="cannot score 1 predictions of 2 labels"):
        score_relations([CAUSE, CAUSE], [CAUSE])
