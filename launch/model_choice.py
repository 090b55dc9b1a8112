"""The flags that say which model a launcher uses, and its opening; says aloud which one it is."""

import sys

from absl import flags

from bert_jax.errors import UserError
from bert_jax.interop.pretrained import Pretrained, open_pretrained
from bert_jax.training.saved_models import BEST_OR_LATEST, LATEST


def define_checkpoint_flag(values: flags.FlagValues, default: str = LATEST) -> None:
    """Adds --checkpoint.

    Args:
        values: the launcher's flags.
        default: for the help; what is taken where the flag is not given.
    """
    meaning = {LATEST: "the latest", BEST_OR_LATEST: "the best, or the latest where none was evaluated"}[default]
    flags.DEFINE_string(
        "checkpoint", None, f"Of a run's folder: latest, best, or a step; by default {meaning}.", flag_values=values
    )


def open_chosen(path: str, checkpoint: str, flag: str = "model") -> Pretrained:
    """Opens a model; checkpoints that cannot be read are said on standard error.

    Args:
        path: of any kind of model.
        checkpoint: of a run, which; see `open_model`.
        flag: that gives the path, for messages.

    Raises:
        UserError: there is no such model.
    """
    try:
        model = open_pretrained(path, checkpoint)
    except UserError as error:
        raise UserError(f"--{flag}={path}: {error}") from error
    for line in model.warnings():
        print(f"warning: {line}", file=sys.stderr)
    return model
