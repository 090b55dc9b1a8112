"""Windows of contexts and answers from logits, against the original's rules written out plainly."""

import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.encoding.answer_spans import (
    decode,
    decode_all,
    official_n_best,
    official_null_odds,
    official_predictions,
)
from bert_jax.tasks.encoding.encoded_rows import EncodedRows
from bert_jax.tasks.encoding.passages import END, START, PassageEncoder, most_context, passage_windows
from bert_jax.tasks.examples.example_types import QuestionExample
from bert_jax.tasks.examples.places import BadRows, Place
from bert_jax.tasks.examples.squad import QuestionFile
from bert_jax.tasks.scores.answers import evaluator_for, fractions, score_answers
from bert_jax.text.wordpiece import WordPieceTokenizer, read_vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", ".", *LETTERS, *(f"##{letter}" for letter in LETTERS)]


@pytest.fixture(scope="module")
def letters():
    """A tokenizer that cuts words into letters."""
    return WordPieceTokenizer([*TOKENS, "北", "京"], cased=False)


def question(context, *answers, text="who ?"):
    located = tuple((answer, context.index(answer)) for answer in answers)
    return QuestionExample(text, context, located, not answers, "q1", Place("dev.json"))


def encode(tokenizer, example, **options):
    ((_, rows),) = PassageEncoder(tokenizer, **options).encode([example])
    return rows, [row.detail for row in rows]


def test_a_row_is_question_and_context(letters):
    example = question("The Café. is", "Café")
    (row,), (window,) = encode(letters, example, max_seq_len=30, max_question_len=10)
    tokens = [letters.id_to_token(index) for index in row.tokens]
    assert " ".join(tokens) == "[CLS] w ##h ##o ? [SEP] t ##h ##e c ##a ##f ##e . i ##s [SEP]"
    assert row.first_length == window.offset == 6
    first, last = row.targets[START] - 6, row.targets[END] - 6
    assert tokens[6 + first : 6 + last + 1] == ["c", "##a", "##f", "##e"]
    assert example.context[window.starts[first] : window.ends[last]] == "Café"
    assert window.has_most_context.all()


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 35, 100])
@pytest.mark.parametrize("size, stride", [(10, 4), (10, 10), (10, 25), (7, 1)])
def test_windows_and_context_are_those_of_the_original(length, size, stride):
    """The loops of run_squad.py, as it describes them."""
    spans, offset = [], 0
    while offset < length:
        taken = min(length - offset, size)
        spans.append((offset, offset + taken))
        if offset + taken == length:
            break
        offset += min(taken, stride)
    windows = passage_windows(length, size, stride)
    assert windows == (spans or [(0, 0)])
    best = most_context(length, windows)
    for place in range(length):
        scores = [
            min(place - first, last - 1 - place) + 0.01 * (last - first) if first <= place < last else -1
            for first, last in windows
        ]
        assert best[place] == scores.index(max(scores))


@pytest.mark.parametrize("answer", ["e f", "f g"])
def test_the_target_is_cls_where_not_all_of_the_answer_is_in_the_window(letters, answer):
    example = question("a b c d e f g h i j", answer)
    rows, windows = encode(letters, example, max_seq_len=12, max_question_len=4, doc_stride=2)
    found = 0
    for row in rows:
        start, end = row.targets[START], row.targets[END]
        texts = [letters.id_to_token(index) for index in row.tokens[row.first_length : -1]]
        if set(answer.split()) <= set(texts):
            assert [letters.id_to_token(index) for index in row.tokens[start : end + 1]] == answer.split()
            found += 1
        else:
            assert start == end == 0
    assert 0 < found < len(windows)
    assert any(len(set(answer.split()) & {letters.id_to_token(i) for i in row.tokens}) == 1 for row in rows)
    assert sum(int(window.has_most_context.sum()) for window in windows) == 10
    (impossible,), _ = encode(letters, question("a b c"), max_seq_len=12, max_question_len=4)
    assert impossible.targets == {START: 0, END: 0}


def test_counts_and_limits(letters):
    encoder = PassageEncoder(letters, max_seq_len=12, doc_stride=3, max_question_len=4)
    lost = QuestionExample("w ?", "a \u200b b", (("\u200b", 2),), False, "q", Place("x"))
    list(encoder.encode([question("a b c d e f g h", "c", text="a b c d e f"), lost]))
    assert (encoder.questions, encoder.long, encoder.long_questions, encoder.lost_answers) == (2, 1, 1, 1)
    assert len(encoder.report()) == 3
    with pytest.raises(UserError, match="leaves no room"):
        PassageEncoder(letters, max_seq_len=20, max_question_len=17)
    with pytest.raises(UserError, match="doc_stride"):
        PassageEncoder(letters, doc_stride=0)
    unlabelled = QuestionExample("w ?", "a b", None, False, "q", Place("new.json"))
    assert encode(letters, unlabelled)[0][0].targets == {}


def test_the_first_answer_that_is_in_the_context_is_learned(letters):
    example = QuestionExample("w ?", "a b c", (("z", -1), ("b", 2)), False, "q", Place("x"))
    (row,), _ = encode(letters, example)
    assert letters.id_to_token(row.tokens[row.targets[START]]) == "b"


def random_logits(rows, seed, padding=5):
    random = np.random.default_rng(seed)
    shape = [len(row.tokens) + padding for row in rows]
    return [random.normal(size=n) for n in shape], [random.normal(size=n) for n in shape]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("may_be_impossible", [False, True])
def test_the_best_spans_are_those_of_a_search_of_everything(letters, seed, may_be_impossible):
    example = question("ab cde f ghi jk l mno p qrs tu v wxy z", "l")
    rows, windows = encode(letters, example, max_seq_len=20, max_question_len=5, doc_stride=5)
    starts, ends = random_logits(rows, seed)
    found = {}
    for window, start, end in zip(windows, starts, ends, strict=True):
        offset, length = window.offset, len(window.starts)
        for first in range(length):
            for last in range(first, min(length, first + 6)):
                if window.has_most_context[first]:
                    text = example.context[window.starts[first] : window.ends[last]]
                    found[text] = max(found.get(text, -np.inf), start[offset + first] + end[offset + last])
    null = min(start[0] + end[0] for start, end in zip(starts, ends, strict=True))
    odds = null - max(found.values())
    best = sorted(found.items(), key=lambda item: -item[1])[:10]
    if may_be_impossible:
        best = sorted([*best, ("", null)], key=lambda item: -item[1])
    answer = decode(example, windows, starts, ends, may_be_impossible=may_be_impossible, n_best=10, max_answer_len=6)
    assert [span.text for span in answer.spans] == [text for text, _ in best]
    scores = np.array([score for _, score in best])
    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose([span.probability for span in answer.spans], expected, rtol=1e-9)
    assert answer.null_odds == (pytest.approx(odds) if may_be_impossible else -np.inf)
    for span in answer.spans:
        assert example.context[span.start : span.end] == span.text


def test_of_answers_with_the_same_text_the_best_stays(letters):
    (row,), windows = encode(letters, question("a b a", "b"))
    starts, ends = [np.zeros(12)], [np.zeros(12)]
    starts[0][row.first_length + 2] = ends[0][row.first_length + 2] = 3.0  # the second a
    answer = decode(question("a b a", "b"), windows, starts, ends, may_be_impossible=False)
    texts = [span.text for span in answer.spans]
    assert sorted(texts) == ["a", "a b", "a b a", "b", "b a"]
    assert texts[0] == "a" and answer.best.start == 4


def test_no_answer_is_predicted_above_the_threshold(letters):
    example = question("ab cd", "cd")
    (row,), windows = encode(letters, example)
    starts, ends = [np.zeros(20)], [np.zeros(20)]
    starts[0][row.targets[START]] = ends[0][row.targets[END]] = 2.0
    starts[0][0] = ends[0][0] = 2.5
    answer = decode(example, windows, starts, ends, may_be_impossible=True)
    assert answer.null_odds == pytest.approx(1.0)
    assert official_null_odds([answer]) == {"q1": answer.null_odds}
    assert official_predictions([answer]) == {"q1": ""}
    assert official_predictions([answer], 1.5) == {"q1": "cd"}
    assert official_n_best([answer])["q1"][0]["text"] == ""
    always = decode(example, windows, starts, ends, may_be_impossible=False)
    assert official_predictions([always]) == {"q1": "cd"}
    assert official_n_best([always])["q1"][0].keys() == {"text", "probability", "start_logit", "end_logit"}


def test_a_context_of_which_nothing_is_kept_has_no_answer(letters):
    example = QuestionExample("w ?", "\u200b", None, False, "q1", Place("x"))
    rows, windows = encode(letters, example)
    starts, ends = random_logits(rows, 0)
    for may_be_impossible in (False, True):
        answer = decode(example, windows, starts, ends, may_be_impossible=may_be_impossible)
        assert official_predictions([answer], 1e9) == {"q1": ""}


def test_answers_keep_the_contexts_own_writing(letters):
    """Case, accents and spaces as they were; Chinese characters one by one."""
    context = "THE  Café\u0301é of 北京x ."
    for text in ("THE  Café\u0301é", "北京", "京x"):
        example = question(context, text)
        (row,), windows = encode(letters, example)
        logits = np.zeros(60), np.zeros(60)
        logits[0][row.targets[START]] = logits[1][row.targets[END]] = 9
        assert decode(example, windows, logits[:1], logits[1:], may_be_impossible=False).best.text == text


@pytest.mark.parametrize(
    "name, vocabulary, at_least",
    [("squad1", "uncased", 0.99), ("squad2", "uncased", 0.99), ("cmrc2018", "chinese", 1.0)],
)
def test_targets_of_real_questions_come_back_as_their_answers(shared_data, name, vocabulary, at_least):
    """What a perfect model would score; the rest are answers that begin or end inside a piece, as "Rhin" in "Rhine"."""
    tokens = read_vocabulary(shared_data / "vocab" / f"bert-base-{vocabulary}" / "vocab.txt")
    questions = list(QuestionFile(str(shared_data / "tasks" / name / "dev.json"), BadRows()))[::4]
    encoder = PassageEncoder(WordPieceTokenizer(tokens, cased=False))
    rows = [row for _, of_question in encoder.encode(questions) for row in of_question]
    windows = [row.detail for row in rows]
    encoded = EncodedRows.of(rows)
    starts, ends = (
        [5.0 * (np.arange(len(row.tokens)) == place) for row, place in zip(rows, encoded.targets[name], strict=True)]
        for name in (START, END)
    )
    options = {"may_be_impossible": name == "squad2", "max_answer_len": 80}
    predictions = official_predictions(decode_all(questions, encoded, windows, starts, ends, **options))
    scores = fractions(score_answers(evaluator_for(questions), questions, predictions))
    assert scores["exact_match"] >= at_least and scores["f1"] >= at_least
