"""Exports small random models, of BERT's every class and of ModernBERT's, with what bert_jax computes.

It is the other half of check_export.py.

Run by hand, where bert_jax is installed, and then, where transformers is:

    python tests/golden/export_models.py EXPORTS
    for model in EXPORTS/*; do
      torch_venv/bin/python tests/golden/check_export.py $model/model --results=$model/results.npz
    done
"""

import dataclasses
import pathlib
import sys

import golden_inputs
import jax
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.interop.huggingface import write_directory
from bert_jax.models.registry import CLASSIFICATION_CLASSES, MODEL_CLASSES, build_model

LABELS = ("one", "two", "three")
# The approximate GELU: the name of the exact one is the same everywhere.
CONFIG = BertConfig(
    vocab_size=golden_inputs.VOCAB_SIZE,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    hidden_act="gelu_tanh",
    max_position_embeddings=32,
    layer_norm_eps=1e-7,
)
MODERN_CONFIG = dataclasses.replace(
    CONFIG,
    type_vocab_size=0,
    position_embedding_type="rotary",
    rotary_base=300.0,
    layer_norm_placement="pre_and_embeddings",
    use_bias=False,
    feed_forward_type="gated",
)
# Folder, class and architecture of each.
MODELS = (
    *((model_class, model_class, CONFIG) for model_class in MODEL_CLASSES),
    # A ModernBERT has neither pooler nor next-sentence head: such a model goes out without.
    *((f"Modern{model_class}", model_class, MODERN_CONFIG) for model_class in ("BertForPreTraining", "BertModel")),
)


def random_parameters(shapes: dict, seed: int) -> dict:
    """Random values everywhere but in the rows that pad the vocabulary."""
    random = np.random.default_rng(seed)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        values = random.normal(1.0 if name.endswith("scale") else 0.0, 0.3, leaf.shape)
        if "word_embeddings" in name or name == "masked_lm/bias":
            values[CONFIG.vocab_size :] = 0
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def named_results(folder: str, outputs) -> dict[str, np.ndarray]:
    """The outputs under the names that transformers gives them."""
    if folder == "ModernBertModel":
        named = {"last_hidden_state": outputs[0]}
    elif folder == "ModernBertForPreTraining":
        named = {"logits": outputs[0][..., : CONFIG.vocab_size]}
    elif folder == "BertModel":
        named = {"last_hidden_state": outputs[0], "pooler_output": outputs[1]}
    elif folder == "BertForPreTraining":
        named = {
            "prediction_logits": outputs[0][..., : CONFIG.vocab_size],
            "seq_relationship_logits": outputs[1][:, 0],
        }
    else:
        named = {"logits": outputs[..., : CONFIG.vocab_size]}
    return {f"expected.{name}": np.asarray(array) for name, array in named.items()}


def main(argv: list[str]) -> int:
    """Writes DIR/FOLDER/model and DIR/FOLDER/results.npz for each of MODELS."""
    batch = golden_inputs.pretraining_batch(2000, (20, 16, 9))
    batch["masked_positions"] = batch["position_ids"]
    for seed, (folder, model_class, config) in enumerate(MODELS):
        labels = LABELS if model_class in CLASSIFICATION_CLASSES else None
        model = build_model(model_class, config, num_labels=len(labels) if labels else None)
        parameters = random_parameters(model.abstract(), seed)
        outputs = jax.jit(model.apply)(parameters, batch)
        directory = pathlib.Path(argv[1]) / folder
        (directory / "model").mkdir(parents=True)
        np.savez(directory / "results.npz", **batch, **named_results(folder, outputs))
        write_directory(directory / "model", config, model_class, labels, parameters, None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
