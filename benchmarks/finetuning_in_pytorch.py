"""The recipe of `launch.finetune` for texts or words with labels, in PyTorch and transformers, to compare with.

Imports nothing of bert_jax: runs in an environment of its own with torch, transformers and numpy. Reads JSON lines as
`benchmarks/finetuning.py` writes them: `text`, perhaps `pair`, and `label`, a number; or `words` and `labels`, a number
for each word. Prints a JSON line for each epoch, with the seconds since the process began, and leaves the predictions
for the dev set after epoch N, numbers in the same shape, in WORKDIR/predictions_N.json.

What is the same: AdamW with its decay mask, gradient clipping, linear warm-up and decay, dropout as in the model's
config, batches of rows of about the same length out of windows of fifty, evaluation and a checkpoint with the
optimizer's state after each epoch. Rows are padded to the longest of their batch. The label of a word is that of its
first piece. Markers are words of their own, and begin with the mean of the pieces that they were cut into.

Example: python benchmarks/finetuning_in_pytorch.py --train=train.jsonl --dev=dev.jsonl --num_labels=2 --model=MODEL \
    --workdir=DIR --learning_rate=5e-5 --epochs=2 --seed=0
"""

import time

_BEGAN = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

_SORTED_TOGETHER = 50
# What the loss leaves out.
_NO_LABEL = -100


class Rows:
    """Encoded examples, laid out in batches as long as their longest row."""

    def __init__(self, tokenizer, path: str, max_seq_len: int):
        """Reads and encodes a file."""
        with open(path) as file:
            examples = [json.loads(line) for line in file]
        self._tokenizer = tokenizer
        self.has_words = "words" in examples[0]
        cut = {"truncation": True, "max_length": max_seq_len, "padding": False}
        if self.has_words:
            encoded = tokenizer([example["words"] for example in examples], is_split_into_words=True, **cut)
            self.first_pieces = [first_pieces(encoded.word_ids(number)) for number in range(len(examples))]
            self.labels: list[Any] = [example["labels"] for example in examples]
        else:
            pairs = [example["pair"] for example in examples] if "pair" in examples[0] else None
            encoded = tokenizer([example["text"] for example in examples], pairs, **cut)
            self.labels = [example["label"] for example in examples]
        names = ("input_ids", "token_type_ids", "attention_mask")
        self._rows = [
            dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)
        ]
        self.lengths = np.asarray([len(row["input_ids"]) for row in self._rows])

    def batch(self, numbers: np.ndarray) -> dict[str, torch.Tensor]:
        """Returns padded rows with their labels."""
        padded = self._tokenizer.pad([self._rows[number] for number in numbers], return_tensors="pt")
        if not self.has_words:
            return {**padded, "labels": torch.tensor([self.labels[number] for number in numbers])}
        labels = torch.full_like(padded["input_ids"], _NO_LABEL)
        for row, number in enumerate(numbers):
            for position, word in self.first_pieces[number]:
                labels[row, position] = self.labels[number][word]
        return {**padded, "labels": labels}

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


def first_pieces(words: Sequence[int | None]) -> list[tuple[int, int]]:
    """Returns the position of the first piece of each word and the word's number, given the word of every piece."""
    before = [None, *words[:-1]]
    return [
        (position, word)
        for position, (word, last) in enumerate(zip(words, before, strict=True))
        if word is not None and word != last
    ]


def predict(model, rows: Rows, batch_size: int) -> list[Any]:
    """Returns the most likely label of every example, or of each of its words; of words that were cut off, 0."""
    model.eval()
    predictions: list[Any] = [None] * len(rows.labels)
    with torch.inference_mode():
        for numbers in rows.in_order_of_length(batch_size):
            batch = rows.batch(numbers)
            batch.pop("labels")
            for number, own in zip(numbers, model(**batch).logits.argmax(dim=-1).tolist(), strict=True):
                if rows.has_words:
                    by_word = {word: own[position] for position, word in rows.first_pieces[number]}
                    own = [by_word.get(word, 0) for word in range(len(rows.labels[number]))]
                predictions[number] = own
    model.train()
    return predictions


def add_markers(tokenizer, model, markers: Sequence[str]) -> None:
    """Makes each marker a token of its own."""
    pieces = [tokenizer(marker, add_special_tokens=False)["input_ids"] for marker in markers]
    tokenizer.add_tokens(list(markers))
    embeddings = model.resize_token_embeddings(len(tokenizer)).weight
    with torch.no_grad():
        for marker, own in zip(markers, pieces, strict=True):
            embeddings[tokenizer.convert_tokens_to_ids(marker)] = embeddings[own].mean(dim=0)


def parameter_groups(model, weight_decay: float) -> list[dict]:
    """Returns the parameters that decay, and those that do not: biases and LayerNorm."""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[not (name.endswith("bias") or "LayerNorm" in name)].append(parameter)
    return [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "dev", "model", "workdir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--num_labels", type=int, required=True)
    parser.add_argument("--markers", nargs="*", default=[])
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_seq_len", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args()

    torch.manual_seed(values.seed)
    draw = np.random.default_rng(values.seed)
    workdir = pathlib.Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with open(values.train) as file:
        of_words = "words" in json.loads(file.readline())
    kind = AutoModelForTokenClassification if of_words else AutoModelForSequenceClassification
    tokenizer = AutoTokenizer.from_pretrained(values.model)
    model = kind.from_pretrained(values.model, num_labels=values.num_labels, dtype=torch.float32)
    if values.markers:
        add_markers(tokenizer, model, values.markers)
    train, dev = (Rows(tokenizer, path, values.max_seq_len) for path in (values.train, values.dev))
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=values.learning_rate, eps=1e-6, fused=True)
    epochs = round(values.epochs)
    steps = epochs * -(-len(train.labels) // values.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)

    for epoch in range(1, epochs + 1):
        for numbers in train.epoch(values.batch_size, draw):
            model(**train.batch(numbers)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        predictions = predict(model, dev, values.batch_size)
        (workdir / f"predictions_{epoch}.json").write_text(json.dumps(predictions))
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, workdir / "last.pt")
        print(json.dumps({"epoch": epoch, "seconds": time.perf_counter() - _BEGAN}), flush=True)


if __name__ == "__main__":
    main()
