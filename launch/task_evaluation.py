"""Scores a fine-tuned model on a file of labelled examples; for launch.evaluate."""

import pathlib

from absl import flags

from bert_jax.durable_files import check_can_write
from bert_jax.errors import UserError
from bert_jax.models.execution import DTYPES
from bert_jax.tasks.encoding.example_encoder import encode_all
from bert_jax.tasks.examples.places import BadRows
from launch.finetuned_model import Answers, open_finetuned
from launch.finetuning_files import check_usable, read_examples
from launch.mesh_flags import make_mesh_from_flags


def evaluate_examples(values: flags.FlagValues) -> int:
    """Prints the scores of --model on --input, and draws the confusion matrix to --figure."""
    tuned = open_finetuned(values.model, values.checkpoint, values.task_name)
    task = tuned.task
    figure = pathlib.Path(values.figure) if values.figure else None
    if figure and not hasattr(task, "confusion_matrix"):
        raise UserError(f"--figure is for classification, and the model's task is {task.name}: leave it out")
    if figure and getattr(task, "kind", "single") != "single":
        raise UserError(f"--figure={figure}: a confusion matrix needs one label an example; leave it out")
    if figure and (figure.suffix != ".png" or figure.is_dir() or not figure.absolute().parent.is_dir()):
        raise UserError(f"--figure={figure}: must be a .png file in a folder that exists")
    if figure:
        check_can_write(figure)
    bad_rows = BadRows(values.on_bad_row)
    examples = list(read_examples(values, task, values.input, bad_rows, with_labels=True))
    print("\n".join([f"{values.input}: {len(examples):,} examples", *bad_rows.report()]))
    examples = check_usable(values, task, values.input, examples)
    encoder = tuned.encoder()
    rows = encode_all(encoder, examples)
    print("\n".join(encoder.report()))

    # From here on, imports are slow.
    answers = Answers(tuned, make_mesh_from_flags(values), values.batch_size, values.dtype or DTYPES[0])
    statistics, outputs = answers.of(rows, with_loss=True)
    metrics = {"loss": answers.mean_loss(statistics), **task.score(examples, rows, outputs)}
    print(tuned.model.describe(task.name))
    baseline = task.baseline(examples, examples)
    print(format_scores(values.input, metrics, baseline, "knowing these labels alone" if baseline else ""))
    print("\n".join(task.report(examples, rows, outputs)))
    if figure:
        from bert_jax.tasks.scores.confusion_figure import write_confusion_figure

        matrix = task.confusion_matrix(examples, rows, outputs)
        print("\n".join([f"confusion matrix: {figure}", *write_confusion_figure(str(figure), matrix, task.labels)]))
    return 0


def format_scores(title: str, metrics: dict[str, float], baseline: dict[str, float], of_what: str) -> str:
    """Returns a small table of metrics beside those of the baseline.

    Args:
        title: of the examples.
        metrics: of the model.
        baseline: of answers that do not look at the text; may lack metrics.
        of_what: says which answers; "" for none.
    """
    lines = [f"{title[-28:]:<28}{'model':>10}" + (f"{'baseline':>12}  {of_what}" if baseline else "")]
    for name, value in metrics.items():
        known = f"{baseline[name]:>12.4f}" if name in baseline else ""
        lines.append(f"{name:<28}{value:>10.4f}{known}")
    return "\n".join(lines)
