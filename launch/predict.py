"""Answers with a fine-tuned model: one JSON object a line for each example, in the order of the input.

Example: python -m launch.predict --model=DIR --input=new.jsonl --output=predictions.jsonl
"""

import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from bert_jax.durable_files import check_can_write, publish, unfinished_folder
from bert_jax.errors import UserError
from bert_jax.models.execution import DTYPES
from bert_jax.tasks.encoding.example_encoder import encode_in_chunks
from bert_jax.tasks.examples.places import BadRows
from bert_jax.tasks.question_answering import QuestionAnswering
from bert_jax.training.saved_models import BEST_OR_LATEST
from launch.command import run
from launch.finetuned_model import FineTuned, define_task_name_flag, open_finetuned
from launch.finetuning_files import define_reading_flags, read_examples
from launch.flag_conditions import only_where
from launch.mesh_flags import MOST_ROWS, define_mesh_flags, make_mesh_from_flags, parse_mesh_flags
from launch.model_choice import define_checkpoint_flag
from launch.prediction_files import FORMATS, LINES, SQUAD, write_predictions

# Examples that are in memory at a time: enough to sort by length, few enough for any file.
_CHUNK = 4096


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_string(
        "model", None, "A fine-tuning run, one of its checkpoints, or a Hugging Face directory.", **here
    )
    define_checkpoint_flag(values, BEST_OR_LATEST)
    flags.DEFINE_string("input", None, "A file of examples; labels in it are not looked at.", **here)
    flags.DEFINE_string("output", None, "The file to write; must not exist.", **here)
    flags.DEFINE_enum(
        "output_format",
        LINES,
        FORMATS,
        f"{LINES}: one JSON object a line; {SQUAD}: one object of answers by id, as SQuAD's evaluators read it.",
        **here,
    )
    flags.DEFINE_float(
        "null_threshold",
        None,
        "Question answering: by how much no answer must score above the best to be predicted; as tuned on dev if None.",
        **here,
    )
    flags.DEFINE_integer("batch_size", 64, "Examples at a time.", lower_bound=1, upper_bound=MOST_ROWS, **here)
    flags.DEFINE_enum("dtype", "float32", DTYPES, "Of the computation.", **here)
    define_task_name_flag(values)
    define_reading_flags(values)
    define_mesh_flags(values)
    only_where(
        values,
        ("separator", "tag_column", "tag_scheme"),
        lambda given: False,
        "says how labels are read, and for predictions they are not looked at: leave it out",
    )


def execute(values: flags.FlagValues) -> int:
    """Predicts; returns the exit code."""
    for name, what in (
        ("model", "the --workdir of a fine-tuning run"),
        ("input", "examples"),
        ("output", "a new file"),
    ):
        if not getattr(values, name):
            raise UserError(f"--{name} is missing: {what}")
    parse_mesh_flags(values)
    output = pathlib.Path(values.output)
    if os.path.lexists(output):
        raise UserError(f"--output={output} exists already: nothing is overwritten; give another name")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {output.absolute().parent}")
    check_can_write(output)
    tuned = open_finetuned(values.model, values.checkpoint, values.task_name)
    print(tuned.model.describe(tuned.task.name))
    tuned = _for_questions(values, tuned)
    bad_rows = BadRows(values.on_bad_row)
    examples = read_examples(values, tuned.task, values.input, bad_rows, with_labels=False)
    encoder = tuned.encoder()
    chunks = encode_in_chunks(encoder, tuned.task.usable(examples, bad_rows), _CHUNK)
    # The first chunk is read now: what is wrong with the file's beginning shows before anything is compiled.
    first = next(chunks, None)
    if first is None:
        raise UserError(f"--input={values.input} has no example that can be used; {'; '.join(bad_rows.report())}")

    # From here on, imports are slow.
    from tqdm import tqdm

    from launch.finetuned_model import Answers

    answers = Answers(tuned, make_mesh_from_flags(values), values.batch_size, values.dtype)

    def predictions() -> Iterator[dict[str, Any]]:
        for chunk, rows in itertools.chain([first], chunks):
            _, outputs = answers.of(rows)
            yield from tuned.task.predictions(chunk, rows, outputs)

    with unfinished_folder(output) as folder:
        unfinished = folder / "predictions"
        with unfinished.open("w", encoding="utf-8") as file:
            shown = tqdm(predictions(), unit="example", desc="predict")
            count = write_predictions(file, shown, values.output_format)
        publish(unfinished, output)
    print("\n".join([f"{count:,} predictions in {output}", *encoder.report(), *bad_rows.report()]))
    return 0


def _for_questions(values: flags.FlagValues, tuned: FineTuned) -> FineTuned:
    """Returns the model with what the flags of question answering say; checks that it is one for questions."""
    task = tuned.task
    is_for_questions = isinstance(task, QuestionAnswering)
    if values.output_format == SQUAD and not is_for_questions:
        raise UserError(f"--output_format={SQUAD} is for question answering, and the model's task is {task.name}")
    if values.null_threshold is None:
        return tuned
    if not is_for_questions or not task.may_be_impossible:
        raise UserError("--null_threshold is for questions that may have no answer, which the model was not tuned on")
    return dataclasses.replace(tuned, task=task.with_null_threshold(values.null_threshold))


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
