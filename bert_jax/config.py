"""The dimensions of a BERT, under the names that the field uses, and the published presets.

Source of the sizes: Devlin et al. 2018 (base, large) and Turc et al. 2019 (tiny, mini, small, medium).
"""

import dataclasses
import math
from typing import Any

from bert_jax.errors import UserError

ACTIVATIONS = ("gelu", "gelu_tanh", "silu")
# Each option's choices, the published one first.
POSITION_EMBEDDING_TYPES = ("learned", "sinusoidal", "rotary")
POSITION_EMBEDDING_INITS = ("normal", "sinusoidal")
LAYER_NORM_PLACEMENTS = ("post", "pre", "pre_and_embeddings")
NORM_TYPES = ("layer_norm", "rms_norm")
FEED_FORWARD_TYPES = ("plain", "gated")
POOLINGS = ("cls", "mean", "max", "last_four", "entities")
# Layers whose [CLS] vectors the pooling "last_four" joins.
LAST_FOUR = 4


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The architecture: all that the shapes and the arithmetic of a model depend on.

    The fields from position_embedding_type on are options beside the published BERT, which is what their defaults are.

    Attributes:
        vocab_size: number of word pieces; None means "that of the tokenizer", to be filled in before a model is built.
        hidden_size: width of every token vector.
        num_hidden_layers: number of encoder layers.
        num_attention_heads: heads per layer; must divide hidden_size.
        intermediate_size: width of the feed-forward layer.
        hidden_act: "gelu" (exact, by erf), "gelu_tanh" (the approximation of Google's code) or "silu".
        hidden_dropout_prob: dropout after the embeddings and after each sub-layer.
        attention_probs_dropout_prob: dropout of the attention weights.
        max_position_embeddings: the longest sequence.
        type_vocab_size: number of token types (segments A and B); 0 for a model that does not tell them apart.
        initializer_range: standard deviation of the truncated-normal initial values.
        layer_norm_eps: added to the variance in LayerNorm.
        position_embedding_type: "learned"; or without parameters "sinusoidal" (Vaswani et al. 2017, section 3.5) or
            "rotary", rotations of queries and keys (Su et al. 2021).
        rotary_base: of "rotary": the larger, the farther apart two positions are still told from nearer ones.
        position_embedding_init: what "learned" ones begin as: "normal", like words; or "sinusoidal", those of the
            formula, as large as words are.
        layer_norm_placement: "post", LayerNorm after each residual sum; "pre", before each sub-layer (Xiong et al.
            2020): none after the embeddings then, and a final one through which every state is read; or
            "pre_and_embeddings", which has one after the embeddings instead of the one before the first layer's
            attention (Warner et al. 2024, section 2.1.1).
        norm_type: "layer_norm", or "rms_norm" (Zhang and Sennrich 2019), which neither centres nor has a bias.
        use_bias: whether the linear maps of the layers and of the masked-LM head's transform have biases, and all
            norms. The output of each head has one always.
        feed_forward_type: "plain"; or "gated" (Shazeer 2020), with a third map of the input that the activated
            intermediate values are multiplied by: GeGLU with "gelu", SwiGLU with "silu".
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
    rotary_base: float = 10000.0
    position_embedding_init: str = "normal"
    layer_norm_placement: str = "post"
    norm_type: str = "layer_norm"
    use_bias: bool = True
    feed_forward_type: str = "plain"
    encoder_output: int | str = "last"
    pooling: str = "cls"

    def __post_init__(self):
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ):
            value = getattr(self, name)
            if not _is_count(value):
                raise UserError(f"BertConfig.{name} must be a positive whole number{_below(value)}, not {value!r:.60}")
        types = self.type_vocab_size
        if not _is_count(types) and (types != 0 or not isinstance(types, int) or isinstance(types, bool)):
            raise UserError(
                f"BertConfig.type_vocab_size must be a whole number, at least 0{_below(types)}, not {types!r:.60}"
            )
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
            ("position_embedding_init", POSITION_EMBEDDING_INITS),
            ("layer_norm_placement", LAYER_NORM_PLACEMENTS),
            ("norm_type", NORM_TYPES),
            ("use_bias", (True, False)),
            ("feed_forward_type", FEED_FORWARD_TYPES),
            ("pooling", POOLINGS),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"BertConfig.{name} must be one of {', '.join(map(str, choices))}, not {getattr(self, name)!r:.60}"
                )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise UserError(f"BertConfig.{name} must be a number, at least 0 and below 1, not {value!r:.60}")
        for name in ("initializer_range", "layer_norm_eps"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise UserError(f"BertConfig.{name} must be a number between 0 and 1, not {value!r:.60}")
        self._check_positions()
        self._check_encoder_output()

    def _check_positions(self) -> None:
        kind, base, head_size = self.position_embedding_type, self.rotary_base, self.head_size
        if not isinstance(base, int | float) or isinstance(base, bool) or not 1 < base < math.inf:
            raise UserError(f"BertConfig.rotary_base must be a finite number above 1, not {base!r:.60}")
        for name, needed in (("rotary_base", "rotary"), ("position_embedding_init", "learned")):
            if getattr(self, name) != _DEFAULTS[name] and kind != needed:
                raise UserError(
                    f"BertConfig.{name}={getattr(self, name)!r:.60} is for position_embedding_type={needed!r}, and that"
                    f" is {kind!r}: leave one of them out"
                )
        if kind == "rotary" and head_size % 2:
            raise UserError(
                f"BertConfig.position_embedding_type='rotary' turns pairs of dimensions, and a head has {head_size}:"
                " make BertConfig.hidden_size / BertConfig.num_attention_heads even"
            )

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
    def head_size(self) -> int:
        """The width of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def is_pre_norm(self) -> bool:
        """Whether norms come before the sub-layers, and a final one at the end."""
        return self.layer_norm_placement != "post"

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
        names = list(_DEFAULTS)
        options = names[names.index("position_embedding_type") :]
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in options or value != _DEFAULTS[name]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "BertConfig":
        """Inverse of `to_json`; names that are no field are a UserError."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise UserError(f"unknown field of the architecture: {', '.join(unknown):.200}")
        return cls(**fields)


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(BertConfig)}


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
