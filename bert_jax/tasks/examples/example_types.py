"""The examples that all readers of task files yield, one type for each kind of answer."""

import dataclasses

from bert_jax.tasks.examples.places import Place


@dataclasses.dataclass(frozen=True, slots=True)
class TextExample:
    """A text, or a pair of texts, that gets one answer: classification, regression, relation extraction.

    Attributes:
        text: never empty.
        pair: the second text, or None for a single text.
        label: a name (single label), a number (regression), a tuple of names (several labels, perhaps none), or None
            where the file has no labels, as in files to predict.
        id: as the file gives it, or the number of the example from 0.
        place: where it stands, for messages.
    """

    text: str
    pair: str | None
    label: str | float | tuple[str, ...] | None
    id: str
    place: Place


@dataclasses.dataclass(frozen=True, slots=True)
class TaggedExample:
    """A sentence whose every word has a tag.

    Attributes:
        words: the words, in order.
        tags: one tag a word, in the scheme IOB2 (`B-PER`, `I-PER`, `O`); None in files to predict.
        text: the sentence; words joined by spaces where the file has only words.
        word_spans: for every word (start, end) in characters, so that `text[start:end] == word`.
        id: as the file gives it, or the number of the example from 0.
        place: where the sentence begins.
        document: the number of the document that the sentence is of; None where the file has no documents.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    text: str
    word_spans: tuple[tuple[int, int], ...]
    id: str
    place: Place
    document: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionExample:
    """A question whose answer is a span of a context.

    Attributes:
        question: the question.
        context: the passage that it is about.
        answers: (text, start in characters of the context) of every reference answer; empty if the context has no
            answer; None in files to predict.
        is_impossible: True if the context has no answer (SQuAD v2.0).
        id: the question's id in the file.
        place: where it stands.
    """

    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None
    is_impossible: bool
    id: str
    place: Place


@dataclasses.dataclass(frozen=True, slots=True)
class ChoiceExample:
    """A context and several ways to go on, or several answers to a question, of which one is right.

    Attributes:
        context: the passage, or the beginning of the sentence.
        question: the question; "" where there is none.
        choices: the texts to choose from, two at least.
        answer: the index of the right one, or None in files to predict.
        id: as the file gives it, or the number of the example from 0.
        place: where it stands.
    """

    context: str
    question: str
    choices: tuple[str, ...]
    answer: int | None
    id: str
    place: Place
