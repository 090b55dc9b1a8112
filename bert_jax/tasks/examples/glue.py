"""The layouts of the GLUE benchmark's files as Google's download gives them, where the usual names would not do.

The other tasks of GLUE (SST-2, QQP, QNLI, RTE, WNLI) have headers whose names are the usual ones; see `columns`.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Which column of a known layout is what.

    Attributes:
        task: the task of GLUE.
        names: the columns' names, made up where the file has no header.
        has_header: whether the first line of such a file is the header.
        text: the text's column; likewise `pair`, `label` (None in test files) and `id` (None: the row's number).
    """

    task: str
    names: tuple[str, ...]
    has_header: bool
    text: str
    pair: str | None
    label: str | None
    id: str | None


_COLA_NAMES = ("source", "label", "star", "sentence")
_STSB_START = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
_MNLI_START = (
    *("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"),
    *("sentence1_parse", "sentence2_parse", "sentence1", "sentence2"),
)


def recognize(first: Sequence[str]) -> Layout | None:
    """Returns the layout that the first line of a file shows, or None.

    CoLA's files have no header: four columns, of which the second is 0 or 1 and the third is empty or a star.

    Args:
        first: the fields of the first line.
    """
    names = tuple(field.strip() for field in first)
    if len(names) == 4 and names[1] in ("0", "1") and names[2] in ("", "*"):
        return Layout("CoLA", _COLA_NAMES, False, "sentence", None, "label", None)
    if names[1:] == ("#1 ID", "#2 ID", "#1 String", "#2 String") and names[0] in ("Quality", "index"):
        # The two numbers name sentences, not rows. Test files have an index in the place of the label.
        is_test = names[0] == "index"
        label, row_id = (None, "index") if is_test else ("Quality", None)
        return Layout("MRPC", names, True, "#1 String", "#2 String", label, row_id)
    if names[: len(_STSB_START)] == _STSB_START and names[len(_STSB_START) :] in (("score",), ()):
        label = "score" if len(names) > len(_STSB_START) else None
        return Layout("STS-B", names, True, "sentence1", "sentence2", label, "index")
    if names[: len(_MNLI_START)] == _MNLI_START:
        # label1 to label5 are single annotators' votes.
        return Layout(
            "MNLI", names, True, "sentence1", "sentence2", "gold_label" if "gold_label" in names else None, "index"
        )
    return None
