"""The fifty sentences are what they must be, and what the benchmark counts is right."""

import collections
import pathlib
import subprocess

import numpy as np
import pytest

from benchmarks.cloze import (
    SENTENCES,
    WINDOW_WORDS,
    Cloze,
    bigram_predictor,
    find_in_corpus,
    main,
    print_hits,
    read_clozes,
    unigram_predictor,
)
from bert_jax.tasks.neighbour_baseline import NeighbourBaseline
from bert_jax.text.tokenizer import MASK, SPECIAL_TOKENS
from bert_jax.text.wordpiece import WordPieceTokenizer


def test_fifty_sentences_of_four_kinds():
    clozes = read_clozes(SENTENCES)
    kinds = collections.Counter(cloze.kind for cloze in clozes)
    assert kinds == {"grammar": 12, "knowledge": 20, "distant": 10, "topic": 8}
    assert len({cloze.sentence for cloze in clozes}) == 50
    for cloze in clozes:
        assert cloze.sentence.count("[") == cloze.sentence.count(f" {MASK}") == 1, cloze
        assert cloze.sentence == " ".join(cloze.sentence.split()) and cloze.sentence[-1] == ".", cloze
        assert 1 <= len(set(cloze.answers)) == len(cloze.answers) <= 3, cloze
        assert all(answer.isalnum() and answer == answer.lower() for answer in cloze.answers), cloze


def test_a_topic_is_a_word_of_the_text():
    for cloze in read_clozes(SENTENCES):
        if cloze.kind == "topic":
            assert any(answer in cloze.sentence.lower() for answer in cloze.answers), cloze


def test_the_quick_start_asks_the_first_three(repository_root):
    listed = subprocess.run(["make", "-n", "pretrain"], cwd=repository_root, capture_output=True, text=True)
    asked = [line.split("'")[1] for line in listed.stdout.splitlines() if "--text=" in line]
    assert asked == [cloze.sentence for cloze in read_clozes(SENTENCES)[:3]]


LONG = Cloze("grammar", ("red", "blue"), "One two, three four five six seven eight [MASK].")
SHORT = Cloze("grammar", ("ends",), "It [MASK] here.")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["Zero one (TWO) three. Four five six; seven eight!"], {LONG: "one two three four five six seven eight"}),
        (["two three four five six seven eight blue."], {LONG: "two three four five six seven eight blue"}),
        (["one two three four five six seven nine eight blue"], {}),
        (["one two three four", "five six seven eight red"], {}),
        (["Whoever reads it ends here, or there."], {SHORT: "it ends here"}),
        (["It stops here.", "", "It ends."], {}),
    ],
)
def test_eight_words_in_a_row_are_found_with_every_answer(texts, found):
    assert WINDOW_WORDS == 8
    assert find_in_corpus([LONG, SHORT], texts) == found


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer of a few whole words."""
    words = ("a", "the", "dog", "cat", "sleeps", "runs")
    return WordPieceTokenizer([*SPECIAL_TOKENS, *words], cased=False)


def test_words_by_counting(tokenizer):
    text = "the dog runs a cat sleeps the dog sleeps the cat runs the dog sleeps a dog runs the dog the"
    sequence = np.asarray(tokenizer.encode_batch([text])[0])
    # As in rows: what frames a text is among the neighbours, but never predicted.
    ids = np.asarray([tokenizer.cls_id, *sequence, tokenizer.sep_id])
    counts = np.bincount(sequence, minlength=tokenizer.vocab_size)
    assert unigram_predictor(counts, tokenizer, 2)("the [MASK] runs") == ["the", "dog"]

    baseline = NeighbourBaseline(ids, np.zeros_like(ids), counts)
    predict = bigram_predictor(baseline, tokenizer, 3)
    for sentence, left, right in (
        ("the [MASK] runs", ("the", 1), ("runs", 1)),
        ("dog [MASK] the cat", ("dog", 1), ("the", 1)),
        ("[MASK] dog", ("[CLS]", 1), ("dog", 1)),
        ("the [MASK]", ("the", 1), ("[SEP]", 1)),
    ):
        neighbours = ((tokenizer.token_to_id(token), distance) for token, distance in (left, right))
        likeliest = np.argsort(-baseline.distribution(*neighbours), kind="stable")[:3]
        assert predict(sentence) == [tokenizer.id_to_token(int(token)) for token in likeliest]
    assert predict("a [MASK] runs the")[0] in ("dog", "cat")


def test_hits_are_counted_by_kind(capsys):
    other = Cloze("topic", ("none",), "A third [MASK].")
    print_hits(
        [LONG, SHORT, other], {"model": [["green", "blue"], ["stops"], ["none"]], "bigram": [["red"], ["ends"], []]}
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["hits", "sentences", "model", "bigram"],
        ["grammar", "2", "1", "2"],
        ["topic", "1", "1", "0"],
        ["all", "3", "2", "2"],
    ]


def test_a_model_and_its_rows(tmp_path, monkeypatch, capsys, finished_run, small_data):
    lines = pathlib.Path(small_data.rows_32).with_name("corpus.txt").read_text().splitlines()
    known = next(line for line in lines if len(line.split()) == WINDOW_WORDS).split()
    answer, known[3] = known[3], MASK
    sentences = tmp_path / "sentences.tsv"
    sentences.write_text(
        f"kind\tanswers\tsentence\ngrammar\t{answer}\t{' '.join(known)}\ntopic\tnone other\t{MASK} is all.\n"
    )
    monkeypatch.setattr("benchmarks.cloze.SENTENCES", sentences)
    assert main(["cloze", f"--model={finished_run}", f"--rows={small_data.rows_32}", "--top_k=140"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("1 of 2 sentences have 8 words in a row in ")
    assert printed[2].endswith(f": {' '.join(known)}")
    assert [line.split()[0] for line in printed[3:6]] == ["hit", "yes", "-"]
    assert printed[6].split() == ["hits", "sentences", "model", "unigram", "bigram"]
    assert [line.split() for line in printed[7:]] == [
        ["grammar", "1", "1", "1", "1"],
        ["topic", "1", "0", "0", "0"],
        ["all", "2", "1", "1", "1"],
    ]

    assert main(["cloze", f"--model={finished_run}", "--top_k=2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[4].split() == ["hits", "sentences", "model"]
    assert len(printed[3].split(f"{MASK} is all.")[0].split()) == 1 + 2 + 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": None}, "--model is missing"),
        ({"model": "nowhere"}, "--model=nowhere"),
        ({"rows": "nowhere"}, "no rows at nowhere"),
        ({"rows": "other"}, "of another tokenizer"),
        ({"top_k": 0}, "--top_k=0"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, finished_run, small_data, flags, message):
    monkeypatch.chdir(tmp_path)
    if flags.get("rows") == "other":
        flags = {"rows": small_data.other_rows_32}
    flags = {"model": finished_run, **flags}
    assert main(["cloze", *(f"--{name}={value}" for name, value in flags.items() if value is not None)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
