"""Preparation from text to rows: the same bytes for any number of workers, and finished or not there at all."""

import json
import multiprocessing
import os
import pathlib
import random
import signal
import time

import numpy as np
import pytest
from tqdm import tqdm

from bert_jax.data import preparation, row_building, rows, tokenization
from bert_jax.data.token_store import TokenStore
from bert_jax.errors import UserError
from bert_jax.text.passage import Passage
from bert_jax.text.tokenizers import WordPieceTokenizer, load_tokenizer

WORDS = [f"{a}{b}" for a in "bcdfghjklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "en", "on")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS], cased=False).save(directory)
    return directory


def _write_corpus(path, documents=60, sentences=12, words=9, seed=0):
    """One sentence a line, blank lines between documents; every sentence of the corpus is different."""
    generator = random.Random(seed)
    text = []
    for _ in range(documents):
        for _ in range(generator.randint(1, sentences)):
            text.append(" ".join(generator.choices(WORDS, k=generator.randint(4, words))) + " .")
        text.append("")
    path.write_text("\n".join(text) + "\n")
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return _write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


def _prepare(corpus, tokenizer, output, workers=1, text_format="sentences", **recipe):
    return preparation.prepare(
        inputs=str(corpus),
        tokenizer_directory=str(tokenizer),
        output=output,
        recipe=rows.Recipe(**{"seq_len": 48, "validation_fraction": 0.1, **recipe}),
        text_format=text_format,
        workers=workers,
    )


def _parse(store, split="train"):
    from tensorflow_datasets.proto import tf_example_pb2

    result = []
    for record in store.read(split, np.arange(store.num_rows(split))):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        result.append({name: list(feature[name].int64_list.value) for name in rows.FEATURES})
    return result


def _pairs(store, split="train"):
    """Returns {pair id: (ids, first length, second length, label)}."""
    pairs = {}
    for row in _parse(store, split):
        assert len(row["input_ids"]) <= store.recipe.seq_len
        assert len(row["pair_ids"]) <= store.recipe.max_pairs_per_row
        position = 0
        lists = (row["pair_ids"], row["first_lengths"], row["second_lengths"], row["next_sentence_labels"])
        for pair_id, first, second, label in zip(*lists, strict=True):
            assert pair_id not in pairs
            pairs[pair_id] = (tuple(row["input_ids"][position : position + first + second]), first, second, label)
            position += first + second
        assert position == len(row["input_ids"])
    return pairs


def _files(directory):
    """Contents of all files that do not tell the time."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("report.json", "report.txt")
    }


def test_the_same_bytes_for_any_number_of_workers(corpus, tokenizer, tmp_path, monkeypatch):
    outputs = []
    for workers in (1, 2, 3):
        outputs.append(tmp_path / str(workers))
        _prepare(corpus, tokenizer, outputs[-1], workers, packing=True, max_pairs_per_row=8, dupe_factor=3)
    reports = [json.loads((output / "report.json").read_text()) for output in outputs]
    for output, report in zip(outputs[1:], reports[1:], strict=True):
        assert _files(output) == _files(outputs[0])
        assert {**report, "timing": 0} == {**reports[0], "timing": 0}


def test_blocks_of_text_do_not_change_the_tokens(corpus, tokenizer, tmp_path, monkeypatch):
    _prepare(corpus, tokenizer, tmp_path / "whole")
    monkeypatch.setattr(tokenization.cut_blocks, "__defaults__", (100,))
    _prepare(corpus, tokenizer, tmp_path / "blocks")
    assert _files(tmp_path / "whole") == _files(tmp_path / "blocks")


def test_many_shards(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(row_building.cut_document_blocks, "__defaults__", (100,))
    monkeypatch.setattr(row_building, "MOST_SHARDS", 4)
    _prepare(corpus, tokenizer, tmp_path / "rows", dupe_factor=2)
    store = rows.open_rows(tmp_path / "rows")
    assert len(store.manifest.shards["train"]) in (3, 4)
    assert len(_pairs(store)) == store.num_rows("train")


def test_every_row_is_made_of_the_corpus(corpus, tokenizer, tmp_path):
    _prepare(corpus, tokenizer, tmp_path / "rows", short_seq_probability=0.0)
    loaded = load_tokenizer(tokenizer)
    lines = corpus.read_text().split("\n")
    documents, texts = [[]], []
    for line, ids in zip(lines, loaded.encode_batch(lines), strict=True):
        documents.append([]) if not line else documents[-1].extend(ids)
        texts.append(ids)
    spaced = [" " + " ".join(map(str, ids)) + " " for ids in documents]

    def found_in(ids):
        wanted = " " + " ".join(map(str, ids)) + " "
        return {number for number, document in enumerate(spaced) if wanted in document}

    store = rows.open_rows(tmp_path / "rows")
    of_split = {}
    for split in rows.SPLITS:
        of_split[split] = set()
        for ids, first, second, label in _pairs(store, split).values():
            assert len(ids) == first + second
            assert ids[0] == loaded.cls_id and ids[first - 1] == ids[-1] == loaded.sep_id
            a, b = ids[1 : first - 1], ids[first:-1]
            assert not {loaded.cls_id, loaded.sep_id, loaded.pad_id, loaded.mask_id} & {*a, *b}
            of_a, of_b = found_in(a), found_in(b)
            # Only segments of several sentences are sure to occur once.
            if len(of_a) == len(of_b) == 1:
                assert (of_a != of_b) == bool(label)
                of_split[split] |= of_a | of_b
                if not label and len(ids) < 48:
                    assert found_in(a + b) == of_a
    assert of_split["train"] and of_split["validation"]
    assert not of_split["train"] & of_split["validation"], "a document is in both splits"
    counted = np.zeros(loaded.vocab_size, np.int64)
    for ids, *_ in _pairs(store).values():
        counted += np.bincount(ids, minlength=loaded.vocab_size)
    counted[[loaded.cls_id, loaded.sep_id]] = 0
    np.testing.assert_array_equal(store.token_counts, counted)


@pytest.mark.parametrize("pairs", rows.PAIRS)
def test_packing_changes_no_pair(corpus, tokenizer, tmp_path, pairs):
    _prepare(corpus, tokenizer, tmp_path / "plain", pairs=pairs, seq_len=64)
    _prepare(corpus, tokenizer, tmp_path / "packed", pairs=pairs, seq_len=64, packing=True, max_pairs_per_row=3)
    plain, packed = rows.open_rows(tmp_path / "plain"), rows.open_rows(tmp_path / "packed")
    for split in rows.SPLITS:
        assert _pairs(plain, split) == _pairs(packed, split)
        assert not set(_pairs(plain, "train")) & set(_pairs(plain, "validation"))
    assert packed.num_rows("train") < plain.num_rows("train")
    if pairs == "none":
        assert all(second == 0 and label == 0 for _, _, second, label in _pairs(plain).values())


def test_each_pass_has_other_pairs(corpus, tokenizer, tmp_path):
    _prepare(corpus, tokenizer, tmp_path / "one")
    _prepare(corpus, tokenizer, tmp_path / "two", dupe_factor=2)
    one, two = (_pairs(rows.open_rows(tmp_path / name)) for name in ("one", "two"))
    assert one.items() <= two.items(), "the first pass is the same"
    second = {pair for pair_id, pair in two.items() if pair_id not in one}
    assert len(second) > len(one) / 2
    assert len(second & set(one.values())) < len(second) / 2
    validation = [_pairs(rows.open_rows(tmp_path / name), "validation") for name in ("one", "two")]
    assert sorted(validation[0].values()) == sorted(validation[1].values()), "held-out pairs are made once"


def test_the_seed_changes_pairs_and_split(corpus, tokenizer, tmp_path):
    stores = []
    for seed in (0, 1):
        _prepare(corpus, tokenizer, tmp_path / str(seed), seed=seed)
        stores.append(rows.open_rows(tmp_path / str(seed)))
    assert stores[0].fingerprint != stores[1].fingerprint
    assert set(_pairs(stores[0]).values()) != set(_pairs(stores[1]).values())


def _passages(consumed, number=200_000):
    for index in range(number):
        consumed.append(index)
        yield Passage(f"d{index // 50}", "ba be bi bo bu ban ben bon .", True)


def test_text_is_read_as_it_is_needed(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenization.cut_blocks, "__defaults__", (10_000,))
    consumed, ahead = [], []

    class Progress:
        done = 0

        def update(self, text_bytes):
            """Notes how far the reader is ahead of what was written."""
            self.done += text_bytes
            ahead.append(len(consumed) * 28 - self.done)

    statistics = tokenization.tokenize_corpus(
        _passages(consumed, 20_000), tokenizer, len(WORDS) + 6, "en", tmp_path / "store", 2, Progress()
    )
    assert statistics.sentences == 20_000 and statistics.documents == 400
    assert max(ahead) < 8 * 10_000, "blocks pile up in memory"
    assert TokenStore(tmp_path / "store", len(WORDS) + 6).num_documents == 400


def test_a_document_may_span_blocks(tokenizer, tmp_path):
    passages = list(_passages([], 1000))
    blocks = list(tokenization.cut_blocks(passages, 700))
    assert len(blocks) > 30
    assert [text for block in blocks for text in block.texts] == [passage.text for passage in passages]
    assert sum(start for block in blocks for start in block.start_documents) == 20


class _Broken(Exception):
    pass


@pytest.mark.parametrize("place", ["tokenize_corpus", "build_rows", "finish_rows", "rename"])
def test_an_error_leaves_nothing_and_a_second_try_works(corpus, tokenizer, tmp_path, monkeypatch, place):
    def fail(*_, **__):
        raise _Broken

    with monkeypatch.context() as patch:
        if place == "rename":
            rename = os.replace
            patch.setattr(os, "replace", lambda path, to: fail() if to.name == "rows" else rename(path, to))
        else:
            from bert_jax.data import row_writer

            module = {"tokenize_corpus": tokenization, "build_rows": row_building, "finish_rows": row_writer}[place]
            patch.setattr(module, place, fail)
        with pytest.raises(_Broken):
            _prepare(corpus, tokenizer, tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []
    assert _prepare(corpus, tokenizer, tmp_path / "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def _prepare_slowly(corpus, tokenizer, output):
    """Prepares until the rows are being made, then waits to be killed."""
    row_building.build_rows = lambda *_: time.sleep(600)
    _prepare(corpus, tokenizer, output)


def test_killed_then_started_again(corpus, tokenizer, tmp_path):
    _prepare(corpus, tokenizer, tmp_path / "reference")
    output = tmp_path / "rows"
    process = multiprocessing.get_context("fork").Process(target=_prepare_slowly, args=(corpus, tokenizer, output))
    process.start()
    store = tmp_path / ".rows.unfinished" / "tokens" / "document_offsets.bin"
    while not (store.is_file() and store.stat().st_size):
        assert process.is_alive()
        time.sleep(0.02)
    with pytest.raises(UserError, match="another process is writing"):
        _prepare(corpus, tokenizer, output)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not output.exists()
    for directory in (output, tmp_path / ".rows.unfinished"):
        with pytest.raises(UserError):
            rows.open_rows(directory)
    _prepare(corpus, tokenizer, output)
    assert _files(output) == _files(tmp_path / "reference")
    assert not (tmp_path / ".rows.unfinished").exists()


def test_a_full_disk_is_a_user_error(corpus, tokenizer, tmp_path, monkeypatch):
    from bert_jax.data import row_writer

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_writer.np, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left on device; make room"):
        _prepare(corpus, tokenizer, tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def _limited(corpus, tokenizer, output, limit, queue):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        _prepare(corpus, tokenizer, output, dupe_factor=20)
    except BaseException as error:
        queue.put((type(error).__name__, str(error)))


def test_a_shard_that_cannot_be_written_is_a_user_error(corpus, tokenizer, tmp_path):
    # The limit lets the token store through, and stops the shard, which ArrayRecord writes.
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_limited, args=(corpus, tokenizer, tmp_path / "rows", 20_000, queue))
    process.start()
    name, message = queue.get(timeout=60)
    process.join()
    assert name == "UserError" and "File too large" in message and "\n" not in message and "array" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_is_a_user_error(corpus, tokenizer, tmp_path):
    progress = tqdm(disable=True)
    progress.update = lambda _: [os.kill(child.pid, signal.SIGKILL) for child in multiprocessing.active_children()]
    with pytest.raises(UserError, match="fewer than --workers=2"):
        tokenization.tokenize_corpus(
            _passages([], 400_000), tokenizer, len(WORDS) + 6, "en", tmp_path / "store", 2, progress
        )


def test_a_second_run_says_that_it_is_done(corpus, tokenizer, tmp_path):
    assert _prepare(corpus, tokenizer, tmp_path / "rows")
    before = _files(tmp_path / "rows")
    assert _prepare(corpus, tokenizer, tmp_path / "rows") is None
    with pytest.raises(UserError, match=r"--seed=0, not 1"):
        _prepare(corpus, tokenizer, tmp_path / "rows", seed=1)
    with pytest.raises(UserError, match="--input="):
        _prepare(f"{corpus},{corpus}", tokenizer, tmp_path / "rows")
    other = tmp_path / "other_tokenizer"
    WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS], cased=False).save(other)
    with pytest.raises(UserError, match="another tokenizer"):
        _prepare(corpus, other, tmp_path / "rows")
    assert _files(tmp_path / "rows") == before


@pytest.mark.parametrize("pairs", ["sop", "none"])
def test_one_document(tokenizer, tmp_path, pairs):
    corpus = _write_corpus(tmp_path / "one.txt", documents=1, sentences=30, seed=4)
    with pytest.raises(UserError, match=r"single document.*--pairs=sop\|none"):
        _prepare(corpus, tokenizer, tmp_path / "rows")
    report = _prepare(corpus, tokenizer, tmp_path / "rows", pairs=pairs)
    assert report["rows"]["validation"]["rows"] == 0
    assert any("no validation split" in warning for warning in report["warnings"])


def test_documents_without_pairs(tokenizer, tmp_path):
    corpus = tmp_path / "short.txt"
    corpus.write_text("\n\n".join("ba be bi ." for _ in range(9)))
    with pytest.raises(UserError, match="no document is long enough for --pairs=sop"):
        _prepare(corpus, tokenizer, tmp_path / "rows", pairs="sop")


SHARED = pathlib.Path(os.environ.get("BERT_JAX_SHARED", pathlib.Path(__file__).resolve().parents[2].parent / "shared"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder `shared` beside the repository")
def test_on_wikipedia(tmp_path):
    from bert_jax.text.tokenizers import wrap_vocabulary

    wrap_vocabulary(SHARED / "data/vocab/bert-base-uncased/vocab.txt", cased=False).save(tmp_path / "tokenizer")
    inputs = SHARED / "data/corpora/wiki_en/wiki_0[0-1].gz"
    recipe = {"seq_len": 512, "packing": True, "max_pairs_per_row": 8}
    report = _prepare(inputs, tmp_path / "tokenizer", tmp_path / "rows", text_format="auto", **recipe)
    assert report["warnings"] == []
    assert report["corpus"]["unknown_token_rate"] < 0.001
    assert 0.53 < report["rows"]["train"]["random_next"] < 0.63
    assert report["rows"]["train"]["filled"] > 0.95
