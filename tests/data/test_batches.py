"""Batch s is a function of (rows, seed, s) alone, and what it holds follows from the rows."""

import itertools

import numpy as np
import pytest

from bert_jax.data.masking_recipe import Masking, max_predictions_per_row
from bert_jax.data.row_writer import serialize_row
from bert_jax.errors import DataError

pytest.importorskip("tensorflow")

from bert_jax.data.batches import BatchMaker
from bert_jax.data.masking import Vocabulary

SIZE = 200
VOCABULARY = Vocabulary(SIZE, 4, (0, 2, 3, 4), np.arange(SIZE) % 3 != 0)
# Nothing is replaced, so that rows can be recognised in the batches.
UNTOUCHED = Masking(mask_share=0.0, keep_share=1.0)
SEQ_LEN = 32


class Rows:
    """Rows in memory, each a list of pairs (id, first text, second text, label); texts come without [CLS] and [SEP]."""

    def __init__(self, **splits):
        self.splits = splits

    def num_rows(self, split):
        return len(self.splits[split])

    def read(self, split, indices):
        return [self.serialize(self.splits[split][index]) for index in indices.tolist()]

    def serialize(self, row):
        pairs = [([2, *first, 3], [*second, 3] if second is not None else []) for _, first, second, _ in row]
        ids = [token for first, second in pairs for token in first + second]
        return serialize_row(
            np.array(ids, np.int64),
            [pair_id for pair_id, *_ in row],
            [len(first) for first, _ in pairs],
            [len(second) for _, second in pairs],
            [label for *_, label in row],
        )


def random_row(random, numbers, second=True):
    def text():
        return random.integers(5, SIZE, random.integers(1, 5)).tolist()

    return [(int(number), text(), text() if second else None, int(random.integers(2))) for number in numbers]


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    numbers = itertools.count(1000)
    make = lambda: random_row(random, itertools.islice(numbers, int(random.integers(1, 4))))  # noqa: E731
    return Rows(train=[make() for _ in range(23)], validation=[make() for _ in range(7)])


def maker(rows, *, masking=UNTOUCHED, seed=0, seq_len=SEQ_LEN, max_pairs=3, has_pairs=True):
    return BatchMaker(rows, seq_len, max_pairs, has_pairs, VOCABULARY, masking, seed)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def differ(first, second):
    return any((first[name] != second[name]).any() for name in first)


def derive(row, seq_len=SEQ_LEN, max_pairs=3):
    """The arrays of a row, pair by pair and token by token."""
    by_token = {name: [0] * seq_len for name in ("input_ids", "token_type_ids", "position_ids", "segment_ids")}
    by_pair = {name: [0] * max_pairs for name in ("cls_positions", "next_sentence_labels", "next_sentence_weights")}
    start = 0
    for number, (_, first, second, label) in enumerate(row):
        tokens = [(2, 0), *((token, 0) for token in first), (3, 0)]
        if second is not None:
            tokens += [*((token, 1) for token in second), (3, 1)]
        for position, (token, token_type) in enumerate(tokens):
            by_token["input_ids"][start + position] = token
            by_token["token_type_ids"][start + position] = token_type
            by_token["position_ids"][start + position] = position
            by_token["segment_ids"][start + position] = number + 1
        by_pair["cls_positions"][number] = start
        by_pair["next_sentence_labels"][number] = label
        by_pair["next_sentence_weights"][number] = second is not None
        start += len(tokens)
    return by_token | by_pair


def test_what_follows_from_the_rows(rows):
    number = len(rows.splits["validation"])
    (batch,) = maker(rows).evaluation("validation", number)
    for index, row in enumerate(rows.splits["validation"]):
        for name, expected in derive(row).items():
            np.testing.assert_array_equal(batch[name][index], expected, err_msg=f"{name} of row {index}")
    # At least one token of each pair is predicted, and its original is told.
    for index, row in enumerate(rows.splits["validation"]):
        here = batch["masked_weights"][index] > 0
        positions = batch["masked_positions"][index][here]
        np.testing.assert_array_equal(batch["masked_ids"][index][here], batch["input_ids"][index][positions])
        assert set(batch["segment_ids"][index][positions]) == set(range(1, len(row) + 1))


def test_rows_of_single_texts():
    random = np.random.default_rng(3)
    rows = Rows(validation=[random_row(random, [n], second=False) for n in range(5)])
    (batch,) = maker(rows, max_pairs=1, has_pairs=False).evaluation("validation", 5)
    for index, row in enumerate(rows.splits["validation"]):
        for name, expected in derive(row, max_pairs=1).items():
            np.testing.assert_array_equal(batch[name][index], expected, err_msg=name)
    assert (batch["next_sentence_weights"] == 0).all() and (batch["token_type_ids"] == 0).all()
    assert (batch["masked_weights"].sum(1) >= 1).all()


@pytest.mark.parametrize(("seq_len", "max_pairs"), [(32, 3), (40, 5), (24, 30)])
def test_shapes_are_those_announced(rows, seq_len, max_pairs):
    short = Rows(train=[row[:1] for row in rows.splits["train"]])
    its_maker = maker(short, masking=Masking(), seq_len=seq_len, max_pairs=max_pairs)
    (batch,) = its_maker.train(4, 0, 1)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == its_maker.shapes(4)
    assert batch["masked_ids"].shape[1] == max_predictions_per_row(Masking(), seq_len, max_pairs) <= seq_len


def test_a_batch_is_the_same_however_one_arrives_at_it(rows):
    masking = Masking()
    straight = list(maker(rows, masking=masking).train(5, 0, 12))
    assert len(straight) == 12
    for start in (3, 11):
        for step, batch in enumerate(maker(rows, masking=masking).train(5, start, 12), start=start):
            assert_same(batch, straight[step])
    # A maker that has served other steps before, and one with more threads.
    used = maker(rows, masking=masking)
    for step in (7, 2):
        assert_same(next(iter(used.train(5, step, step + 1))), straight[step])
    threaded = BatchMaker(rows, SEQ_LEN, 3, True, VOCABULARY, masking, 0, threads=7)
    for step, batch in enumerate(threaded.train(5, 0, 12)):
        assert_same(batch, straight[step])


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_read_parts_of_the_same_batch(rows, hosts):
    whole = list(maker(rows, masking=Masking()).train(8, 2, 5))
    parts = [
        list(
            maker(rows, masking=Masking()).train(8, 2, 5, batch_rows=range(host * 8 // hosts, (host + 1) * 8 // hosts))
        )
        for host in range(hosts)
    ]
    for step, batch in enumerate(whole):
        joined = {name: np.concatenate([part[step][name] for part in parts]) for name in batch}
        assert_same(joined, batch)


def test_a_host_reads_only_its_own_rows(rows):
    asked = []

    class Recording(Rows):
        def read(self, split, indices):
            asked.extend(indices.tolist())
            return super().read(split, indices)

    recording = maker(Recording(**rows.splits))
    list(recording.train(8, 0, 1, batch_rows=[2, 3]))
    assert asked == recording.train_rows(np.array([2, 3]))[0].tolist()


def test_other_seeds_give_other_orders_and_masks(rows):
    first, second = (next(iter(maker(rows, seed=seed).train(8, 0, 1))) for seed in (0, 1))
    assert (first["input_ids"] != second["input_ids"]).any()
    validation = [next(iter(maker(rows, seed=seed).evaluation("validation", 7))) for seed in (0, 1)]
    assert (validation[0]["masked_positions"] != validation[1]["masked_positions"]).any()


@pytest.mark.parametrize("num_rows", [1, 2, 23])
def test_every_row_once_an_epoch_and_every_epoch_in_another_order(rows, num_rows):
    its_maker = maker(Rows(train=rows.splits["train"][:num_rows]))
    indices, epochs = its_maker.train_rows(np.arange(4 * num_rows))
    orders = indices.reshape(4, num_rows)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(num_rows), (4, 1)))
    np.testing.assert_array_equal(epochs, np.repeat(np.arange(4), num_rows))
    if num_rows > 10:
        assert len({tuple(order) for order in orders.tolist()}) == 4
        assert not (orders[0] == np.arange(num_rows)).all()


def test_batches_follow_the_order_over_the_end_of_an_epoch(rows):
    # Steps of 5 over 23 rows: step 4 holds examples 20 to 24 of two epochs.
    its_maker = maker(rows)
    (batch,) = its_maker.train(5, 4, 5)
    indices, epochs = its_maker.train_rows(np.arange(20, 25))
    assert epochs.tolist() == [0, 0, 0, 1, 1]
    for place, index in enumerate(indices.tolist()):
        np.testing.assert_array_equal(batch["input_ids"][place], derive(rows.splits["train"][index])["input_ids"])


def test_masks_of_a_row_change_with_the_epoch_unless_static(rows):
    for masking, changes in ((UNTOUCHED, True), (Masking(mask_share=0.0, keep_share=1.0, static=True), False)):
        its_maker = maker(rows, masking=masking)
        indices, _ = its_maker.train_rows(np.arange(46))
        (batch,) = its_maker.train(46, 0, 1)
        masks = [batch["masked_positions"][np.argsort(part) + 23 * i] for i, part in enumerate(np.split(indices, 2))]
        assert (masks[0] != masks[1]).any() == changes


def test_masks_of_a_row_do_not_depend_on_the_batch(rows):
    """The same examples in batches of another size, and of longer rows."""
    small = list(maker(rows, masking=Masking()).train(4, 0, 6))
    (large,) = maker(rows, masking=Masking()).train(24, 0, 1)
    assert_same({name: np.concatenate([batch[name] for batch in small]) for name in large}, large)
    (longer,) = maker(rows, masking=Masking(), seq_len=48).train(24, 0, 1)
    np.testing.assert_array_equal(longer["input_ids"][:, :SEQ_LEN], large["input_ids"])
    width = large["masked_positions"].shape[1]
    for name in ("masked_positions", "masked_ids", "masked_weights"):
        np.testing.assert_array_equal(longer[name][:, :width], large[name])


def test_rows_are_never_cut(rows):
    with pytest.raises(DataError, match="launch"):
        next(maker(rows, masking=Masking(), seq_len=SEQ_LEN // 2).train(24, 0, 1))


# Ids, pair ids, first lengths, second lengths and labels; the first row is as it should be.
SOUND = [2, 7, 3, 8, 3], [1], [3], [2], [0]


@pytest.mark.parametrize(
    "damage",
    [
        {0: [2, SIZE, 3, 8, 3]},
        {0: [2, -1, 3, 8, 3]},
        {0: [2, 7, 3, 8, 8, 3]},
        {2: [4]},
        {2: [-1], 3: [6]},
        {3: [2, 0]},
        {4: [2]},
        {1: [1, 2]},
        {1: [1] * 4, 2: [3, 0, 0, 0], 3: [2, 0, 0, 0], 4: [0] * 4},
    ],
    ids=str,
)
def test_rows_that_no_preparation_writes_are_noticed(damage):
    class Damaged(Rows):
        def serialize(self, lists):
            ids, *others = lists
            return serialize_row(np.array(ids), *others)

    sound = maker(Damaged(validation=[SOUND])).evaluation("validation", 1)
    assert next(sound)["input_ids"][0, :6].tolist() == [*SOUND[0], 0]
    damaged = [damage.get(place, values) for place, values in enumerate(SOUND)]
    batches = maker(Damaged(validation=[SOUND, damaged])).evaluation("validation", 1)
    next(batches)
    with pytest.raises(DataError, match="split validation is not as launch"):
        next(batches)


def test_what_reading_raises_is_raised_at_its_batch(rows):
    class Torn(Rows):
        def read(self, split, indices):
            if 2 in indices:
                raise error
            return super().read(split, indices)

    for error in (DataError("shard 7 is damaged"), IndexError("a mistake of the program")):
        batches = maker(Torn(**rows.splits)).evaluation("validation", 2)
        next(batches)
        with pytest.raises(type(error)) as raised:
            next(batches)
        assert raised.value is error


def test_packing_changes_no_mask(rows):
    unpacked = Rows(validation=[[pair] for row in rows.splits["validation"] for pair in row])
    number = unpacked.num_rows("validation")
    (alone,) = maker(unpacked, masking=Masking(), max_pairs=1).evaluation("validation", number)
    (packed,) = maker(rows, masking=Masking()).evaluation("validation", 7)

    def tokens(batch):
        """Of each pair, in order: its masked text, and the places and ids of what is predicted."""
        found = []
        for row in range(len(batch["input_ids"])):
            weights = batch["masked_weights"][row] > 0
            positions = batch["masked_positions"][row][weights]
            for segment in range(1, batch["segment_ids"][row].max() + 1):
                here = batch["segment_ids"][row] == segment
                its = here[positions]
                places = batch["position_ids"][row][positions][its]
                found.append((batch["input_ids"][row][here], places, batch["masked_ids"][row][weights][its]))
        return found

    pairs = list(zip(tokens(alone), tokens(packed), strict=True))
    assert len(pairs) == number
    for first, second in pairs:
        for expected, array in zip(first, second, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_later_phases_go_on_where_earlier_ones_stopped(rows):
    whole = list(maker(rows, masking=Masking()).train(4, 0, 8))
    rest = list(maker(rows, masking=Masking()).train(8, 0, 2, examples_before=16))
    for step, batch in enumerate(rest):
        pieces = whole[4 + 2 * step : 6 + 2 * step]
        assert_same(batch, {name: np.concatenate([piece[name] for piece in pieces]) for name in batch})


def test_evaluation_covers_each_row_once_and_fills_up(rows):
    batches = list(maker(rows).evaluation("validation", 3))
    assert [len(batch["input_ids"]) for batch in batches] == [3, 3, 3]
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    expected = [derive(row)["input_ids"] for row in rows.splits["validation"]]
    np.testing.assert_array_equal(joined["input_ids"][:7], expected)
    for name, array in joined.items():
        assert (array[7:] == 0).all(), name
    # The rows' masks do not depend on the size of the batch.
    (one,) = maker(rows).evaluation("validation", 7)
    assert_same({name: array[:7] for name, array in joined.items()}, one)
    assert not differ(one, next(iter(maker(rows).evaluation("validation", 7))))


def test_evaluation_of_a_part_and_of_nothing(rows):
    assert len(list(maker(rows).evaluation("validation", 3, max_batches=2))) == 2
    assert len(list(maker(rows).evaluation("validation", 3, max_batches=9))) == 3
    assert list(maker(Rows(validation=[])).evaluation("validation", 3)) == []
