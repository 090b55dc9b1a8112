"""SemEval-2010 task 8: the text layout, and tags that become marker words."""

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.semeval import MARKERS, mark_entities, read_semeval

FIRST = '8\t"The <e1>cup</e1> contained <e2>tea</e2>."\nContent-Container(e2,e1)\nComment: easy\n'
SECOND = '9\t"<e2>Birds</e2> fly with <e1>wings</e1>"\nOther\n'


def write(tmp_path, text: str) -> str:
    path = tmp_path / "train.txt"
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize("between", ["\n", "", "\n\n\n"], ids=["empty line", "none", "several"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_the_layout(tmp_path, between, line_end):
    path = write(tmp_path, (FIRST + between + SECOND).replace("\n", line_end))
    first, second = read_semeval(path, bad_rows=BadRows())
    assert first.text == "The [E1] cup [/E1] contained [E2] tea [/E2] ."
    assert (first.label, first.id, first.place.line) == ("Content-Container(e2,e1)", "8", 1)
    assert second.text == "[E2] Birds [/E2] fly with [E1] wings [/E1]"
    assert (second.label, second.id) == ("Other", "9")


def test_files_to_predict_have_sentences_alone(tmp_path):
    path = write(tmp_path, FIRST.splitlines()[0] + "\n" + SECOND.splitlines()[0])
    assert [(e.id, e.label) for e in read_semeval(path, bad_rows=BadRows(), with_labels=False)] == [
        ("8", None),
        ("9", None),
    ]
    with pytest.raises(UserError, match=r"train\.txt:1: the line with the relation is missing"):
        list(read_semeval(path, bad_rows=BadRows()))


def test_every_marker_is_a_word_of_its_own():
    text = mark_entities("un<e1>happy</e1>-ish,<E2> people </E2>!")
    assert [word for word in text.split(" ") if "[" in word] == list(MARKERS)
    assert "  " not in text


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ('"The <e1>cup contained <e2>tea</e2>."', "</e1> is there 0 times"),
        ('"The <e1>cup</e1> contained <e1>tea</e1>."', "<e1> is there 2 times"),
        ('"The cup contained tea."', "<e1> is there 0 times"),
        ('"The <e1>cup <e2>of</e2> tea</e1>."', "in the order <e1> <e2> </e2> </e1>"),
        ('"The </e1>cup<e1> of <e2>tea</e2>."', "in the order </e1> <e1> <e2> </e2>"),
        ('"The <e1> </e1> of <e2>tea</e2>."', "entity e1 is empty"),
        ('"The <e1>cup</e1> of <e2></e2>."', "entity e2 is empty"),
        ('"The [E1] <e1>cup</e1> of <e2>tea</e2>."', r"the text holds \[E1\] itself"),
        ("The <e1>cup</e1> of <e2>tea</e2>.", "the sentence is not in quotes"),
        ('" "', "the text is empty"),
    ],
)
def test_bad_sentences(tmp_path, sentence, reason):
    path = write(tmp_path, f"{FIRST}\n5\t{sentence}\nOther\nComment:\n\n{SECOND}")
    with pytest.raises(UserError, match=rf"train\.txt:5: .*{reason}"):
        list(read_semeval(path, bad_rows=BadRows()))
    bad_rows = BadRows("skip")
    assert [e.id for e in read_semeval(path, bad_rows=bad_rows)] == ["8", "9"]
    assert bad_rows.count == 1


@pytest.mark.parametrize("relation", ["Comment: none", "Cause-Effect", "Cause-Effect(e1,e1)", "cause effect"])
def test_bad_relations(tmp_path, relation):
    path = write(tmp_path, FIRST.replace("Content-Container(e2,e1)", relation))
    with pytest.raises(UserError, match=r"train\.txt:1: .*relation"):
        list(read_semeval(path, bad_rows=BadRows()))


def test_files_of_another_layout(tmp_path):
    with pytest.raises(UserError, match=r"train\.txt:2: not the layout of SemEval-2010 task 8"):
        list(read_semeval(write(tmp_path, "\ntext\tlabel\n"), bad_rows=BadRows()))
    with pytest.raises(UserError, match="is empty"):
        list(read_semeval(write(tmp_path, "\n\n"), bad_rows=BadRows()))
    with pytest.raises(UserError, match=r"train\.txt:5: the line is neither"):
        list(read_semeval(write(tmp_path, f"{FIRST}\nstray\n\n{SECOND}"), bad_rows=BadRows()))
