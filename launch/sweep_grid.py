"""Which runs a sweep has: the flags --seeds and --sweep, the grid that they make, and a recipe for each run."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.sweep_results import Setting
from launch.flag_conditions import only_where

# The recipe's values that --sweep varies: their type, the flag, and the grid of Devlin et al. 2018, appendix A.3.
GRID = {
    "learning_rate": (float, "sweep_learning_rates", ("5e-5", "3e-5", "2e-5")),
    "batch_size": (int, "sweep_batch_sizes", ("16", "32")),
    "epochs": (float, "sweep_epochs", ("2", "3", "4")),
}

# More are a slip of the hand: each is a run.
_MOST_SEEDS = 1000

Load = Callable[..., tuple[FineTune, BertConfig | None, str]]


def define_sweep_flags(values: flags.FlagValues) -> None:
    """Adds --seeds, --sweep and the flags that make up the grid."""
    here = {"flag_values": values}
    flags.DEFINE_integer(
        "seeds",
        None,
        "Train with so many seeds, from --seed on, each in a folder of its own below --workdir, and report mean and"
        " deviation.",
        lower_bound=1,
        upper_bound=_MOST_SEEDS,
        **here,
    )
    flags.DEFINE_bool(
        "sweep", False, "Train with every setting of a grid, and compare them; with --seeds each several times.", **here
    )
    for _, flag, default in GRID.values():
        what = flag.removeprefix("sweep_").replace("_", " ")
        flags.DEFINE_list(flag, list(default), f"The {what} of --sweep; empty for the recipe's own alone.", **here)
        only_where(values, [flag], lambda given: given.sweep, f"is for --sweep: add it, or leave --{flag} out")


def is_sweep(values: flags.FlagValues) -> bool:
    """Whether several runs are asked for."""
    return values.sweep or values.seeds is not None


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """A run that is asked for: its setting and seed, and the recipe that they make, with gin's record of it."""

    setting: Setting
    seed: int
    recipe: FineTune
    operative_config: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.setting.run_name(self.seed)


def read_grid(values: flags.FlagValues, recipe: FineTune) -> dict[str, list[Any]]:
    """Returns the values of the recipe to train with, by name."""
    grid = {}
    for name, (kind, flag, _) in GRID.items():
        given = values[flag].value if values.sweep else []
        if not given:
            grid[name] = [getattr(recipe, name)]
            continue
        bound = any(binding.partition("=")[0].strip() == f"finetune.{name}" for binding in values.gin_param)
        if values[name].present or bound:
            place = f"--{name}" if values[name].present else f"--gin_param=finetune.{name}"
            raise UserError(f"{place} is what --sweep varies: leave it out, or give --{flag}= with nothing to keep it")
        try:
            # Each once, in the order given.
            grid[name] = list(dict.fromkeys(map(kind, given)))
        except ValueError as error:
            what = "whole numbers" if kind is int else "numbers"
            example = ",".join(GRID[name][2])
            raise UserError(f"--{flag}={','.join(given)}: must be {what}, such as {example}") from error
    return grid


def read_seeds(values: flags.FlagValues, recipe: FineTune) -> list[int]:
    """Returns the seeds to train with: --seeds of them, from the recipe's own on."""
    return [recipe.seed + number for number in range(values.seeds or 1)]


def runs_of(grid: Mapping[str, Sequence[Any]], seeds: Sequence[int], load: Load) -> list[SweepRun]:
    """Returns every run of a grid, each with a recipe of its own.

    Args:
        grid: the values of the recipe to train with, by name.
        seeds: of each setting.
        load: makes the recipe, the architecture and gin's record, given values of the recipe to change.
    """
    settings = [Setting(**dict(zip(grid, point, strict=True))) for point in itertools.product(*grid.values())]
    runs = []
    # A whole grid of one seed comes before the next seed: the first comparison does not wait for the last run.
    for seed, setting in itertools.product(seeds, settings):
        recipe, _, operative_config = load(**dataclasses.asdict(setting), seed=seed)
        runs.append(SweepRun(setting, seed, recipe, operative_config))
    return runs
