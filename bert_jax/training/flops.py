"""How much arithmetic a training step is, by formula, and how much a chip could do.

Only matrix products are counted, two operations per multiply-add, and three times the forward pass for forward and
backward together (Kaplan et al. 2020; Chowdhery et al. 2022, appendix B); what rematerialisation repeats is not
counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.config import BertConfig

# Peak dense bfloat16 FLOP/s of one device as JAX counts devices, by the beginning of `device_kind`; from the vendors'
# data sheets. The first that fits counts.
PEAK_FLOPS = {
    "TPU v2": 23e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
}


def forward_flops(config: BertConfig, batch_size: int, seq_len: int, num_predictions: int, num_pairs: int) -> int:
    """Returns the operations of one forward pass of BERT with its pre-training heads.

    Args:
        config: the architecture.
        batch_size: rows.
        seq_len: tokens of a row, padding included.
        num_predictions: masked positions of a row.
        num_pairs: pooled pairs of a row.
    """
    hidden = config.hidden_size
    maps = 3 if config.feed_forward_type == "gated" else 2
    projections = 4 * hidden * hidden + maps * hidden * config.intermediate_size
    attention = 2 * seq_len * hidden
    layers = config.num_computed_layers * seq_len * (projections + attention)
    masked_lm = num_predictions * (hidden * hidden + hidden * config.vocab_size)
    next_sentence = num_pairs * (config.num_pooled_vectors * hidden * hidden + 2 * hidden)
    return 2 * batch_size * (layers + masked_lm + next_sentence)


def train_flops(config: BertConfig, batch_size: int, seq_len: int, num_predictions: int, num_pairs: int) -> int:
    """Returns the operations of one training step; arguments as of `forward_flops`."""
    return 3 * forward_flops(config, batch_size, seq_len, num_predictions, num_pairs)


def peak_flops(device_kind: str) -> float | None:
    """Returns the peak bfloat16 FLOP/s of a device, or None where it is not known."""
    return next((peak for kind, peak in PEAK_FLOPS.items() if device_kind.startswith(kind)), None)


def arithmetic_seconds(
    config: BertConfig,
    shapes: Mapping[str, tuple[tuple[int, ...], Any]],
    devices: Sequence[Any],
    peak_tflops: float | None = None,
) -> float | None:
    """Returns how long a pre-training step would take if the devices did its arithmetic at their peak.

    Args:
        config: the architecture, with its vocabulary's size.
        shapes: shape and dtype of each array of the step's batch.
        devices: all that share the step; of one kind.
        peak_tflops: of one device, in 10**12 operations a second; taken from PEAK_FLOPS if None.

    Returns:
        Seconds, or None where the devices' peak is not known.
    """
    peak = peak_tflops * 1e12 if peak_tflops else peak_flops(devices[0].device_kind)
    if peak is None:
        return None
    (batch_size, seq_len), _ = shapes["input_ids"]
    (_, num_predictions), _ = shapes["masked_positions"]
    (_, num_pairs), _ = shapes["cls_positions"]
    return train_flops(config, batch_size, seq_len, num_predictions, num_pairs) / (peak * len(devices))
