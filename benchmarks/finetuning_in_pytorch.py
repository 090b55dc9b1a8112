"""The recipe of `launch.finetune --task=classification` in PyTorch and transformers, to compare with.

Imports nothing of bert_jax: runs in an environment of its own with torch, transformers and numpy. Prints JSON lines:
one for each epoch, and last the best metric and the seconds of the whole process.

What is the same: AdamW with its decay mask, gradient clipping, linear warm-up and decay, dropout as in the model's
config, batches of rows of about the same length out of windows of fifty, evaluation and a checkpoint with the
optimizer's state after each epoch. Rows are padded to the longest of their batch.

Example: python benchmarks/finetuning_in_pytorch.py --train=train.tsv --dev=dev.tsv --text=sentence --label=label \
    --model=MODEL --workdir=DIR --learning_rate=5e-5 --epochs=2 --seed=0
"""

import time

_BEGAN = time.perf_counter()

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

_SORTED_TOGETHER = 50


def read_table(path: str, text: str, pair: str | None, label: str) -> tuple[list[str], list[str] | None, np.ndarray]:
    """Returns of a tab-separated table the texts, the second texts if asked for, and the labels, int64 `[rows]`."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels = np.asarray([int(row[label]) for row in rows])
    return [row[text] for row in rows], [row[pair] for row in rows] if pair else None, labels


class Rows:
    """Encoded rows, laid out in batches as long as their longest row."""

    def __init__(self, tokenizer, texts: list[str], pairs: list[str] | None, labels: np.ndarray, max_seq_len: int):
        """Encodes all texts."""
        self._tokenizer = tokenizer
        encoded = tokenizer(texts, pairs, truncation=True, max_length=max_seq_len, padding=False)
        names = ("input_ids", "token_type_ids", "attention_mask")
        self._rows = [
            dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)
        ]
        self.labels = labels
        self.lengths = np.asarray([len(row["input_ids"]) for row in self._rows])

    def batch(self, numbers: np.ndarray) -> dict[str, torch.Tensor]:
        """Returns padded rows with their labels."""
        padded = self._tokenizer.pad([self._rows[number] for number in numbers], return_tensors="pt")
        return {**padded, "labels": torch.from_numpy(self.labels[numbers])}

    def in_order_of_length(self, batch_size: int) -> list[np.ndarray]:
        """Returns the rows of batches, the shortest first."""
        order = np.argsort(self.lengths, kind="stable")
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def epoch(self, batch_size: int, draw: np.random.Generator) -> list[np.ndarray]:
        """Returns the rows of an epoch's batches: random, but for rows of about the same length going together."""
        rows = draw.permutation(len(self.lengths))
        together = np.arange(len(rows)) // (_SORTED_TOGETHER * batch_size)
        rows = rows[np.lexsort((-self.lengths[rows], together))]
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        return [batches[place] for place in draw.permutation(len(batches))]


def score(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns accuracy and the F1 of class 1."""
    positive = ((true == 1) & (predicted == 1)).sum()
    return {
        "accuracy": float((true == predicted).mean()),
        "f1": float(2 * positive / max((true == 1).sum() + (predicted == 1).sum(), 1)),
    }


def evaluate(model, rows: Rows, batch_size: int) -> dict[str, float]:
    """Scores the model on all rows."""
    model.eval()
    predicted = np.zeros(len(rows.labels), np.int64)
    with torch.inference_mode():
        for numbers in rows.in_order_of_length(batch_size):
            batch = rows.batch(numbers)
            batch.pop("labels")
            predicted[numbers] = model(**batch).logits.argmax(dim=-1).numpy()
    model.train()
    return score(rows.labels, predicted)


def parameter_groups(model, weight_decay: float) -> list[dict]:
    """Returns the parameters that decay, and those that do not: biases and LayerNorm."""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[not (name.endswith("bias") or "LayerNorm" in name)].append(parameter)
    return [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "dev", "text", "label", "model", "workdir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--pair")
    parser.add_argument("--metric", default="accuracy", choices=("accuracy", "f1"))
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_seq_len", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args()

    torch.manual_seed(values.seed)
    draw = np.random.default_rng(values.seed)
    workdir = pathlib.Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(values.model)
    train, dev = (
        Rows(tokenizer, *read_table(path, values.text, values.pair, values.label), values.max_seq_len)
        for path in (values.train, values.dev)
    )
    model = AutoModelForSequenceClassification.from_pretrained(values.model, num_labels=2, dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=values.learning_rate, eps=1e-6, fused=True)
    steps = values.epochs * -(-len(train.labels) // values.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)

    best = None
    for epoch in range(values.epochs):
        for numbers in train.epoch(values.batch_size, draw):
            model(**train.batch(numbers)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        found = evaluate(model, dev, values.batch_size)
        print(json.dumps({"epoch": epoch + 1, **found, "seconds": time.perf_counter() - _BEGAN}), flush=True)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, workdir / "last.pt")
        if best is None or found[values.metric] > best[values.metric]:
            best = found
            torch.save(model.state_dict(), workdir / "best.pt")
    print(json.dumps({"best": best, "seconds": time.perf_counter() - _BEGAN}))


if __name__ == "__main__":
    main()
