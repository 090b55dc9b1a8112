"""Shows what a model makes of a text: tokens, what it expects at each position, where a head looks; and its parameters.

Example: python -m launch.inspect --model=runs/tiny --text='The capital of France is [MASK].' --layer=1 --head=0
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from bert_jax.durable_files import check_can_write
from bert_jax.errors import UserError
from bert_jax.training.saved_models import LATEST
from launch.command import run
from launch.flag_conditions import only_where
from launch.mesh_flags import define_mesh_flags, make_mesh_from_flags, parse_mesh_flags
from launch.model_choice import define_checkpoint_flag, open_chosen


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of this launcher."""
    here = {"flag_values": values}
    flags.DEFINE_string(
        "model", None, "A run or a checkpoint, a Hugging Face directory, or a checkpoint of Google's code.", **here
    )
    define_checkpoint_flag(values)
    flags.DEFINE_string("text", None, "A text; without one, only the parameters are shown.", **here)
    flags.DEFINE_string("text_pair", None, "A second text, for a pair.", **here)
    flags.DEFINE_integer("top_k", 3, "Words expected at each position.", lower_bound=1, **here)
    flags.DEFINE_integer("layer", -1, "Whose attention is drawn, from 0; negative from the last.", **here)
    flags.DEFINE_integer("head", 0, "Whose attention is drawn, from 0.", **here)
    flags.DEFINE_string("attention", "attention.png", "Where to draw it; empty for nowhere.", **here)
    define_mesh_flags(values)
    only_where(
        values,
        ("text_pair", "top_k", "layer", "head", "attention", "mesh", "dcn_mesh"),
        lambda given: given.text is not None,
        "says what is shown of a --text, and there is none: give one, or leave this out",
    )
    only_where(
        values, ("layer", "head"), lambda given: given.attention, "is for the picture, and --attention= wants none"
    )


def execute(values: flags.FlagValues) -> int:
    """Prints the tables and draws the picture."""
    if not values.model:
        raise UserError("--model is missing: a run's folder, or a model's directory")
    target = pathlib.Path(values.attention)
    if values.attention and (target.suffix != ".png" or not target.parent.is_dir()):
        raise UserError(f"--attention={target}: must be a .png file in a folder that exists")
    if values.attention and values.text is not None:
        check_can_write(target)
    parse_mesh_flags(values)

    model = open_chosen(values.model, values.checkpoint or LATEST)
    layer = _index("layer", values.layer, model.config.num_hidden_layers)
    head = _index("head", values.head, model.config.num_attention_heads)
    tokenizer = model.load_tokenizer() if values.text is not None else None

    # From here on, imports are slow.
    import jax

    from bert_jax.models.parameters import restrict
    from bert_jax.models.registry import CLASSIFICATION_CLASSES, build_model
    from bert_jax.parallel.mesh_spec import check_heads
    from bert_jax.parallel.sharding import param_shardings
    from bert_jax.tasks.inspection import draw_attention, encode, format_inspection, format_parameters, inspect_text

    labels = model.labels if model.model_class in CLASSIFICATION_CLASSES else None
    network = build_model(model.model_class, model.config, num_labels=len(labels) if labels else None)
    print(model.describe())
    if tokenizer is not None:
        ids, types = encode(tokenizer, values.text, values.text_pair, model.config.max_position_embeddings)
        mesh = make_mesh_from_flags(values)
        check_heads(mesh.shape["tensor"], model.config.num_attention_heads)
        # Without the heads of auxiliary losses, which a fine-tuning run has beside the model's.
        parameters = restrict(model.load_parameters(), network.logical_axes())
        parameters = jax.device_put(parameters, param_shardings(mesh, network.logical_axes(), parameters))
        inspection = inspect_text(network, parameters, tokenizer, ids, types, values.top_k)
        print(format_inspection(inspection))
        if inspection.predictions is None:
            print("(no masked-LM head: nothing is expected)")
        if values.attention:
            draw_attention(inspection, layer, head, target)
            print(f"attention of layer {layer}, head {head}: {target}")
    print(format_parameters(network, model.config.vocab_size))
    return 0


def _index(flag: str, value: int, number: int) -> int:
    if not -number <= value < number:
        raise UserError(f"--{flag}={value}: the model has {number} of them, numbered from 0 to {number - 1}")
    return value % number


def main(argv: Sequence[str]) -> int:
    """Runs the launcher; returns the exit code."""
    return run(argv, __doc__, define_flags, execute)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
