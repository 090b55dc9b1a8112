"""Rows come back by index as they were written, to TFDS and TensorFlow too, and damage is noticed."""

import json
import pathlib
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from bert_jax.data import remote_rows, row_writer, rows
from bert_jax.data.row_checksums import verify_shards
from bert_jax.errors import DataError, UserError

VOCAB_SIZE = 50


class FakeTokenizer:
    """What `finish_rows` needs of a tokenizer."""

    fingerprint = "f" * 64
    vocab_size = VOCAB_SIZE
    cls_id, sep_id = 2, 3

    def save(self, directory):
        """Makes a directory with a file in it."""
        directory.mkdir()
        (directory / "vocab.txt").write_text("x")


def _row(number):
    first, second = [2, *range(5, 6 + number % 7), 3], [9, 10, 3]
    return first + second, [1000 + number], [len(first)], [len(second)], [number % 2]


def _write(directory, rows_per_shard=(40, 0, 25), validation=(5,), recipe=None):
    directory.mkdir()
    shards, number, counts = {}, 0, np.zeros(VOCAB_SIZE, np.int64)
    for split, sizes in ((rows.TRAIN, rows_per_shard), (rows.VALIDATION, validation)):
        shards[split] = []
        for index, size in enumerate(sizes):
            writer = row_writer.ShardWriter(directory / f"{split}-{index}.unnamed", VOCAB_SIZE)
            for _ in range(size):
                ids, *lists = _row(number)
                writer.write(np.array(ids), *lists)
                number += 1
            shard, its_counts = writer.close()
            shards[split].append(shard)
            counts += its_counts if split == rows.TRAIN else 0
    row_writer.finish_rows(
        directory, recipe or rows.Recipe(seq_len=16), {"input": "x"}, FakeTokenizer(), shards, counts
    )
    return directory


@pytest.fixture
def directory(tmp_path):
    return _write(tmp_path / "rows")


def _parse(record):
    from tensorflow_datasets.proto import tf_example_pb2

    feature = tf_example_pb2.Example.FromString(record).features.feature
    return tuple(list(feature[name].int64_list.value) for name in rows.FEATURES)


def test_any_indices_in_any_order(directory):
    store = rows.open_rows(directory)
    assert (store.num_rows("train"), store.num_rows("validation")) == (65, 5)
    indices = np.array([64, 0, 39, 40, 0, 12])
    assert [_parse(record) for record in store.read("train", indices)] == [_row(int(i)) for i in indices]
    assert _parse(store.read("validation", [4])[0]) == _row(69)
    assert store.read("train", np.zeros(0, np.int64)) == []
    with pytest.raises(IndexError):
        store.read("train", [65])
    with pytest.raises(IndexError):
        store.read("train", [-1])
    with pytest.raises(ValueError):
        store.num_rows("test")


def test_reads_from_several_threads(directory):
    store = rows.open_rows(directory)
    expected = [_row(i) for i in range(65)]
    failures = []

    def read(seed):
        for _ in range(30):
            indices = np.random.default_rng(seed).integers(0, 65, 32)
            got = [_parse(record) for record in store.read("train", indices)]
            if got != [expected[i] for i in indices]:
                failures.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_reads_go_on_after_close(directory):
    store = rows.open_rows(directory)
    before = store.read("train", [3, 50])
    store.close()
    assert store.read("train", [3, 50]) == before


def test_what_the_store_says_about_itself(directory):
    store = rows.open_rows(str(directory))
    assert store.recipe == rows.Recipe(seq_len=16)
    assert (store.vocab_size, store.tokenizer_fingerprint) == (VOCAB_SIZE, "f" * 64)
    assert (store.tokenizer_directory / "vocab.txt").is_file()
    ids = [i for number in range(65) for i in _row(number)[0] if i not in (2, 3)]
    np.testing.assert_array_equal(store.token_counts, np.bincount(ids, minlength=VOCAB_SIZE))


def test_the_fingerprint_depends_on_contents_and_recipe_alone(tmp_path):
    def fingerprint(name, **arguments):
        return rows.open_rows(_write(tmp_path / name, **arguments)).fingerprint

    first = fingerprint("a")
    assert fingerprint("b") == first
    assert fingerprint("c", rows_per_shard=(40, 24)) != first
    assert fingerprint("d", recipe=rows.Recipe(seq_len=17)) != first


def test_tfds_opens_it(directory):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    source = builder.as_data_source(split="train")
    assert len(source) == 65
    for index in (0, 40, 64):
        assert tuple(source[index][name].tolist() for name in rows.FEATURES) == _row(index)
    assert len(builder.as_data_source(split="validation")) == 5


def test_tensorflow_parses_it(directory):
    tf = pytest.importorskip("tensorflow")
    records = rows.open_rows(directory).read("train", [7, 41])
    features = {name: tf.io.RaggedFeature(tf.int64) for name in rows.FEATURES}
    parsed = tf.io.parse_example(tf.constant(records), features)
    for place, index in enumerate((7, 41)):
        assert tuple(parsed[name][place].numpy().tolist() for name in rows.FEATURES) == _row(index)


def test_writing_and_reading_import_no_tensorflow(tmp_path):
    code = (
        "import sys; from bert_jax.data import rows, row_writer; import numpy, pathlib\n"
        f"writer = row_writer.ShardWriter(pathlib.Path({str(tmp_path / 'shard')!r}), 50)\n"
        "writer.write(numpy.array([1, 2]), [0], [2], [0], [0]); writer.close()\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_no_validation_split(tmp_path):
    store = rows.open_rows(_write(tmp_path / "rows", validation=()))
    assert store.num_rows("validation") == 0


def _edit(directory, *place, **changes):
    """Changes what lies at a place in the manifest."""
    path = directory / "rows.json"
    values = json.loads(path.read_text())
    part = values
    for name in place:
        part = part[name]
    part.update(changes)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "rows.json").unlink(), "rows.json"),
        (lambda d: (d / "rows.json").write_text("{"), "damaged"),
        (lambda d: (d / "rows.json").write_text('{"version": 1}'), "damaged"),
        (lambda d: (d / "rows.json").write_text('{"version": 99}'), "version 99"),
        (lambda d: (d / "rows.json").write_text("[" * 100_000), "nested too deeply"),
        (lambda d: (d / "rows.json").write_text("[1]"), "damaged .it is a list, not an object"),
        (lambda d: _edit(d, "shards", "train", 0, file=5), r"shards\['train'\].file is 5, not a string"),
        (lambda d: _edit(d, "shards", "train", 0, file="../x"), "is not the name of a file beside it"),
        (lambda d: _edit(d, "shards", "train", 0, rows=10**400), "rows is a number of more than 64 bits"),
        (lambda d: _edit(d, "shards", "train", 0, rows=-1), "negative size"),
        (lambda d: _edit(d, "shards", train={}), r"shards\['train'\] is an object, not a list"),
        (lambda d: _edit(d, "recipe", seq_len="x"), "recipe.seq_len is 'x', not a whole number"),
        (lambda d: _edit(d, "recipe", seq_len=1), "too short"),
        (lambda d: _edit(d, "recipe", colour=1), "recipe has an unknown field, 'colour'"),
        (lambda d: _edit(d, source=[]), "source is a list"),
        (lambda d: _edit(d, vocab_size=None), "vocab_size is null"),
        (lambda d: next(d.glob("*train*")).unlink(), "missing or cut short"),
        (lambda d: next(d.glob("*train*")).write_bytes(b"x"), "missing or cut short"),
        (lambda d: (d / "token_counts.npy").unlink(), "token_counts.npy"),
        (lambda d: np.save(d / "token_counts.npy", np.zeros(3)), "token_counts.npy"),
        (lambda d: (d / "tokenizer" / "vocab.txt").unlink() or (d / "tokenizer").rmdir(), "tokenizer"),
    ],
)
def test_damage_is_a_user_error_of_one_line(directory, damage, message):
    damage(directory)
    with pytest.raises(UserError, match=message) as error:
        rows.open_rows(directory)
    assert "\n" not in str(error.value) and str(directory) in str(error.value)


def _flipped(path, bit):
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_flipped_bit_of_a_shard_is_read_as_damage_or_not_at_all(directory):
    """Wherever it is: in a record, in what ArrayRecord writes around it, or in the padding between."""
    shard = next(directory.glob("*train*00000-of*"))
    content = shard.read_bytes()
    expected = rows.open_rows(directory).read("train", range(40))
    draw, noticed = random.Random(0), 0
    for _ in range(150):
        place = draw.choice([draw.randrange(8192), draw.randrange(65536, 66560), draw.randrange(len(content))])
        _flipped(shard, 8 * place + draw.randrange(8))
        store = rows.open_rows(directory)
        try:
            assert store.read("train", range(40)) == expected
        except DataError as error:
            assert str(shard) in str(error) and "prepare or copy" in str(error) and "\n" not in str(error)
            noticed += 1
        with pytest.raises(UserError, match=f"{shard.name} was changed"):
            verify_shards(store)
        shard.write_bytes(content)
    assert noticed > 20
    verify_shards(rows.open_rows(directory))


def test_a_shard_that_goes_away_or_ends_early_is_damage(directory):
    store = rows.open_rows(directory)
    shard = next(directory.glob("*train*00000-of*"))
    shard.write_bytes(next(directory.glob("*validation*")).read_bytes())
    with pytest.raises(DataError, match=shard.name):
        store.read("train", [39])
    store.close()
    shard.unlink()
    with pytest.raises(DataError, match=shard.name):
        store.read("train", [0])
    with pytest.raises(UserError, match=f"cannot read .*{shard.name}: No such file"):
        verify_shards(store)


def _forget_checksum(directory):
    """Makes the rows what they were before the checksum of the token counts was kept."""
    path = directory / "rows.json"
    values = json.loads(path.read_text())
    del values["token_counts_sha256"]
    path.write_text(json.dumps(values))


def test_a_flipped_bit_of_the_token_counts_is_noticed(directory):
    path = directory / "token_counts.npy"
    content, expected = path.read_bytes(), rows.open_rows(directory).token_counts
    for bit in range(0, 8 * len(content), 11):
        _flipped(path, bit)
        with pytest.raises(UserError, match="token_counts"):
            rows.open_rows(directory)
        path.write_bytes(content)
    # Rows of before open, and a damaged header is one line there too, of whatever size it speaks.
    _forget_checksum(directory)
    np.testing.assert_array_equal(rows.open_rows(directory).token_counts, expected)
    for bit in range(0, 8 * (len(content) - 8 * VOCAB_SIZE), 5):
        _flipped(path, bit)
        try:
            np.testing.assert_array_equal(rows.open_rows(directory).token_counts, expected)
        except UserError as error:
            assert str(path) in str(error)
        path.write_bytes(content)
    huge = content.replace(b"(50,), }      ", b"(50000000,), }")
    for damaged in (huge, content[:-1], content + b"0", b""):
        assert damaged != content
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            rows.open_rows(directory)


def test_a_changed_manifest_is_noticed(directory):
    path = directory / "rows.json"
    values = json.loads(path.read_text())
    values["recipe"]["seed"] += 1
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="changed"):
        rows.open_rows(directory)


def test_a_directory_of_something_else_is_a_user_error(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no rows at"):
            rows.open_rows(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"seq_len": 7},
        {"pairs": "both"},
        {"max_pairs_per_row": 0},
        {"max_pairs_per_row": 2},
        {"dupe_factor": 0},
        {"short_seq_probability": 1.5},
        {"validation_fraction": 1.0},
    ],
)
def test_a_recipe_that_makes_no_sense_is_a_user_error(fields):
    with pytest.raises(UserError, match=f"--{next(iter(fields))}="):
        rows.Recipe(**{"seq_len": 128, **fields})


@pytest.fixture
def fake_remote(directory, tmp_path, monkeypatch):
    """gs://bucket/... means a local directory; the cache is empty."""
    from etils import epath

    copied = []
    copy_file = remote_rows._copy_file
    monkeypatch.setattr(remote_rows, "_copy_file", lambda a, b: copied.append(a.name) or copy_file(a, b))
    monkeypatch.setattr(remote_rows, "CACHE_DIRECTORY", tmp_path / "cache")
    monkeypatch.setattr(
        epath, "Path", lambda url: pathlib.Path(str(url).replace("gs://bucket", str(directory.parent), 1))
    )
    return copied


def test_remote_rows_are_copied_once(directory, fake_remote, tmp_path):
    store = rows.open_rows("gs://bucket/rows")
    assert store.directory == tmp_path / "cache" / store.fingerprint
    assert _parse(store.read("train", [50])[0]) == _row(50)
    number = len(fake_remote)
    assert number == sum(path.is_file() for path in directory.rglob("*"))
    rows.open_rows("gs://bucket/rows")
    assert len(fake_remote) == number


def test_a_failed_copy_leaves_nothing(fake_remote, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(remote_rows, "_copy_file", fail)
        with pytest.raises(UserError, match="No space left"):
            rows.open_rows("gs://bucket/rows")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert rows.open_rows("gs://bucket/rows").num_rows("train") == 65


def test_remote_rows_that_are_missing_or_do_not_answer(fake_remote, monkeypatch):
    with pytest.raises(UserError, match="no rows at"):
        rows.open_rows("gs://bucket/nowhere")
    monkeypatch.setattr(remote_rows, "REACHABLE_SECONDS", 0.05)
    monkeypatch.setattr(rows, "read_manifest", lambda path: time.sleep(0.5))
    with pytest.raises(UserError, match="does not answer"):
        rows.open_rows("gs://bucket/rows")
