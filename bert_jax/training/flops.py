"""How much arithmetic a training step is, by formula, and how much a chip could do.

Only matrix products are counted, two operations per multiply-add, and three times the forward pass for forward and
backward together (Kaplan et al. 2020; Chowdhery et al. 2022, appendix B); what rematerialisation repeats is not
counted.
"""

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
    projections = 4 * hidden * hidden + 2 * hidden * config.intermediate_size
    attention = 2 * seq_len * hidden
    layers = config.num_hidden_layers * seq_len * (projections + attention)
    masked_lm = num_predictions * (hidden * hidden + hidden * config.vocab_size)
    next_sentence = num_pairs * (hidden * hidden + 2 * hidden)
    return 2 * batch_size * (layers + masked_lm + next_sentence)


def train_flops(config: BertConfig, batch_size: int, seq_len: int, num_predictions: int, num_pairs: int) -> int:
    """Returns the operations of one training step; arguments as of `forward_flops`."""
    return 3 * forward_flops(config, batch_size, seq_len, num_predictions, num_pairs)


def peak_flops(device_kind: str) -> float | None:
    """Returns the peak bfloat16 FLOP/s of a device, or None where it is not known."""
    return next((peak for kind, peak in PEAK_FLOPS.items() if device_kind.startswith(kind)), None)
