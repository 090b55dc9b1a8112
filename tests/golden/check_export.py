"""Opens exported models with transformers, as strictly as can be, and prints what they predict.

Run by hand in the environment of make_golden.py, on a directory that bert_jax wrote:

    python -m launch.convert --from=RUN --to=EXPORT --format=huggingface
    torch_venv/bin/python tests/golden/check_export.py EXPORT 'The capital of France is [MASK].'

The directory is opened by the class that its config.json names, and by AutoModelForPreTraining where that is
BertForPreTraining. Any missing, unexpected or mismatched tensor, and any warning, is an error. For each text the
likeliest words of each [MASK] are printed as JSON, to be compared with those of launch.fill_mask. With --results=FILE,
written by export_models.py, the model's results are compared with bert_jax's.
"""

import argparse
import json
import logging
import pathlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import transformers


class _Collector(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def no_warnings() -> Iterator[None]:
    """Raises a ValueError after the block if anything in it was logged or warned of."""
    collector = _Collector()
    logger = logging.getLogger("transformers")
    logger.addHandler(collector)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logger.removeHandler(collector)
    messages = collector.messages + [str(warning.message) for warning in caught]
    if messages:
        raise ValueError("warnings: " + " | ".join(messages))


def open_strictly(model_class: type, directory: pathlib.Path) -> torch.nn.Module:
    """Opens a model for which transformers has nothing to remark."""
    with no_warnings():
        model, loading = model_class.from_pretrained(
            directory, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
        )
    remarks = {kind: sorted(map(str, names)) for kind, names in loading.items() if names}
    if remarks:
        raise ValueError(f"{model_class.__name__}: {remarks}")
    return model.eval()


def fill_masks(model: torch.nn.Module, directory: pathlib.Path, text: str, top_k: int) -> list[list[dict]]:
    """The likeliest words of each blank and their probabilities."""
    with no_warnings():
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    encoded = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**encoded)
    logits = outputs.prediction_logits if hasattr(outputs, "prediction_logits") else outputs.logits
    probabilities = logits[0].softmax(dim=-1)
    blanks = (encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0]
    best = [probabilities[blank].topk(top_k) for blank in blanks]
    return [
        [
            {"token": tokenizer.convert_ids_to_tokens(index), "probability": round(value, 6)}
            for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        for top in best
    ]


def compare(model: torch.nn.Module, results: pathlib.Path) -> dict[str, float]:
    """The largest difference, at real tokens, between the model's results and those in a file of export_models.py."""
    with np.load(results) as archive:
        arrays = dict(archive)
    real = arrays["segment_ids"] > 0
    names = {"input_ids": "input_ids", "token_type_ids": "token_type_ids", "attention_mask": "segment_ids"}
    if model.config.model_type == "modernbert":
        del names["token_type_ids"]
    with torch.no_grad():
        outputs = model(**{name: torch.from_numpy(arrays[ours]).long() for name, ours in names.items()})
    outputs = {name: tensor.numpy() for name, tensor in outputs.items()}
    if "start_logits" in outputs:
        outputs = {"logits": np.stack([outputs["start_logits"], outputs["end_logits"]], axis=-1)}
    errors = {}
    for name, array in outputs.items():
        expected = arrays[f"expected.{name}"]
        if array.shape[:2] == real.shape:
            array, expected = array[real], expected[real]
        errors[name] = float(np.abs(array - expected).max())
    return errors


def main() -> int:
    """Checks one directory; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("texts", nargs="*", help="texts with [MASK] in them")
    parser.add_argument("--top_k", type=int, default=5)
    parser.add_argument("--results", type=pathlib.Path, help="what bert_jax computed, from export_models.py")
    arguments = parser.parse_args()
    try:
        fields = json.loads((arguments.directory / "config.json").read_text())
        (name,) = fields["architectures"]
        classes = [getattr(transformers, name)]
        if name == "BertForPreTraining":
            classes.append(transformers.AutoModelForPreTraining)
        models = [open_strictly(model_class, arguments.directory) for model_class in classes]
        report = {
            "class": name,
            "parameters": sum(parameter.numel() for parameter in models[-1].parameters()),
            "blanks": {
                text: fill_masks(models[-1], arguments.directory, text, arguments.top_k) for text in arguments.texts
            },
        }
    except (OSError, RuntimeError, ValueError) as error:
        print(f"{arguments.directory}: {error}", file=sys.stderr)
        return 1
    if arguments.results:
        report["errors"] = compare(models[-1], arguments.results)
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0 if max(report.get("errors", {"none": 0.0}).values()) < 2e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
