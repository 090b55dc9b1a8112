"""The dimensions of a BERT, under the names that the field uses, and the published presets.

Source of the sizes: Devlin et al. 2018 (base, large) and Turc et al. 2019 (tiny, mini, small, medium).
"""

import dataclasses
from typing import Any

from bert_jax.errors import UserError

ACTIVATIONS = ("gelu", "gelu_tanh")
# Each option's choices, the published one first.
POSITION_EMBEDDING_TYPES = ("learned", "sinusoidal")
LAYER_NORM_PLACEMENTS = ("post", "pre")
POOLINGS = ("cls", "mean", "max", "last_four", "entities")
# Layers whose [CLS] vectors the pooling "last_four" joins.
LAST_FOUR = 4


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The architecture: all that the shapes and the arithmetic of a model depend on.

    The last four fields are options beside the published BERT, which is what their defaults are.

    Attributes:
        vocab_size: number of word pieces; None means "that of the tokenizer", to be filled in before a model is built.
        hidden_size: width of every token vector.
        num_hidden_layers: number of encoder layers.
        num_attention_heads: heads per layer; must divide hidden_size.
        intermediate_size: width of the feed-forward layer.
        hidden_act: "gelu" (exact, by erf) or "gelu_tanh" (the approximation of Google's code).
        hidden_dropout_prob: dropout after the embeddings and after each sub-layer.
        attention_probs_dropout_prob: dropout of the attention weights.
        max_position_embeddings: the longest sequence.
        type_vocab_size: number of token types (segments A and B).
        initializer_range: standard deviation of the truncated-normal initial values.
        layer_norm_eps: added to the variance in LayerNorm.
        position_embedding_type: "learned", or "sinusoidal" (Vaswani et al. 2017, section 3.5), which has no parameters.
        layer_norm_placement: "post", LayerNorm after each residual sum; or "pre", before each sub-layer (Xiong et al.
            2020): none after the embeddings then, and a final one through which every state is read.
        encoder_output: what the heads read of the encoder: "last", the last layer's output; "mixture", a learned
            weighting of all (Peters et al. 2018); or the number of a layer, 0 for the embeddings' output, negative from
            the end. The layers above that one are kept, and not computed.
        pooling: what the pooler reads of a text or pair: "cls", the vector of [CLS]; "mean" or "max" over its tokens,
            [CLS] and [SEP] included; "last_four", the vectors of [CLS] after the last four layers, joined; or
            "entities", those of two marked entities, joined (Baldini Soares et al. 2019, section 3.2, "entity start"),
            for relations alone, whose rows say where the entities are.
    """

    vocab_size: int | None = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    position_embedding_type: str = "learned"
    layer_norm_placement: str = "post"
    encoder_output: int | str = "last"
    pooling: str = "cls"

    def __post_init__(self):
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            value = getattr(self, name)
            if not _is_count(value):
                raise UserError(f"BertConfig.{name} must be a positive whole number{_below(value)}, not {value!r:.60}")
        if self.vocab_size is not None and not _is_count(self.vocab_size):
            value = self.vocab_size
            raise UserError(
                f"BertConfig.vocab_size must be a positive whole number{_below(value)} or None, not {value!r:.60}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"BertConfig.num_attention_heads ({self.num_attention_heads}) must divide"
                f" BertConfig.hidden_size ({self.hidden_size})"
            )
        for name, choices in (
            ("hidden_act", ACTIVATIONS),
            ("position_embedding_type", POSITION_EMBEDDING_TYPES),
            ("layer_norm_placement", LAYER_NORM_PLACEMENTS),
            ("pooling", POOLINGS),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"BertConfig.{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r:.60}"
                )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise UserError(f"BertConfig.{name} must be a number, at least 0 and below 1, not {value!r:.60}")
        for name in ("initializer_range", "layer_norm_eps"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise UserError(f"BertConfig.{name} must be a number between 0 and 1, not {value!r:.60}")
        self._check_encoder_output()

    def _check_encoder_output(self) -> None:
        layers, output = self.num_hidden_layers, self.encoder_output
        is_layer = isinstance(output, int) and not isinstance(output, bool) and -layers - 1 <= output <= layers
        if output not in ("last", "mixture") and not is_layer:
            raise UserError(
                f"BertConfig.encoder_output must be last, mixture, or a layer from {-layers - 1} to {layers}"
                f" (0 is the embeddings' output), not {output!r:.60}"
            )
        if self.pooling == "last_four" and self.num_computed_layers < LAST_FOUR:
            raise UserError(
                f"BertConfig.pooling='last_four' needs {LAST_FOUR} layers, and {self.num_computed_layers} are computed:"
                " set another pooling, BertConfig.num_hidden_layers or BertConfig.encoder_output"
            )

    @property
    def num_computed_layers(self) -> int:
        """The number of layers up to the one that `encoder_output` reads."""
        if isinstance(self.encoder_output, str):
            return self.num_hidden_layers
        return self.encoder_output % (self.num_hidden_layers + 1)

    @property
    def num_pooled_vectors(self) -> int:
        """How many vectors the pooler reads of a text or pair, joined."""
        return {"last_four": LAST_FOUR, "entities": 2}.get(self.pooling, 1)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dict of JSON values, without the options that are as published.

        So a published BERT reads the same as before there were options.
        """
        options = ("position_embedding_type", "layer_norm_placement", "encoder_output", "pooling")
        off = {field.name: field.default for field in dataclasses.fields(self) if field.name in options}
        return {name: value for name, value in dataclasses.asdict(self).items() if (name, value) not in off.items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "BertConfig":
        """Inverse of `to_json`; names that are no field are a UserError."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise UserError(f"unknown field of the architecture: {', '.join(unknown):.200}")
        return cls(**fields)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _below(value: Any) -> str:
    """Names the upper bound, which only a number above it has to do with; shapes and ids have 32 bits."""
    return " below 2^31" if isinstance(value, int) and value >= 2**31 else ""


def _sizes(hidden_size: int, num_hidden_layers: int) -> dict[str, int]:
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": hidden_size // 64,
        "intermediate_size": 4 * hidden_size,
    }


PRESETS = {
    "tiny": _sizes(128, 2),
    "mini": _sizes(256, 4),
    "small": _sizes(512, 4),
    "medium": _sizes(512, 8),
    "base": _sizes(768, 12),
    "large": _sizes(1024, 24),
}


def preset(name: str, **overrides: Any) -> BertConfig:
    """Returns the published architecture of that name, with the given fields replaced."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return BertConfig(**{**PRESETS[name], **overrides})
