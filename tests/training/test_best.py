"""Which evaluation is the best, and when a run ends early."""

import pytest

from bert_jax.training.best import BestBy, EarlyStopping


def test_the_smallest_badness_is_the_best():
    by_loss, by_f1 = BestBy(), BestBy("f1", larger_is_better=True)
    better, worse = {"loss": 0.1, "f1": 0.9}, {"loss": 0.2, "f1": 0.8}
    assert by_loss.badness(better) < by_loss.badness(worse) and by_f1.badness(better) < by_f1.badness(worse)
    assert BestBy.of_run(by_f1.to_json()) == by_f1 and BestBy.of_run({}) == by_loss


@pytest.mark.parametrize(("min_delta", "ends_at"), [(0.0, 6), (0.15, 5)])
def test_patience(min_delta, ends_at):
    stopping = EarlyStopping(3, min_delta)
    # Better twice, by a full step and by a tenth; then worse, and the same.
    ends = [stopping.add(badness) for badness in (3.0, 2.0, 1.9, 2.5, 1.9, 2.2)]
    assert ends == [number >= ends_at for number in range(1, 7)]


def test_patience_goes_on_from_a_record():
    values = (1.0, 1.5, 0.9, 1.1, 1.2, 1.3)
    through = EarlyStopping(3)
    expected = [through.add(value) for value in values]
    assert expected[-1]
    for cut in range(1, 6):
        first = EarlyStopping(3)
        found = [first.add(value) for value in values[:cut]]
        second = EarlyStopping(3, record=first.to_json())
        assert found + [second.add(value) for value in values[cut:]] == expected
