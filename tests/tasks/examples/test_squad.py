"""SQuAD's JSON, and its like in lines: what is read, corrected, refused."""

import gzip
import json

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.squad import NOT_FOUND, QuestionFile

CONTEXT = "Paris is the capital of France. In Paris live two million people."


@pytest.fixture
def written(tmp_path):
    def write(content, name="dev.json"):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return str(path)

    return write


def squad(*questions, context=CONTEXT):
    rows = [{"id": f"q{index}", "question": "Where?", **question} for index, question in enumerate(questions)]
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": rows}]}]}


def answers(*pairs):
    return {"answers": [{"text": text, "answer_start": start} for text, start in pairs]}


def read(path, **options):
    return list(QuestionFile(path, BadRows(), **options))


@pytest.mark.parametrize("name", ["dev.json", "dev.json.gz"])
def test_questions_with_and_without_answer(written, name):
    impossible = {"answers": [], "is_impossible": True, "plausible_answers": [{"text": "France", "answer_start": 24}]}
    file = QuestionFile(written(squad(answers(("Paris", 0), ("Paris", 35)), impossible), name), BadRows())
    first, second = file
    assert (first.id, first.question, first.context) == ("q0", "Where?", CONTEXT)
    assert first.answers == (("Paris", 0), ("Paris", 35)) and not first.is_impossible
    assert second.answers == () and second.is_impossible
    assert file.has_impossible
    assert file.report() == []
    assert str(first.place).endswith(f"{name}: question q0")


@pytest.mark.parametrize(
    "given, start",
    [(("Paris", 1), 0), (("Paris", 30), 35), (("Paris", -1), 0), (("two million", 0), 46), (("France.", 25), 24)],
)
def test_an_answer_near_its_offset_is_found_and_counted(written, given, start):
    file = QuestionFile(written(squad(answers(given))), BadRows())
    assert next(iter(file)).answers == ((given[0], start),)
    assert file.moved == 1 and "1 answers were not at their offset" in file.report()[0]


def test_spaces_around_an_answer_are_no_part_of_it(written):
    file = QuestionFile(written(squad(answers((" the capital ", 8)))), BadRows())
    assert next(iter(file)).answers == (("the capital", 9),)


def test_a_far_answer_is_taken_only_if_no_other_could_be_meant(written):
    context = "Rome. " + "x " * 300 + "Paris. " + "y " * 300 + "Rome."
    file = QuestionFile(written(squad(answers(("Paris", 0), ("Rome", 600)), context=context)), BadRows())
    assert next(iter(file)).answers == (("Paris", context.index("Paris")), ("Rome", NOT_FOUND))
    assert (file.moved, file.not_found) == (1, 1)
    assert "1 answers are not in their context" in file.report()[1]


@pytest.mark.parametrize(
    "question, message",
    [
        (answers(("London", 3)), "the answer 'London' is not in its context at 3"),
        ({**answers(("Paris", 0)), "is_impossible": True}, "marked as impossible, and has answers"),
        ({"answers": [], "is_impossible": False}, "it has no answers"),
        ({"answers": [], "is_impossible": "no"}, "neither true nor false"),
        ({}, "there are no 'answers'"),
        ({"answers": [{"text": "Paris"}]}, "has not 'text' and a whole number"),
        (answers((" ", 5)), "an answer is empty"),
        ({**answers(("Paris", 0)), "question": "  "}, "the question is empty"),
        ({**answers(("Paris", 0)), "question": None}, "there is no 'question'"),
        ({**answers(("Paris", 0)), "id": "q0"}, "an earlier question has the same id"),
    ],
)
def test_bad_questions_are_named_or_counted(written, question, message):
    path = written(squad(answers(("Paris", 0)), question, answers(("France", 24))))
    with pytest.raises(UserError) as raised:
        read(path)
    assert f"dev.json: question {question.get('id', 'q1')}: " in str(raised.value) and message in str(raised.value)
    bad = BadRows("skip")
    assert [example.id for example in QuestionFile(path, bad)] == ["q0", "q2"]
    assert bad.count == 1


def test_a_question_without_id_is_named_by_its_place(written):
    with pytest.raises(UserError, match=r"dev.json: data\[0\].paragraphs\[0\].qas\[0\]: there is no 'id'"):
        read(written(squad({**answers(("Paris", 0)), "id": None})))


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "dev.json is empty"),
        ("text,label\n", "does not begin with a JSON object"),
        ('{"data": [\n{"title": }]}', "dev.json:2: no JSON"),
        ({"rows": []}, "there is no list 'data'"),
        ({"data": [{"title": "t"}]}, r"data\[0\] has no list 'paragraphs'"),
        ({"data": [{"paragraphs": [{"context": "c"}]}]}, r"data\[0\].paragraphs\[0\] has no list 'qas'"),
    ],
)
def test_files_of_another_kind(written, content, message):
    with pytest.raises(UserError, match=message):
        list(QuestionFile(written(content), BadRows("skip")))


def test_files_to_predict_need_no_answers(written):
    path = written(squad({}, answers(("London", 3))))
    assert [(example.id, example.answers, example.is_impossible) for example in read(path, with_answers=False)] == [
        ("q0", None, False),
        ("q1", None, False),
    ]


def test_lines(written):
    rows = [
        {"id": "a", "question": "Where?", "context": CONTEXT, "answers": {"text": ["Paris"], "answer_start": [0]}},
        {"question": "Who?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
        {"question": "What?", "context": CONTEXT, **answers(("France", 24))},
    ]
    path = written("\n".join(map(json.dumps, rows)) + "\n", "dev.jsonl")
    examples = read(path)
    assert [example.id for example in examples] == ["a", "1", "2"]
    assert [example.answers for example in examples] == [(("Paris", 0),), (), (("France", 24),)]
    assert [example.place.line for example in examples] == [1, 2, 3]
    damaged = written("\n".join([json.dumps(rows[0]), "{", "[]", json.dumps(rows[2])]), "dev.jsonl")
    bad = BadRows("skip")
    assert len(list(QuestionFile(damaged, bad))) == 2 and bad.count == 2
    with pytest.raises(UserError, match=r"dev.jsonl:2: the line is no JSON"):
        read(damaged)


def test_lines_are_read_as_they_come(written):
    """A damaged line at the end does not keep the first question from being read."""
    row = json.dumps({"question": "Where?", "context": CONTEXT})
    examples = iter(QuestionFile(written(row + "\n{\n", "new.jsonl"), BadRows(), with_answers=False))
    assert next(examples).question == "Where?"


@pytest.mark.parametrize(
    "name, split, questions, contexts",
    [
        ("squad1", "train", 7938, None),
        ("squad1", "dev", 2632, None),
        ("squad2", "train", 9068, None),
        ("squad2", "dev", 2805, None),
        ("cmrc2018", "train", None, 648),
        ("cmrc2018", "dev", None, 200),
    ],
)
def test_real_files(shared_data, name, split, questions, contexts):
    file = QuestionFile(str(shared_data / "tasks" / name / f"{split}.json"), BadRows())
    examples = list(file)
    assert questions is None or len(examples) == questions
    assert contexts is None or len({example.context for example in examples}) == contexts
    assert file.has_impossible == (name == "squad2")
    for example in examples:
        assert all(
            start == NOT_FOUND or example.context[start : start + len(text)] == text for text, start in example.answers
        )


def test_lines_may_begin_with_any_key(written):
    rows = [{"idx": number, "question": question, "context": "b"} for number, question in enumerate(("a?", "c?"))]
    path = written("\n".join(json.dumps(row) for row in rows), "x.jsonl")
    assert [example.question for example in QuestionFile(path, BadRows(), with_answers=False)] == ["a?", "c?"]
    path = written(json.dumps(rows[0]), "one.jsonl")
    assert [example.question for example in QuestionFile(path, BadRows(), with_answers=False)] == ["a?"]


@pytest.mark.parametrize("half", ["question", "context", "id"])
def test_half_of_a_character_is_a_bad_row(written, half):
    """Python's JSON takes the escapes for halves of an emoji one by one, and no file can hold them."""
    values = {"id": "q", "question": "a?", "context": "b"}
    values[half] += "\ud83d"
    nested = {"data": [{"paragraphs": [{"context": values["context"], "qas": [values, {"id": "r", "question": "?"}]}]}]}
    for content in (json.dumps(nested), json.dumps(values)):
        path = written(content, "x.json")
        with pytest.raises(UserError, match=r"x.json:.* half of a character"):
            list(QuestionFile(path, BadRows(), with_answers=False))


def test_an_id_may_not_stand_twice_where_all_is_in_memory(written):
    qas = [{"id": "q", "question": "a?"}] * 2
    path = written({"data": [{"paragraphs": [{"context": "b", "qas": qas}]}]}, "x.json")
    with pytest.raises(UserError, match="an earlier question has the same id"):
        list(QuestionFile(path, BadRows(), with_answers=False))


@pytest.mark.parametrize("content", ['{"data": ' + "[" * 100_000, '{"data": ' + "1" * 5000 + "}"])
def test_json_that_python_cannot_hold_is_one_line(written, content):
    with pytest.raises(UserError, match=r"x.json"):
        list(QuestionFile(written(content, "x.json"), BadRows()))


def test_questions_in_one_line_that_is_longer_than_lines_may_be(written, monkeypatch):
    monkeypatch.setattr("bert_jax.text.files.LONGEST_LINE", 50)
    monkeypatch.setattr("bert_jax.tasks.examples.squad.LONGEST_LINE", 50)
    assert len(read(written(squad(answers(("Paris", 0)))))) == 1
