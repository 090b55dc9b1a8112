"""Multiple choice: the shapes of RACE, SWAG and HellaSwag, and the plain one."""

import json

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.choices import continuations, read_choices
from bert_jax.tasks.examples.example_types import ChoiceExample
from bert_jax.tasks.examples.places import BadRows, Place

RACE = {
    "article": "A story.",
    "questions": ["Who?", "The cat  _  ."],
    "options": [["he", "she", "it"], ["sat", "ran"]],
    "answers": ["C", "A"],
    "id": "high1.txt",
}


def write(path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def read_rows(tmp_path, *rows, **options):
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    return list(read_choices(path, bad_rows=options.pop("bad_rows", BadRows()), **options))


def test_race(tmp_path):
    first, second = read_rows(tmp_path, RACE)
    assert (first.context, first.question, first.choices, first.answer) == ("A story.", "Who?", ("he", "she", "it"), 2)
    assert (second.question, second.choices, second.answer) == ("The cat  _  .", ("sat", "ran"), 0)
    assert (first.id, second.id) == ("high1.txt/0", "high1.txt/1")
    assert str(second.place).endswith("a.jsonl:1: question 1")
    without = {key: value for key, value in RACE.items() if key not in ("answers", "id")}
    assert [(e.answer, e.id) for e in read_rows(tmp_path, without, with_answers=False)] == [
        (None, "0/0"),
        (None, "0/1"),
    ]


def test_swag_as_csv_and_json_lines(tmp_path):
    csv = (
        ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"
        '7,v,1,"A man stands. He","A man stands.",He,gold,"runs, fast.",sits.,flies.,sleeps.,2\n'
    )
    (example,) = read_choices(write(tmp_path / "a.csv", csv), bad_rows=BadRows())
    expected = ("A man stands.", "He", ("runs, fast.", "sits.", "flies.", "sleeps."), 2, "7")
    assert (example.context, example.question, example.choices, example.answer, example.id) == expected
    assert continuations(example)[2] == "He flies."
    row = {"sent1": "A.", "sent2": "He", "ending0": "runs.", "ending1": "sits.", "label": 1}
    (example,) = read_rows(tmp_path, row)
    assert (example.choices, example.answer, example.id) == (("runs.", "sits."), 1, "0")


def test_hellaswag_and_ending_options(tmp_path):
    (example,) = read_rows(tmp_path, {"ind": 4, "ctx": "A man", "endings": ["runs.", "sits."], "label": "1"})
    assert (example.context, example.question, example.answer, example.id) == ("A man", "", 1, "4")
    assert continuations(example) == ("runs.", "sits.")
    (example,) = read_rows(tmp_path, {"context": "A man", "ending_options": ["runs.", "sits."], "label": 0})
    assert example.answer == 0


@pytest.mark.parametrize(("answer", "index"), [(1, 1), (1.0, 1), ("1", 1), ("B", 1), ("b", 1), ("two", 1), ("A", 0)])
def test_answers_of_the_plain_shape(tmp_path, answer, index):
    row = {"id": "q", "context": "c", "question": "q?", "choices": ["one", "two"], "answer": answer}
    (example,) = read_rows(tmp_path, row)
    assert (example.context, example.question, example.answer, example.id) == ("c", "q?", index, "q")


def test_a_question_without_context(tmp_path):
    (example,) = read_rows(tmp_path, {"question": "q?", "choices": ["one", "two"], "answer": 0})
    assert (example.context, example.question) == ("q?", "")


@pytest.mark.parametrize(
    ("question", "choice", "text"),
    [
        ("Who is it?", "a cat", "Who is it? a cat"),
        ("The _ sat.", "cat; dog", "The cat; dog sat."),
        ("The ____ sat.", r"\1 cat", r"The \1 cat sat."),
        ("The _ and the _ sat.", "cat; dog", "The cat and the dog sat."),
        ("The _ and the _ sat.", "cat", "The _ and the _ sat. cat"),
        ("", "It sat.", "It sat."),
    ],
)
def test_gaps_are_filled(question, choice, text):
    assert continuations(ChoiceExample("c", question, (choice, "x"), 0, "0", Place("a", 1)))[0] == text


PLAIN = {"context": "c", "question": "q", "choices": ["one", "two"], "answer": 0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PLAIN | {"answer": 2}, "the answer 2 is none of 2 choices"),
        (PLAIN | {"answer": -1}, "the answer -1 is none of 2 choices"),
        (PLAIN | {"answer": "C"}, "the answer 'C' is none of 2 choices"),
        (PLAIN | {"answer": "ß"}, "the answer 'ß' is neither"),
        (PLAIN | {"answer": "three"}, "neither an index from 0, nor a letter, nor one of the choices"),
        (PLAIN | {"answer": None}, "the answer None is neither"),
        (PLAIN | {"answer": float("inf")}, "the answer inf is neither"),
        (PLAIN | {"answer": 0.5}, "the answer 0.5 is neither"),
        (PLAIN | {"answer": True}, "the answer True is neither"),
        (PLAIN | {"answer": "1", "choices": ["1", "2"]}, "the answer '1' names several choices"),
        ({"context": "c", "question": "q", "choices": ["one", "two"]}, "the key 'answer' is missing"),
        ({"context": "c", "question": "q", "answer": 0}, "the key 'choices' is missing"),
        (PLAIN | {"choices": ["one"]}, "1 choices: two are the least"),
        (PLAIN | {"choices": "one two"}, "the choices are a string, not a list"),
        (PLAIN | {"choices": ["one", " "]}, "choice 1 is empty"),
        (PLAIN | {"context": "", "question": ""}, "the context is empty"),
        (PLAIN | {"question": 5}, "the question is a number, not a string"),
    ],
)
def test_bad_rows(tmp_path, row, message):
    with pytest.raises(UserError, match=rf"a\.jsonl:2: .*{message}"):
        read_rows(tmp_path, PLAIN, row)
    bad_rows = BadRows("skip")
    assert len(read_rows(tmp_path, PLAIN, row, bad_rows=bad_rows)) == 1
    assert bad_rows.count == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ["A"]}, r"questions, .* differ in number \(2, 2, 1\)"),
        ({"answers": None}, "the answers are null, not a list"),
        ({"answers": ["A", "D"]}, "question 1: the answer 'D' is none of 2 choices"),
        ({"article": " "}, "the article is empty"),
    ],
)
def test_bad_rows_of_race(tmp_path, change, message):
    with pytest.raises(UserError, match=rf"a\.jsonl:1: {message}"):
        read_rows(tmp_path, RACE | change)


def test_files_that_are_not_multiple_choice(tmp_path):
    with pytest.raises(UserError, match=r"a\.jsonl:1: not multiple choice: .*here are 'text', 'label'"):
        read_rows(tmp_path, {"text": "a", "label": 1})
    with pytest.raises(UserError, match="has no rows"):
        list(read_choices(write(tmp_path / "a.csv", "sent1,sent2,ending0,ending1,label\n"), bad_rows=BadRows()))
    path = write(tmp_path / "a.csv", "sent1,sent2,ending0,ending1,label\na,b,c,d,0\na,b,c,d\n")
    with pytest.raises(UserError, match=r"a\.csv:3: 4 fields where the header has 5"):
        list(read_choices(path, bad_rows=BadRows()))
