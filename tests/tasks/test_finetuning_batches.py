"""Training batches are a function of the step: weights and hidden tokens too, however the batch is cut."""

import dataclasses
import types

import numpy as np
import pytest

from bert_jax.data.length_batches import LengthBatches
from bert_jax.parallel.mesh import make_mesh
from bert_jax.tasks.encoding.encoded_rows import EncodedRows, Row
from bert_jax.tasks.finetuning_batches import TrainingRows
from bert_jax.tasks.input_masking import InputMasking

_TOKENIZER = types.SimpleNamespace(cls_id=2, sep_id=3, pad_id=0, mask_id=4, token_to_id={"[E1]": 7, "[/E1]": 8}.get)
_KEPT = (2, 3, 0, 7, 8)


def _rows(count=200, rows_per_unit=1):
    draw = np.random.default_rng(0)
    made = []
    for number in range(count * rows_per_unit):
        body = draw.integers(5, 30, draw.integers(10, 30)).tolist()
        made.append(Row([2, *body, 3], len(body) + 2, number // rows_per_unit))
    rows = EncodedRows.of(made, rows_per_unit)
    return dataclasses.replace(rows, targets={**rows.targets, "labels": np.arange(len(rows), dtype=np.int32)})


def _batches(rows, first, last, **hooks):
    order = LengthBatches(rows.unit_lengths(), 16, 0, [32])
    training = TrainingRows(rows, order, **hooks)
    batches = (training.batch(step, step, make_mesh()) for step in range(first, last))
    return [{name: np.asarray(array) for name, array in batch.items()} for batch in batches]


@pytest.fixture(scope="module")
def masking():
    return InputMasking.of(0.3, 5, _TOKENIZER, ["[E1]", "[/E1]"])


def test_ordinary_tokens_are_hidden_at_the_rate_and_no_others(masking):
    rows = _rows()
    plain, hidden = _batches(rows, 0, 13), _batches(rows, 0, 13, augment=masking)
    chosen = ordinary = 0
    for before, after in zip(plain, hidden, strict=True):
        changed = before["input_ids"] != after["input_ids"]
        may_change = (before["segment_ids"] > 0) & ~np.isin(before["input_ids"], _KEPT)
        assert not (changed & ~may_change).any() and (after["input_ids"][changed] == 4).all()
        assert np.isin(before["input_ids"], (7, 8)).any()
        chosen, ordinary = chosen + changed.sum(), ordinary + may_change.sum()
        for name in before.keys() - {"input_ids"}:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    # Five standard deviations of so many draws.
    assert chosen / ordinary == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / ordinary))


@pytest.mark.parametrize("rows_per_unit", [1, 3])
def test_any_step_can_be_reached_without_those_before_it(masking, rows_per_unit):
    rows = _rows(40, rows_per_unit)
    whole, resumed = _batches(rows, 0, 6, augment=masking), _batches(rows, 4, 6, augment=masking)
    for before, after in zip(whole[4:], resumed, strict=True):
        np.testing.assert_array_equal(before["input_ids"], after["input_ids"])
    # Epochs of three steps: the same rows are hidden anew.
    assert (whole[0]["input_ids"] == 4).mean() != (whole[3]["input_ids"] == 4).mean()


def test_a_part_of_the_batch_is_hidden_as_in_the_whole(masking):
    batch = _rows().batch(np.arange(16), 32)
    whole = masking(batch, 3, np.arange(16))
    part = np.asarray([1, 4, 5, 15])
    np.testing.assert_array_equal(masking({k: v[part] for k, v in batch.items()}, 3, part), whole[part])
    longer = masking(_rows().batch(np.arange(16), 40), 3, np.arange(16))
    np.testing.assert_array_equal(longer[:, :32], whole)
    same_text = {name: np.repeat(array[:1], 16, axis=0) for name, array in batch.items()}
    assert len(np.unique(masking(same_text, 3, np.arange(16)), axis=0)) > 10
    other_seed = InputMasking.of(0.3, 6, _TOKENIZER, [])
    assert (other_seed(batch, 3, np.arange(16)) != whole).any() and (masking(batch, 4, np.arange(16)) != whole).any()


def test_rows_are_weighed():
    (batch,) = _batches(_rows(), 12, 13, weigh=lambda batch: batch["labels"] * batch["row_weights"])
    # 200 rows in batches of 16: one of the epoch's 13 batches has eight empty rows.
    np.testing.assert_array_equal(batch["row_weights"][batch["row_weights"] > 0] % 1, 0)
    assert batch["row_weights"].max() > 1
