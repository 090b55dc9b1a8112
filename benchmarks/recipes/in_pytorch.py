"""Trains transformers' ModernBERT in PyTorch on the batches of a run of ours, and prints both curves in one table.

    python -m benchmarks.recipes.in_pytorch --run=/tmp/wiki18_400

Imports nothing of bert_jax: runs in an environment of its own with torch, transformers and numpy, on a directory that
`benchmarks.recipes.for_pytorch` wrote. What is the same: initial weights, batches with their masks, learning rates, and
the recipe's numbers. What is not ours: the model, its loss, gradients and their clipping, and AdamW, which are those of
transformers and torch. Muon is written here, as torch.optim.Muon computes in bfloat16, takes Wqkv for one matrix and
does not correct the momentum's bias. So the curves part by rounding alone, which grows with the steps.
"""

import argparse
import json
import math
import pathlib
from typing import Any

import numpy as np
import torch
from transformers import ModernBertForMaskedLM

# Newton-Schulz iterations of Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
_COEFFICIENTS, _ITERATIONS, _EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-8
# Some parameters of a layer hold several matrices, one below the other: their number.
_MATRICES = {"attn.Wqkv.weight": 3, "mlp.Wi.weight": 2}
# The loss leaves such labels out.
_NO_LABEL = -100
# Steps whose losses must be the same but for rounding, and those of them that have a line.
_FIRST_STEPS, _SHOWN = 20, (1, 2, 5, 10, 20)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with its bias corrected, orthogonalised, with decoupled weight decay."""

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter; a group says lr, momentum, weight_decay and how many matrices its parameters hold.

        A matrix is `[outputs, inputs]`, and its update's singular values are about sqrt(max(1, outputs / inputs)).
        """
        for group in self.param_groups:
            decay, rate = group["momentum"], group["lr"]
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state.update(steps=0, mean=torch.zeros_like(parameter))
                state["steps"] += 1
                mean = state["mean"].lerp_(gradient, 1 - decay)
                ahead = mean * (decay / (1 - decay ** (state["steps"] + 1)))
                ahead += gradient * ((1 - decay) / (1 - decay ** state["steps"]))
                matrices = ahead.view(group["matrices"], -1, parameter.shape[-1])
                scale = math.sqrt(max(1.0, matrices.shape[1] / matrices.shape[2]))
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.sub_(orthogonalized(matrices).view_as(parameter), alpha=rate * scale)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """Brings the singular values of each matrix, `[matrices, rows, columns]`, to about 1."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT).mT
    linear, cubic, quintic = _COEFFICIENTS
    found = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + _EPSILON)
    for _ in range(_ITERATIONS):
        gram = found @ found.mT
        found = linear * found + (cubic * gram + quintic * gram @ gram) @ found
    return found


def build_optimizers(model: torch.nn.Module, settings: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """Returns Muon of the layers' matrices and AdamW of all else; embeddings and the head's matrix decay there.

    Each group says how many times the run's learning rate its own is.
    """
    by_matrices: dict[int, list[torch.Tensor]] = {}
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            others.append(parameter)
        elif name.startswith("model.layers."):
            number = next((number for end, number in _MATRICES.items() if name.endswith(end)), 1)
            by_matrices.setdefault(number, []).append(parameter)
        else:
            decayed.append(parameter)
    decay = {"lr": 0.0, "weight_decay": settings["weight_decay"]}
    muon = {**decay, "momentum": settings["muon_momentum"], "factor": settings["muon_learning_rate_factor"]}
    adamw = {"lr": 0.0, "betas": (settings["b1"], settings["b2"]), "eps": settings["eps"]}
    return [
        Muon([{"params": own, "matrices": number, **muon} for number, own in by_matrices.items()], {}),
        torch.optim.AdamW(
            [
                {"params": decayed, "factor": 1.0, "weight_decay": settings["weight_decay"]},
                {"params": others, "factor": 1.0, "weight_decay": 0.0},
            ],
            **adamw,
        ),
    ]


class Batches:
    """Batches in the files of a directory, as arguments of the model."""

    def __init__(self, folder: pathlib.Path):
        """Opens the files."""
        self._arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._arrays["input_ids"])

    def __getitem__(self, place: int) -> dict[str, Any]:
        """Returns the batch of a step, counted from 0."""
        own = {name: torch.from_numpy(array[place].astype(np.int64)) for name, array in self._arrays.items()}
        segments = own["segment_ids"]
        rows, predictions = own["masked_weights"].nonzero(as_tuple=True)
        labels = torch.full_like(own["input_ids"], _NO_LABEL)
        labels[rows, own["masked_positions"][rows, predictions]] = own["masked_ids"][rows, predictions]
        # A text sees itself alone. Padding sees padding: a row of nothing would be NaN.
        mask = (segments[:, None, :, None] == segments[:, None, None, :]).contiguous()
        return {
            "input_ids": own["input_ids"],
            "position_ids": own["position_ids"],
            "attention_mask": {"full_attention": mask},
            "labels": labels,
        }


def take_step(
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    batch: dict[str, Any],
    learning_rate: float,
    clip_global_norm: float | None,
) -> float:
    """Updates the model, and returns the batch's loss before that."""
    loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip_global_norm is None else clip_global_norm)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


@torch.inference_mode()
def score(model: torch.nn.Module, batches: Batches, unigram: float) -> float:
    """Returns the loss over the hidden words of all batches less the unigram's, in nats."""
    total, number = 0.0, 0
    for place in range(len(batches)):
        batch = batches[place]
        hidden = int((batch["labels"] != _NO_LABEL).sum())
        # A batch filled up with padding has no loss, rather than a division by zero.
        total += model(**batch).loss.item() * hidden if hidden else 0.0
        number += hidden
    return total / number - unigram


def compare(run: pathlib.Path) -> None:
    """Trains, and prints a line for some of the first steps and for each that ours was scored at."""
    ours = json.loads((run / "run.json").read_text())
    training, yardstick = Batches(run / "training"), Batches(run / "yardstick")
    model = ModernBertForMaskedLM.from_pretrained(
        run / "model", dtype=torch.float32, attn_implementation="sdpa", sparse_prediction=True
    )
    model.train()
    optimizers = build_optimizers(model, ours["optimizer"])
    most = ours["optimizer"]["clip_global_norm"]
    scores, losses, last = {}, [], 0
    print(f"{'':>8}{'training loss, mean since the line above':>42}{'yardstick':>32}")
    print(f"{'step':>8}{'ours':>14}{'PyTorch':>12}{'difference':>16}{'ours':>10}{'PyTorch':>10}{'difference':>12}")
    for step in range(len(training) + 1):
        if step:
            losses.append(take_step(model, optimizers, training[step - 1], ours["learning_rates"][step - 1], most))
        if step not in _SHOWN and str(step) not in ours["scores"]:
            continue
        line = f"{step:>8}"
        if step:
            own, their = (float(np.mean(curve[last:step])) for curve in (ours["losses"], losses))
            line += f"{own:>14.5f}{their:>12.5f}{their - own:>+16.1e}"
            last = step
        if str(step) in ours["scores"]:
            own, their = ours["scores"][str(step)], score(model, yardstick, ours["unigram"])
            scores[step] = their - own
            line = f"{line:<50}{own:>+10.4f}{their:>+10.4f}{their - own:>+12.1e}"
        print(line, flush=True)
    first = np.abs(np.subtract(ours["losses"], losses)[:_FIRST_STEPS])
    print(f"\ntraining loss, first {len(first)} steps: {first.max():.1e} apart at most")
    print(f"yardstick: {abs(scores[0]):.1e} apart at the beginning, {abs(scores[step]):.1e} at the end")


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=pathlib.Path, required=True, help="directory that benchmarks.recipes.for_pytorch wrote"
    )
    compare(parser.parse_args().run)


if __name__ == "__main__":
    main()
