"""Relations from SemEval's layout and from tables."""

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.relation_files import open_relations

SEMEVAL = '\n7\t"The <e1>cat</e1> of the <e2>house</e2>."\nMember-Collection(e1,e2)\nComment:\n'
CSV = "id,sentence,relation\n7,The <e1>cat</e1> of the <e2>house</e2>.,lives-in\n8,The cat.,none\n"


def write(path, text):
    path.write_text(text)
    return str(path)


def test_semevals_layout_is_found(tmp_path):
    path = write(tmp_path / "train.txt", SEMEVAL)
    description, examples = open_relations(path, BadRows())
    assert "SemEval" in description
    ((example,),) = (list(examples),)
    assert example.text == "The [E1] cat [/E1] of the [E2] house [/E2] ."
    assert (example.label, example.id) == ("Member-Collection(e1,e2)", "7")
    (example,) = open_relations(path, BadRows(), with_labels=False)[1]
    assert example.label is None


def test_a_table_with_tags(tmp_path):
    from bert_jax.tasks.examples.columns import ColumnChoice

    path = write(tmp_path / "train.csv", CSV)
    bad_rows = BadRows("skip")
    description, examples = open_relations(path, bad_rows, columns=ColumnChoice(label="relation"))
    (example,) = examples
    assert "'sentence'" in description
    assert example.text == "The [E1] cat [/E1] of the [E2] house [/E2] ." and example.label == "lives-in"
    assert bad_rows.count == 1 and "<e1> is there 0 times" in bad_rows.report()[0]
    with pytest.raises(UserError, match=r"train\.csv:3: <e1> is there 0 times"):
        list(open_relations(path, BadRows(), columns=ColumnChoice(label="relation"))[1])


def test_a_format_that_is_not_known(tmp_path):
    with pytest.raises(UserError, match="one of semeval, csv, tsv, jsonl"):
        open_relations(write(tmp_path / "x", SEMEVAL), BadRows(), format="conll")
    with pytest.raises(UserError, match="no such file"):
        open_relations(str(tmp_path / "y"), BadRows())
