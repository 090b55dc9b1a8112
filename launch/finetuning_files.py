"""The flags that say which files a task is learned from, and the examples that are read from them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from bert_jax.errors import UserError
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.examples import records, relation_files, tag_schemes, tagged_files
from bert_jax.tasks.examples.choices import read_choices
from bert_jax.tasks.examples.columns import ColumnChoice
from bert_jax.tasks.examples.conll import Columns
from bert_jax.tasks.examples.example_types import QuestionExample
from bert_jax.tasks.examples.places import POLICIES, BadRows
from bert_jax.tasks.examples.semeval import MARKERS
from bert_jax.tasks.examples.squad import QuestionFile
from bert_jax.tasks.examples.tables import HEADERS, open_table
from bert_jax.tasks.finetuning_task import FineTuningTask
from bert_jax.tasks.finetuning_tasks import TASKS
from bert_jax.tasks.multiple_choice import MultipleChoice
from bert_jax.tasks.question_answering import PassageReading, QuestionAnswering
from bert_jax.tasks.relation import RelationExtraction
from bert_jax.tasks.scores.answers import EVALUATORS
from bert_jax.tasks.tagging import Tagging
from launch.flag_conditions import only_where

# What --labels may say beside the labels themselves.
_KINDS = ("single", "multi", "float")
# By task, the formats that --format can choose from; all files of the others say what they are.
_FORMATS = {
    Classification.name: records.FORMATS,
    RelationExtraction.name: relation_files.FORMATS,
    Tagging.name: tagged_files.FORMATS,
    MultipleChoice.name: records.FORMATS,
    QuestionAnswering.name: (),
}
_READING = {
    "doc_stride": "Question answering: tokens from the beginning of a window of a long passage to that of the next.",
    "max_question_len": "Question answering: tokens of a question at most.",
    "max_answer_len": "Question answering: tokens of an answer at most; if None 30, and 80 in Chinese.",
    "n_best": "Question answering: how many answers a prediction lists.",
}
_MOST_TOKENS = 1 << 20
# Flags that say nothing to other tasks: given there, they are a mistake.
_TABLES = (Classification.name, RelationExtraction.name)
_TASKS_OF_FLAGS = {
    "labels": _TABLES,
    **dict.fromkeys(("text_column", "label_column", "id_column", "header"), _TABLES),
    **dict.fromkeys(("pair_column", "separator"), (Classification.name,)),
    **dict.fromkeys(("word_column", "tag_column", "tag_scheme", "context_len"), (Tagging.name,)),
    **dict.fromkeys(("evaluator", *_READING), (QuestionAnswering.name,)),
}


def define_file_flags(values: flags.FlagValues) -> None:
    """Adds --task, --train, --dev, what goes with them, and the flags of `define_reading_flags`."""
    here = {"flag_values": values}
    flags.DEFINE_enum("task", Classification.name, list(TASKS), "What is learned.", **here)
    flags.DEFINE_string(
        "train", None, "Training examples: a file, or of a table a TFDS name such as tfds:glue/sst2[train].", **here
    )
    flags.DEFINE_string("dev", None, "Examples to evaluate on.", **here)
    flags.DEFINE_string(
        "labels",
        "single",
        "single: one label each, as found in the data; multi: several; float: numbers (regression); or a list of all"
        " labels, such as negative,positive.",
        **here,
    )
    flags.DEFINE_string(
        "metric", None, "The metric that the best checkpoint is chosen by; the task's own if None.", **here
    )
    flags.DEFINE_enum(
        "evaluator", None, EVALUATORS, "Question answering: whose rules count; by the examples if None.", **here
    )
    flags.DEFINE_integer(
        "context_len",
        0,
        "Tagging: tokens of its document, at most, that are read on either side of a sentence.",
        lower_bound=0,
        upper_bound=_MOST_TOKENS,
        **here,
    )
    for name, help_text in _READING.items():
        default = getattr(PassageReading, name)
        flags.DEFINE_integer(name, default, help_text, lower_bound=1, upper_bound=_MOST_TOKENS, **here)
    define_reading_flags(values)
    only_where(
        values,
        ["separator"],
        lambda given: given.labels == "multi",
        "stands between several labels of an example, --labels=multi: leave it out",
    )


def define_reading_flags(values: flags.FlagValues) -> None:
    """Adds the flags that say how a file of examples is read, whatever they are read for."""
    here = {"flag_values": values}
    flags.DEFINE_enum("on_bad_row", "fail", POLICIES, "What becomes of a row that cannot be used.", **here)
    formats = list(dict.fromkeys(format for allowed in _FORMATS.values() for format in allowed))
    flags.DEFINE_enum("format", None, formats, "Of the files; found by looking if None.", **here)
    for name in ("text", "pair", "label", "id"):
        flags.DEFINE_string(
            f"{name}_column", None, f"Tables: name or number of the {name}'s column; guessed if None.", **here
        )
    flags.DEFINE_enum("header", "auto", HEADERS, "Tables: whether the first line names the columns.", **here)
    flags.DEFINE_string("separator", "|", "Tables: what stands between several labels.", **here)
    flags.DEFINE_integer("word_column", 1, "Tagging: the number of the word's column.", lower_bound=1, **here)
    flags.DEFINE_integer("tag_column", None, "Tagging: that of the tag's; the last if None.", lower_bound=1, **here)
    flags.DEFINE_string(
        "tag_scheme",
        None,
        f"Tagging: one of {', '.join(tag_schemes.SCHEMES)}; found by looking at all tags if None.",
        **here,
    )
    only_where(
        values,
        ["header"],
        lambda given: given.format != "jsonl",
        "is for tables of lines, and --format=jsonl names each value: leave it out",
    )


def read_task(values: flags.FlagValues) -> tuple[FineTuningTask, Sequence[Any], Sequence[Any]]:
    """Reads --train and --dev; returns the task that they make, and their examples. Says aloud what was read how."""
    check_file_flags(values)
    kind, listed = values.labels, None
    if values.labels not in _KINDS:
        kind, listed = "single", [label.strip() for label in values.labels.split(",")]
    if values.task == RelationExtraction.name and kind != "single":
        raise UserError(f"--labels={kind}: two entities have one relation; leave it out, or list the relations")
    training, dev = (_read_all(values, source, kind) for source in (values.train, values.dev))
    if values.task == Tagging.name:
        task = Tagging.of(training, values.metric, values.context_len)
    elif values.task == QuestionAnswering.name:
        reading = PassageReading(**{name: getattr(values, name) for name in _READING})
        task = QuestionAnswering.of(training, dev, values.metric, values.evaluator, reading)
        nothing = ", or none" if task.may_be_impossible else ""
        print(f"each question has an answer in its passage{nothing}; scored by the rules of {task.evaluator}")
    elif values.task == MultipleChoice.name:
        task = MultipleChoice.of([*training, *dev], values.metric)
    else:
        if values.task == RelationExtraction.name:
            task = RelationExtraction.of(training, kind, listed, values.metric, MARKERS)
        else:
            task = Classification.of(training, kind, listed, values.metric)
    training = check_usable(values, task, values.train, training)
    dev = check_usable(values, task, values.dev, dev)
    if task.labels:
        print(f"{len(task.labels)} labels: {', '.join(task.labels[:20])}{', ...' if len(task.labels) > 20 else ''}")
    return task, training, dev


def check_file_flags(values: flags.FlagValues) -> None:
    """Raises a UserError if a flag says nothing to the task, or files are missing."""
    check_flags(values, values.task)
    for name in ("train", "dev"):
        if not getattr(values, name):
            raise UserError(f"--{name} is missing: a file of examples")


def check_usable(values: flags.FlagValues, task: FineTuningTask, source: str, examples: Sequence[Any]) -> Sequence[Any]:
    """Returns the examples of a file that the task can use; says aloud how many others were skipped."""
    bad_rows = BadRows(values.on_bad_row)
    usable = list(task.usable(examples, bad_rows))
    _check_any(source, usable, bad_rows)
    for line in bad_rows.report():
        print(f"{source}: {line}")
    return usable


def read_examples(
    values: flags.FlagValues, task: FineTuningTask, source: str, bad_rows: BadRows, *, with_labels: bool
) -> Iterator[Any]:
    """Opens a file of a task's examples and says aloud how it is read; examples are read as they are asked for.

    In constant memory, but for questions in SQuAD's own JSON, which is one object.

    Args:
        values: flags of `define_reading_flags`.
        task: whose examples they are.
        source: the file.
        bad_rows: takes the rows that cannot be used; the caller prints its report.
        with_labels: False to leave the answers out, which need not be there.
    """
    check_flags(values, task.name)
    return _READERS[task.name](values, source, bad_rows, getattr(task, "kind", "single") if with_labels else "none")


def check_flags(values: flags.FlagValues, task: str) -> None:
    """Raises a UserError if a flag is given that says nothing to the task."""
    for name, tasks in _TASKS_OF_FLAGS.items():
        if name in values and values[name].present and task not in tasks:
            raise UserError(f"--{name} is for --task={' and --task='.join(tasks)}, and this is {task}: leave it out")
    if values.format and values.format not in _FORMATS[task]:
        known = f"one of {', '.join(_FORMATS[task])}" if _FORMATS[task] else "found by looking: leave the flag out"
        raise UserError(f"--format={values.format}: the format of a file for {task} is {known}")


def _read_all(values: flags.FlagValues, source: str, kind: str) -> list[Any]:
    bad_rows = BadRows(values.on_bad_row)
    examples = list(_READERS[values.task](values, source, bad_rows, kind))
    _check_any(source, examples, bad_rows)
    print("\n".join([f"{source}: {len(examples):,} examples", *bad_rows.report()]))
    return examples


def _check_any(source: str, examples: Sequence[Any], bad_rows: BadRows) -> None:
    if not examples:
        raise UserError(f"{source} has no example that can be used; {'; '.join(bad_rows.report())}".rstrip("; "))


def _read_table(values: flags.FlagValues, source: str, bad_rows: BadRows, kind: str) -> Iterator[Any]:
    table = open_table(
        source,
        columns=_columns(values),
        kind=kind,
        format=values.format,
        header=values.header,
        separator=values.separator,
    )
    print(table.describe())
    return table.read(bad_rows)


def _read_relations(values: flags.FlagValues, source: str, bad_rows: BadRows, kind: str) -> Iterator[Any]:
    description, examples = relation_files.open_relations(
        source,
        bad_rows,
        with_labels=kind != "none",
        format=values.format,
        columns=_columns(values),
        header=values.header,
    )
    print(description)
    return examples


def _read_tagged(values: flags.FlagValues, source: str, bad_rows: BadRows, kind: str) -> Iterator[Any]:
    records.check_readable(source)
    file = tagged_files.open_tagged(
        source,
        bad_rows,
        format=values.format,
        columns=Columns(values.word_column, values.tag_column),
        scheme=values.tag_scheme,
        with_tags=kind != "none",
    )
    print(file.description)
    return iter(file)


def _read_questions(values: flags.FlagValues, source: str, bad_rows: BadRows, kind: str) -> Iterator[QuestionExample]:
    records.check_readable(source)
    file = QuestionFile(source, bad_rows, with_answers=kind != "none")

    def questions() -> Iterator[QuestionExample]:
        yield from file
        for line in file.report():
            print(line)

    return questions()


def _read_choices(values: flags.FlagValues, source: str, bad_rows: BadRows, kind: str) -> Iterator[Any]:
    return read_choices(source, bad_rows=bad_rows, with_answers=kind != "none", format=values.format)


def _columns(values: flags.FlagValues) -> ColumnChoice:
    return ColumnChoice(values.text_column, values.pair_column, values.label_column, values.id_column)


# (flags, source, bad rows, kind of labels, "none" for none) to examples; says aloud how.
_READERS: dict[str, Callable[[flags.FlagValues, str, BadRows, str], Iterator[Any]]] = {
    Classification.name: _read_table,
    RelationExtraction.name: _read_relations,
    Tagging.name: _read_tagged,
    QuestionAnswering.name: _read_questions,
    MultipleChoice.name: _read_choices,
}
