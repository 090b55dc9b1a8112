"""Converts a BERT between bert_jax's format, Hugging Face's and Google's original one (which is read only).

Example: python -m launch.convert --from=bert-base-uncased --to=models/bert_base --format=bert_jax
"""

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from bert_jax.durable_files import check_can_write, publish, unfinished_folder
from bert_jax.errors import UserError
from bert_jax.interop import huggingface
from bert_jax.interop.pretrained import Pretrained
from bert_jax.interop.task_heads import choose_task
from bert_jax.models.registry import CLASSIFICATION_CLASSES, build_model
from bert_jax.tasks.finetuning_tasks import task_from_json
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.saved_models import LATEST, leaves_by_path
from launch.command import run
from launch.finetuned_model import define_task_name_flag
from launch.model_choice import define_checkpoint_flag, open_chosen

FORMATS = ("bert_jax", "huggingface")


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    source = (
        "The model: folder of a run or of a checkpoint, Hugging Face directory, or directory or prefix of a checkpoint"
        " of Google's code."
    )
    flags.DEFINE_string("from", None, source, **here)
    define_checkpoint_flag(values)
    define_task_name_flag(values)
    flags.DEFINE_string("to", None, "Folder to write; must not exist, or be empty.", **here)
    flags.DEFINE_enum("format", None, FORMATS, "Format to write.", **here)


def execute(values: flags.FlagValues) -> int:
    """Reads, reports, writes."""
    source = values["from"].value
    for flag, value, meaning in (
        ("from", source, "the model to convert"),
        ("to", values.to, "the folder to write"),
        ("format", values.format, f"one of {', '.join(FORMATS)}"),
    ):
        if not value:
            raise UserError(f"--{flag} is missing: {meaning}")
    target = pathlib.Path(values.to)
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"--to={target} exists and is not an empty folder: nothing is overwritten; choose another")
    check_can_write(target)
    model, run = choose_task(open_chosen(source, values.checkpoint or LATEST, "from"), values.task_name)
    task = _task(run)
    if values.format == "huggingface":
        family, _ = huggingface.family_to_write(model.config, model.model_class)
    tokenizer = model.load_tokenizer() if model.tokenizer_directory else None

    # From here on, imports are slow.
    from bert_jax.models.parameters import count_parameters

    parameters, left_out = _load(model)
    number = count_parameters(parameters, model.config.vocab_size)
    print(f"read {model.describe()}, {number:,} parameters")
    print("\n".join(model.report.lines()))
    if left_out:
        print(f"left out, as a {model.model_class} has no such parts: {', '.join(left_out)}")
    with unfinished_folder(target) as temporary:
        folder = temporary / "model"
        if values.format == "huggingface":
            folder.mkdir()
            huggingface.write_directory(
                folder, model.config, model.model_class, model.labels, parameters, tokenizer, task
            )
            if unwritten := list(leaves_by_path(parameters)):
                print(f"left out, as a {family.name} has no such parts: {', '.join(unwritten)}")
        else:
            _write_checkpoint(folder, model, parameters, tokenizer, task, temporary)
        publish(folder, target)
    print(f"wrote {target} ({values.format}){'' if tokenizer else '; there was no tokenizer to write with it'}")
    return 0


def _task(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is known of the task that the model was tuned for, with what its dev set decided."""
    known = {name: run[name] for name in ("finetuning", "problem_type") if name in run}
    if "finetuning" in known:
        tuned = task_from_json(known["finetuning"], run.get("validation")).to_json()
        known["finetuning"] = {**known["finetuning"], **tuned}
    return known


def _load(model: Pretrained) -> tuple[dict[str, Any], list[str]]:
    """Returns the parameters of the model's class, and the names of others, such as heads of auxiliary losses."""
    from bert_jax.models.parameters import restrict

    # Names do not depend on how many labels there are.
    num_labels = 1 if model.model_class in CLASSIFICATION_CLASSES else None
    saved = model.load_parameters()
    parameters = restrict(saved, build_model(model.model_class, model.config, num_labels=num_labels).logical_axes())
    return parameters, [name for name in leaves_by_path(saved) if name not in leaves_by_path(parameters)]


def _write_checkpoint(
    folder: pathlib.Path,
    model: Pretrained,
    parameters: dict[str, Any],
    tokenizer: Tokenizer | None,
    task: Mapping[str, Any],
    scratch: pathlib.Path,
) -> None:
    from bert_jax.training.checkpoints import write_model

    files = {}
    if tokenizer is not None:
        tokenizer.save(scratch / "tokenizer")
        files = {f"tokenizer/{path.name}": path.read_bytes() for path in (scratch / "tokenizer").iterdir()}
    run = {
        "architecture": model.config.to_json(),
        "model_class": model.model_class,
        "labels": list(model.labels) if model.labels else None,
        # A model that comes without a count of its updates has made none here.
        "step": model.step or 0,
        "validation": None,
        **task,
        "converted_from": model.kind,
    }
    write_model(folder, parameters, run, files)


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
