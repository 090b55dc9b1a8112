"""The recipes that are compared: the best one, one factor changed at a time, and what the 2018 architecture can do."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.recipes.training import Trial
from bert_jax.data.masking_recipe import Masking
from bert_jax.training.recipe import Optimizer, Schedule

_SMALL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# An architecture that transformers' ModernBERT can be, with every layer global.
MODERN = {
    **_SMALL,
    "initializer_range": 0.05,
    "position_embedding_type": "rotary",
    "layer_norm_placement": "pre_and_embeddings",
    "layer_norm_eps": 1e-5,
    "use_bias": False,
    "feed_forward_type": "gated",
    "intermediate_size": 384,
    "type_vocab_size": 0,
}
PUBLISHED = {**_SMALL, "initializer_range": 0.05}

_ALL_MASKED = {"mask_share": 1.0, "keep_share": 0.0}
_MUON = Optimizer("muon", b2=0.98, muon_learning_rate_factor=10.0)
BEST = Trial(
    model=MODERN,
    learning_rate=4e-3,
    optimizer=_MUON,
    schedule=Schedule(warmup_fraction=0.05),
    masking=Masking(masked_lm_prob=0.2, **_ALL_MASKED),
)


def _changed(trial: Trial, **changes: Any) -> Trial:
    """Returns a trial with other fields; those of `model` are added to its own."""
    if "model" in changes:
        changes["model"] = {**trial.model, **changes["model"]}
    return dataclasses.replace(trial, **changes)


def _with_muon(**changes: Any) -> Trial:
    return _changed(BEST, optimizer=dataclasses.replace(_MUON, **changes))


def _masked(share: float) -> Trial:
    return _changed(BEST, masking=Masking(masked_lm_prob=share, **_ALL_MASKED))


# One factor each.
FACTORS: Mapping[str, Trial] = {
    "rate 2e-3": _changed(BEST, learning_rate=2e-3),
    "rate 8e-3": _changed(BEST, learning_rate=8e-3),
    "Muon's rate 5 times": _with_muon(muon_learning_rate_factor=5.0),
    "Muon's rate 20 times": _with_muon(muon_learning_rate_factor=20.0),
    "AdamW": _changed(BEST, optimizer=Optimizer("adamw", b2=0.98)),
    "b2 0.999": _with_muon(b2=0.999),
    "weight decay 0": _with_muon(weight_decay=0.0),
    "weight decay 0.1": _with_muon(weight_decay=0.1),
    "no warm-up": _changed(BEST, schedule=Schedule()),
    "warm-up 20 %": _changed(BEST, schedule=Schedule(warmup_fraction=0.2)),
    "cosine": _changed(BEST, schedule=Schedule("cosine", warmup_fraction=0.05)),
    "15 % masked": _masked(0.15),
    "30 % masked": _masked(0.3),
    "40 % masked": _masked(0.4),
    "50 % masked": _masked(0.5),
    "20 % masked, 80/10/10": _changed(BEST, masking=Masking(masked_lm_prob=0.2)),
    "batch 16": _changed(BEST, batch_size=16),
    "batch 64": _changed(BEST, batch_size=64),
    "rows of 64": _changed(BEST, rows="short", batch_size=64),
    "one text a row": _changed(BEST, rows="texts"),
    "next sentence, packed": _changed(BEST, rows="packed_pairs", model={"type_vocab_size": 2}),
    "norms before all, none of embeddings": _changed(BEST, model={"layer_norm_placement": "pre"}),
    "norms after": _changed(BEST, model={"layer_norm_placement": "post"}),
    "RMSNorm": _changed(BEST, model={"norm_type": "rms_norm"}),
    "biases": _changed(BEST, model={"use_bias": True}),
    "no gate": _changed(BEST, model={"feed_forward_type": "plain", "intermediate_size": 512}),
    "SwiGLU": _changed(BEST, model={"hidden_act": "silu"}),
    "gate of 512": _changed(BEST, model={"intermediate_size": 512}),
    "initial values 0.02": _changed(BEST, model={"initializer_range": 0.02}),
    "initial values 0.1": _changed(BEST, model={"initializer_range": 0.1}),
    "rotary base 1,000": _changed(BEST, model={"rotary_base": 1000.0}),
    "4 heads": _changed(BEST, model={"num_attention_heads": 4}),
}

_OLD = Trial(
    rows="pairs",
    model=PUBLISHED,
    learning_rate=5e-4,
    optimizer=Optimizer("bert_adamw"),
    schedule=Schedule(warmup_fraction=0.1),
)
_OLD_BETTER = _changed(
    _OLD, rows="packed", learning_rate=1e-3, optimizer=Optimizer("adamw", b2=0.98), masking=BEST.masking
)
# The architecture of 2018, learned positions and norms after the sub-layers, as published and at its best.
OF_2018: Mapping[str, Trial] = {
    "2018, the former quick start": _OLD,
    "2018, packed, 20 % [MASK], AdamW 1e-3": _OLD_BETTER,
    "2018, the same at 3e-3": _changed(_OLD_BETTER, learning_rate=3e-3),
    "2018, positions from sinusoids": _changed(_OLD_BETTER, model={"position_embedding_init": "sinusoidal"}),
    "2018, sinusoids by formula": _changed(_OLD_BETTER, model={"position_embedding_type": "sinusoidal"}),
    "2018, Muon": _changed(_OLD_BETTER, learning_rate=2e-3, optimizer=_MUON),
    "2018, Muon, positions from sinusoids": _changed(
        _OLD_BETTER, learning_rate=2e-3, optimizer=_MUON, model={"position_embedding_init": "sinusoidal"}
    ),
    "2018 but for rotary positions, AdamW 1e-3": _changed(_OLD_BETTER, model={"position_embedding_type": "rotary"}),
}
TRIALS: Mapping[str, Trial] = {"best": BEST, **OF_2018, **FACTORS}
