"""Fills the blanks of a text with a pre-trained model.

Example: python -m launch.fill_mask --model=runs/tiny --text='The capital of France is [MASK].' --top_k=5
"""

import sys
from collections.abc import Sequence

from absl import flags

from bert_jax.errors import UserError
from bert_jax.text.tokenizer import MASK
from bert_jax.training.saved_models import LATEST
from launch.command import run
from launch.mesh_flags import define_mesh_flags, make_mesh_from_flags, parse_mesh_flags
from launch.model_choice import define_checkpoint_flag, open_chosen


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_string(
        "model", None, "A run's or a checkpoint's folder, a Hugging Face directory or Google's files.", **here
    )
    define_checkpoint_flag(values)
    flags.DEFINE_multi_string("text", [], f"A text with {MASK} in it; may repeat.", **here)
    flags.DEFINE_integer("top_k", 5, "Suggestions for each blank.", lower_bound=1, **here)
    define_mesh_flags(values)


def execute(values: flags.FlagValues) -> int:
    """Prints suggestions for each text."""
    if not values.model:
        raise UserError("--model is missing: the folder of a run (its --workdir), or another model")
    if not values.text:
        raise UserError(f"--text is missing: a text with {MASK} in it")
    for text in values.text:
        if MASK not in text:
            raise UserError(f"no {MASK} in {text!r}: put it where a word is wanted, such as 'The sky is {MASK}.'")
    parse_mesh_flags(values)
    model = open_chosen(values.model, values.checkpoint or LATEST)
    if model.model_class not in ("BertForPreTraining", "BertForMaskedLM"):
        raise UserError(
            f"--model={values.model} is a {model.model_class}, without a head that predicts words: give a model for"
            " pre-training or masked language modelling"
        )
    tokenizer = model.load_tokenizer()

    # From here on, imports are slow.
    from bert_jax.parallel.mesh_spec import check_heads
    from bert_jax.tasks.fill_mask import encode_text, fill_masks, format_suggestions, place_parameters

    for text in values.text:
        encode_text(tokenizer, text, model.config.max_position_embeddings)
    mesh = make_mesh_from_flags(values)
    check_heads(mesh.shape["tensor"], model.config.num_attention_heads)
    parameters = place_parameters(mesh, model.config, model.load_parameters())
    print(model.describe())
    for text in values.text:
        print(format_suggestions(text, fill_masks(model.config, parameters, tokenizer, text, values.top_k)))
    return 0


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
