"""Which column of a table is the text, the second text, the label and the id: as given, or guessed from usual names."""

import dataclasses
from collections.abc import Sequence

from bert_jax.errors import UserError
from bert_jax.tasks.examples.glue import Layout
from bert_jax.tasks.examples.places import list_names

NO_COLUMN = "none"

# Pairs first: `sentence1` alone is a text, with `sentence2` it is half of one.
_PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("sent1", "sent2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("question1", "question2"),
    ("question_1", "question_2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("#1_string", "#2_string"),
)
# In tiers: a column of an earlier tier is taken even if there are some of a later one; two of one tier are ambiguous.
_TEXTS = (
    ("text", "sentence", "text_a", "sentence1", "text1"),
    (
        *("review", "content", "comment", "tweet", "document", "body", "utterance", "article", "passage", "question"),
        *("query", "message", "sms", "post", "premise", "reviewtext", "review_text", "review_body", "input"),
    ),
    ("title", "headline", "abstract", "description", "summary"),
)
_LABELS = (
    ("gold_label",),
    ("label", "labels"),
    (
        *("class", "category", "target", "sentiment", "intent", "topic", "emotion", "polarity", "is_duplicate"),
        *("quality", "classes", "categories", "targets", "topics", "emotions", "tags", "tag", "gold", "y", "relation"),
        "output",
    ),
    ("stars", "star_rating", "rating", "score", "similarity"),
)
_NUMBERS = (
    ("score", "similarity", "similarity_score", "relatedness_score"),
    ("label",),
    ("target", "rating", "stars", "star_rating", "value", "y", "gold", "gold_label", "output"),
)
_IDS = (("id",), ("guid",), ("idx",), ("index",), ("qid",), ("uid",), ("pairid",), ("example_id",), ("review_id",))


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnChoice:
    """What the user says about the columns: names, or numbers from 1; None leaves a column to be guessed.

    `pair`, `label` and `id` may be "none": there is no such column, whatever the names suggest.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    id: str | None = None

    def __post_init__(self):
        if self.text == NO_COLUMN:
            raise UserError("cannot use --text_column=none: every example needs a text")

    def named(self) -> list[str]:
        """Returns the columns that are given."""
        given = (self.text, self.pair, self.label, self.id)
        return [name for name in given if name is not None and name != NO_COLUMN]


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """The columns chosen: positions from 0 among the table's columns; None where there is none."""

    text: int
    pair: int | None
    label: int | None
    id: int | None


def looks_like_header(first: Sequence[str], choice: ColumnChoice) -> bool:
    """Returns whether the first line names columns: one is a usual name of a text or a label, or is given as a name."""
    usual = {name for tiers in (_TEXTS, _LABELS, _NUMBERS, _PAIRS) for tier in tiers for name in tier}
    given = {_normal(name) for name in choice.named() if not name.isdecimal()}
    return any(_normal(field) in usual | given for field in first)


def choose_columns(
    names: Sequence[str], choice: ColumnChoice, *, kind: str, place: str, layout: Layout | None = None
) -> Columns:
    """Returns which columns hold what.

    What is given comes first, then a known layout, then the usual names. A text that is given without a pair is a
    single text.

    Args:
        names: the table's columns.
        choice: what the user says.
        kind: "single", "multi", "float", or "none" if labels are not wanted.
        place: the file and line, for messages.
        layout: the known layout of the file, if it has one.

    Raises:
        UserError: a column that is given is not there, or one that is needed cannot be guessed.
    """
    header = _Header(names, place)
    text = pair = label = row_id = None
    if layout is not None:
        known = {name: at for at, name in enumerate(layout.names)}
        text, pair, label, row_id = (known.get(name) for name in (layout.text, layout.pair, layout.label, layout.id))
    if choice.text is not None:
        text, pair = header.find(choice.text, "text"), None
    if choice.pair is not None:
        pair = header.find(choice.pair, "pair")
    if choice.label is not None:
        label = header.find(choice.label, "label")
    if choice.id is not None:
        row_id = header.find(choice.id, "id")

    if kind == "none":
        label = None
    elif label is None and choice.label is None:
        label = header.guess(_NUMBERS if kind == "float" else _LABELS, "label", {text, pair, row_id})
    if row_id is None and choice.id is None and layout is None:
        row_id = header.guess_id({text, pair, label})
    taken = {label, row_id}
    if text is None and choice.pair is None:
        text, pair = header.guess_pair(taken)
    if text is None and pair is not None:
        text = header.guess_partner(pair, taken)
    if text is None:
        text = header.guess(_TEXTS, "text", {pair, *taken})
    if text is None:
        raise header.error("no column looks like the text; name it with --text_column")
    if kind != "none" and label is None:
        raise header.error("no column looks like the label; name it with --label_column")
    chosen = [at for at in (text, pair, label, row_id) if at is not None]
    if len(set(chosen)) < len(chosen):
        twice = next(names[at] for at in chosen if chosen.count(at) > 1)
        raise header.error(f"column {twice!r} is chosen for two things")
    return Columns(text, pair, label, row_id)


class _Header:
    """The names of a table's columns, and what can be found among them; `find` and `guess*` return positions."""

    def __init__(self, names: Sequence[str], place: str):
        self.names = names
        self.normal = [_normal(name) for name in names]
        self.place = place

    def error(self, what: str) -> UserError:
        return UserError(f"{self.place}: {what}; the columns are {list_names(self.names)}")

    def find(self, name: str, flag: str) -> int | None:
        """Finds a column that the user names, exactly before roughly, a name before a number."""
        if name == NO_COLUMN and NO_COLUMN not in self.names:
            return None
        found = [at for at, other in enumerate(self.names) if other == name]
        found = found or [at for at, other in enumerate(self.normal) if other == _normal(name)]
        if not found and name.isdecimal() and len(name) < 10 and 1 <= int(name) <= len(self.names):
            found = [int(name) - 1]
        if not found:
            raise self.error(f"no column {name!r}, which --{flag}_column names")
        if len(found) > 1:
            numbers = " and ".join(str(at + 1) for at in found)
            raise self.error(f"columns {numbers} are both called {name!r}: give --{flag}_column a number")
        return found[0]

    def guess(self, tiers: Sequence[Sequence[str]], flag: str, taken: set[int | None]) -> int | None:
        for tier in tiers:
            found = [at for at, name in enumerate(self.normal) if name in tier and at not in taken]
            if len(found) > 1:
                several = " or ".join(repr(self.names[at]) for at in found)
                raise self.error(f"the {flag} may be {several}; say which with --{flag}_column")
            if found:
                return found[0]
        return None

    def guess_id(self, taken: set[int | None]) -> int | None:
        """Guesses more freely than elsewhere: whichever id comes first in the tiers names the row well enough."""
        for tier in _IDS:
            for at, name in enumerate(self.normal):
                if name in tier and at not in taken and self.normal.count(name) == 1:
                    return at
        return None

    def guess_pair(self, taken: set[int | None]) -> tuple[int | None, int | None]:
        found = []
        for pair in _PAIRS:
            if all(name in self.normal for name in pair):
                first, second = map(self.normal.index, pair)
                if not taken & {first, second}:
                    found.append((first, second))
        if len(found) > 1:
            several = " or ".join(f"{self.names[first]!r} with {self.names[second]!r}" for first, second in found)
            raise self.error(f"the texts may be {several}; say which with --text_column and --pair_column")
        return found[0] if found else (None, None)

    def guess_partner(self, pair: int, taken: set[int | None]) -> int | None:
        partners = [first for first, second in _PAIRS if second == self.normal[pair]]
        return self.guess([partners], "text", {pair, *taken})


def _normal(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")
