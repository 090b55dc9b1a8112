"""Google's layouts of GLUE: the headers that its files have, with made-up rows."""

import pytest

from bert_jax.errors import UserError
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.examples.tables import open_table

MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
    "\tsentence1\tsentence2"
)
MNLI_ROW = "0\t63735\t63735n\tslate\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tfirst\tsecond"
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
STSB_ROW = "7\tmain-news\tMSRvid\t2012test\t0001\tnone\tnone\tfirst\tsecond"


@pytest.mark.parametrize(
    ("header", "row", "kind", "expected"),
    [
        (
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            '1\t70\t71\t" first\tsecond',
            "single",
            ('" first', "second", "1", "0"),
        ),
        (
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            "0\t70\t71\tfirst\tsecond",
            "single",
            ("first", "second", "0", "0"),
        ),
        (
            "index\t#1 ID\t#2 ID\t#1 String\t#2 String",
            "5\t70\t71\tfirst\tsecond",
            "none",
            ("first", "second", None, "5"),
        ),
        (f"{STSB}\tscore", f"{STSB_ROW}\t3.800", "float", ("first", "second", 3.8, "7")),
        (STSB, STSB_ROW, "none", ("first", "second", None, "7")),
        (None, "gj04\t0\t*\tThey drank the pub.", "single", ("They drank the pub.", None, "0", "0")),
        (None, "gj04\t1\t\tThey drank at the pub.", "single", ("They drank at the pub.", None, "1", "0")),
        ("index\tsentence", "3\tThey drank the pub.", "none", ("They drank the pub.", None, None, "3")),
        ("sentence\tlabel", "no wit , only gags \t0", "single", ("no wit , only gags ", None, "0", "0")),
        (
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "9\t1\t2\tfirst\tsecond\t1",
            "single",
            ("first", "second", "1", "9"),
        ),
        (
            "index\tquestion\tsentence\tlabel",
            "4\tfirst\tsecond\tnot_entailment",
            "single",
            ("first", "second", "not_entailment", "4"),
        ),
        (
            "index\tsentence1\tsentence2\tlabel",
            "4\tfirst\tsecond\tentailment",
            "single",
            ("first", "second", "entailment", "4"),
        ),
        (
            f"{MNLI}\tlabel1\tgold_label",
            f"{MNLI_ROW}\tneutral\tcontradiction",
            "single",
            ("first", "second", "contradiction", "0"),
        ),
        (
            f"{MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
            f"{MNLI_ROW}\tneutral\tneutral\tneutral\tneutral\tentailment\tneutral",
            "single",
            ("first", "second", "neutral", "0"),
        ),
        (MNLI, MNLI_ROW, "none", ("first", "second", None, "0")),
    ],
    ids=[
        *("MRPC", "MRPC with BOM", "MRPC test", "STS-B", "STS-B test", "CoLA *", "CoLA", "CoLA test", "SST-2", "QQP"),
        *("QNLI", "RTE and WNLI", "MNLI train", "MNLI dev", "MNLI test"),
    ],
)
def test_layouts(tmp_path, header, row, kind, expected):
    path = tmp_path / "a.tsv"
    path.write_text("\n".join([*([header] if header else []), row, row]) + "\n", encoding="utf-8")
    table = open_table(str(path), kind=kind)
    first, second = table.read(BadRows())
    assert (first.text, first.pair, first.label, first.id) == expected
    assert second.text == expected[0]


def test_what_was_recognised_is_said(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("gj04\t1\t\tsentence\n")
    assert (
        "(GLUE's layout of CoLA, no header): text from column 'sentence', label from 'label'"
        in open_table(str(path)).describe()
    )


def test_a_test_file_has_no_labels_to_train_on(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text(f"{STSB}\n{STSB_ROW}\n")
    with pytest.raises(UserError, match=r"a\.tsv:1: no column looks like the label"):
        open_table(str(path), kind="float")
