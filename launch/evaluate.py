"""Scores a model on what it has not seen: a pre-trained one on rows, a fine-tuned one on a file of labelled examples.

The model may be a run or a checkpoint, a Hugging Face directory, or a checkpoint of Google's code. Rows must have been
made with its tokenizer. Beside the scores stands what is reached without a model. A pre-training run is scored with its
own masks; --masking=yardstick hides the same words for every model, so that runs with different masks compare.

Example: python -m launch.evaluate --model=runs/tiny --data_dir=rows_128
         python -m launch.evaluate --model=runs/tiny --data_dir=rows_128 --masking=yardstick
         python -m launch.evaluate --model=runs/sst2 --input=test.tsv
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from bert_jax.data.masking_recipe import Masking
from bert_jax.data.rows import TRAIN, VALIDATION, open_rows
from bert_jax.errors import UserError
from bert_jax.interop.pretrained import Pretrained
from bert_jax.models.execution import DTYPES, Execution
from bert_jax.numerics import Numerics
from bert_jax.tasks.pretraining_recipe import YARDSTICK, YARDSTICK_SEED, masking_of_run
from bert_jax.training.saved_models import LATEST
from launch.command import run
from launch.finetuned_model import define_task_name_flag
from launch.finetuning_files import define_reading_flags
from launch.flag_conditions import flags_of, only_where
from launch.mesh_flags import MOST_ROWS, define_mesh_flags, make_mesh_from_flags, parse_mesh_flags
from launch.model_choice import open_chosen
from launch.task_evaluation import evaluate_examples

_OF_RUN, _YARDSTICK = "run", "yardstick"


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_string(
        "model", None, "A run or a checkpoint, a Hugging Face directory, or a checkpoint of Google's code.", **here
    )
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Of a run's folder: latest, best, or a step; by default the latest of a pre-trained model, and the best of a"
        " fine-tuned one, or the latest where none was evaluated.",
        **here,
    )
    flags.DEFINE_string("data_dir", None, "Directory of rows, for a pre-trained model.", **here)
    flags.DEFINE_string("input", None, "A file of labelled examples, for a fine-tuned model.", **here)
    flags.DEFINE_string("figure", None, "With --input: a PNG for the confusion matrix.", **here)
    flags.DEFINE_enum("split", VALIDATION, (VALIDATION, TRAIN), "Which of the rows.", **here)
    flags.DEFINE_integer("batch_size", 32, "Rows a step.", lower_bound=1, upper_bound=MOST_ROWS, **here)
    flags.DEFINE_integer(
        "max_rows",
        None,
        "At most so many rows, rounded up to whole batches; all by default.",
        lower_bound=1,
        **here,
    )
    flags.DEFINE_enum(
        "masking",
        _OF_RUN,
        (_OF_RUN, _YARDSTICK),
        "With --data_dir: the run's own masks; or for comparisons, and where the model says none, 15% of the tokens,"
        " all of them [MASK].",
        **here,
    )
    flags.DEFINE_integer(
        "seed",
        None,
        "Of the masks, with --data_dir; by default that of the run's own evaluation, or of the yardstick.",
        lower_bound=0,
        upper_bound=2**31 - 1,
        **here,
    )
    flags.DEFINE_enum(
        "dtype", None, DTYPES, "Of the computation; by default float32, and with --data_dir that of the run.", **here
    )
    define_task_name_flag(values)
    define_reading_flags(values)
    define_mesh_flags(values)
    of_examples = ("figure", "task_name", *flags_of(define_reading_flags))
    only_where(values, of_examples, lambda given: given.input, "is for fine-tuned models, with --input: leave it out")
    only_where(
        values,
        ("split", "max_rows", "masking", "seed"),
        lambda given: not given.input,
        "is for rows, with --data_dir, and --input is a file of examples: leave it out",
    )


def execute(values: flags.FlagValues) -> int:
    """Prints the table of scores."""
    if not values.model:
        raise UserError("--model is missing: a run's folder, or a model's directory")
    if not values.data_dir and not values.input:
        raise UserError("--data_dir is missing: make rows with python -m launch.prepare; or --input, labelled examples")
    if values.data_dir and values.input:
        raise UserError("--data_dir is for pre-trained models and --input for fine-tuned ones: give one of them")
    parse_mesh_flags(values)
    if values.input:
        return evaluate_examples(values)
    store = open_rows(values.data_dir)
    if not store.num_rows(values.split):
        raise UserError(f"--data_dir={values.data_dir} has no {values.split} rows: prepare more text")
    model = open_chosen(values.model, values.checkpoint or LATEST)
    if model.model_class not in ("BertForPreTraining", "BertForMaskedLM"):
        raise UserError(f"{model.path} is a {model.model_class}, without a masked-LM head: there is nothing to score")
    tokenizer = model.load_tokenizer()
    if tokenizer.fingerprint != store.tokenizer_fingerprint:
        raise UserError(
            f"the rows in {values.data_dir} were made with another tokenizer than that of {model.path}: prepare them"
            f" with --tokenizer={os.fspath(model.tokenizer_directory)}"
        )
    if store.recipe.seq_len > model.config.max_position_embeddings:
        raise UserError(
            f"the rows in {values.data_dir} have {store.recipe.seq_len} tokens, and the model's longest sequence is"
            f" {model.config.max_position_embeddings}: prepare shorter ones"
        )
    identity = _identity(model)
    masking, seed, description = _masking(identity, values.masking, values.seed)
    dtype = values.dtype or identity.get("Execution.dtype", DTYPES[0])
    execution = Execution(dtype=dtype, numerics=Numerics.of_run(identity or None, model.path))

    # From here on, imports are slow.
    import jax

    from bert_jax.parallel.memory import Need, check_memory
    from bert_jax.parallel.mesh import abstract_batch, check_batch
    from bert_jax.parallel.mesh_spec import check_heads
    from bert_jax.parallel.sharding import param_shardings
    from bert_jax.tasks.pretraining import PreTraining
    from bert_jax.tasks.pretraining_batches import evaluation_batches, make_batch_maker
    from bert_jax.tasks.pretraining_report import format_evaluation
    from bert_jax.training.compilation import CompiledEvaluation
    from bert_jax.training.train_step import make_eval_step

    mesh = make_mesh_from_flags(values)
    check_heads(mesh.shape["tensor"], model.config.num_attention_heads)
    check_batch(mesh, values.batch_size, 1, "--batch_size")
    task = PreTraining(model.config, next_sentence=model.model_class == "BertForPreTraining", execution=execution)
    maker = make_batch_maker(store, tokenizer, masking, seed)
    shapes = abstract_batch(mesh, maker.shapes(values.batch_size))
    check_memory(
        [
            Need("parameters", task.model.abstract(), "use a smaller model, or a machine with more memory"),
            Need("a batch", shapes, "lower --batch_size"),
        ]
    )
    parameters = model.load_parameters()
    parameters = jax.device_put(parameters, param_shardings(mesh, task.logical_axes(), parameters))
    compiled = CompiledEvaluation(task, make_eval_step(task), parameters, shapes)
    evaluate = evaluation_batches(
        maker, store, tokenizer, values.batch_size, values.max_rows, compiled, mesh, values.split
    )
    metrics = evaluate(parameters)
    print(model.describe())
    print(description)
    print(format_evaluation(metrics))
    return 0


def _identity(model: Pretrained) -> Mapping[str, Any]:
    """Returns what the checkpoint says that its run is; empty for other models, and for converted ones."""
    identity = model.record.get("identity")
    return identity if isinstance(identity, Mapping) else {}


def _masking(identity: Mapping[str, Any], wanted: str, given_seed: int | None) -> tuple[Masking, int, str]:
    """Returns the masking, the seed of the masks, and a line about them.

    Args:
        identity: of the run.
        wanted: by --masking.
        given_seed: by --seed; None for the masking's own.
    """
    of_run = masking_of_run(identity)
    if of_run and wanted == _OF_RUN:
        (masking, seed), whose, origin = of_run, "the run", "those of the run's own evaluations"
    else:
        # Also without masks of its own: a model that never saw words exchanged would be misled by those around a blank.
        (masking, seed), whose = (YARDSTICK, YARDSTICK_SEED), "the yardstick"
        origin = "the yardstick for comparisons"
        origin += "" if wanted == _YARDSTICK else ", since the model does not say its own"
    if given_seed not in (None, seed):
        origin = f"drawn anew by --seed, and those of {whose} have seed {seed}"
        seed = given_seed
    rest = 1 - masking.mask_share - masking.keep_share
    units = "the tokens, by whole words," if masking.whole_word else "the tokens"
    return (
        masking,
        seed,
        f"masks: {masking.masked_lm_prob:.4g} of {units} ({masking.mask_share:.4g} [MASK], {masking.keep_share:.4g} as"
        f" they are, {rest:.4g} other words), seed {seed}; {origin}",
    )


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
