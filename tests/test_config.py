"""The architectures have the published sizes, and settings that make no sense are refused in one line."""

import json
import subprocess
import sys

import pytest

from bert_jax.config import PRESETS, BertConfig, preset
from bert_jax.errors import UserError

VOCABULARIES = {"uncased": 30522, "chinese": 21128}


def encoder_parameters(config):
    """Parameters of embeddings, encoder and pooler, from the paper's description."""
    hidden, mlp = config.hidden_size, config.intermediate_size
    tables = (config.vocab_size + config.max_position_embeddings + config.type_vocab_size) * hidden
    norm = 2 * hidden
    attention = 4 * (hidden * hidden + hidden) + norm
    feed_forward = hidden * mlp + mlp + mlp * hidden + hidden + norm
    return tables + norm + config.num_hidden_layers * (attention + feed_forward) + hidden * hidden + hidden


def head_parameters(config):
    """Parameters that the two heads add; the masked-LM head's product is with the word embeddings, which count once."""
    hidden = config.hidden_size
    masked_lm = hidden * hidden + hidden + 2 * hidden + config.vocab_size
    return masked_lm + 2 * hidden + 2


def counted(config):
    """Parameters of the encoder alone and with the heads, as the models report them; nothing is computed."""
    from bert_jax.models.bert import BertForPreTraining, BertModel
    from bert_jax.models.parameters import Functional, count_parameters

    return tuple(
        count_parameters(Functional(lambda rngs, model=model: model(config, rngs=rngs)).abstract(), config.vocab_size)
        for model in (BertModel, BertForPreTraining)
    )


def test_published_parameter_counts(shared_data):
    published = json.loads((shared_data / "golden" / "parameter_counts.json").read_text())
    names = {name for counts in published.values() for name in counts}
    assert names
    for name in names:
        size, vocabulary = name.split("_")
        encoder, with_heads = counted(preset(size, vocab_size=VOCABULARIES[vocabulary]))
        assert encoder == published["encoder_with_pooler"].get(name, encoder)
        assert with_heads == published["with_pretraining_heads"].get(name, with_heads)


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts_by_formula(name):
    # A vocabulary that is padded inside the model, and one that is not.
    for vocab_size in (30522, 8192):
        config = preset(name, vocab_size=vocab_size)
        encoder = encoder_parameters(config)
        assert counted(config) == (encoder, encoder + head_parameters(config))


def test_presets_have_the_published_sizes():
    sizes = {
        name: (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
        for name, config in ((name, preset(name)) for name in PRESETS)
    }
    assert sizes == {
        "tiny": (2, 128, 2, 512),
        "mini": (4, 256, 4, 1024),
        "small": (4, 512, 8, 2048),
        "medium": (8, 512, 8, 2048),
        "base": (12, 768, 12, 3072),
        "large": (24, 1024, 16, 4096),
    }
    config = BertConfig()
    assert (config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == (30522, 512, 2)
    assert (config.initializer_range, config.layer_norm_eps, config.hidden_act) == (0.02, 1e-12, "gelu")
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1


def test_overrides_and_json_round_trip():
    config = preset("mini", vocab_size=100, hidden_act="gelu_tanh", hidden_dropout_prob=0.0)
    assert (config.hidden_size, config.vocab_size, config.hidden_act) == (256, 100, "gelu_tanh")
    assert BertConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    options = preset(
        "base",
        position_embedding_type="sinusoidal",
        layer_norm_placement="pre",
        encoder_output=-2,
        pooling="last_four",
    )
    assert BertConfig.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_a_published_architecture_reads_as_before_there_were_options():
    """Checkpoints of that time open, and runs that began then go on."""
    sizes = BertConfig().to_json()
    assert set(sizes) == {
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "max_position_embeddings",
        "type_vocab_size",
        "initializer_range",
        "layer_norm_eps",
    }
    assert BertConfig.from_json(sizes) == BertConfig()


@pytest.mark.parametrize(
    ("encoder_output", "computed"),
    [("last", 12), ("mixture", 12), (0, 0), (5, 5), (12, 12), (-1, 12), (-2, 11), (-12, 1), (-13, 0)],
)
def test_layers_above_the_one_that_is_read_are_not_computed(encoder_output, computed):
    assert BertConfig(encoder_output=encoder_output).num_computed_layers == computed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": 12.5}, "hidden_size"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers"),
        ({"num_attention_heads": 7}, "must divide"),
        ({"intermediate_size": -1}, "intermediate_size"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"type_vocab_size": -1}, "type_vocab_size"),
        ({"type_vocab_size": False}, "type_vocab_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"hidden_act": "relu"}, "gelu, gelu_tanh"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"position_embedding_type": "relative"}, "position_embedding_type must be one of learned, sinusoidal, rotary"),
        ({"position_embedding_type": "rotary", "hidden_size": 36}, "pairs of dimensions, and a head has 3"),
        ({"position_embedding_type": "rotary", "rotary_base": 1.0}, "rotary_base must be a finite number above 1"),
        ({"position_embedding_type": "rotary", "rotary_base": float("inf")}, "rotary_base"),
        ({"rotary_base": 500.0}, "rotary_base=500.0 is for position_embedding_type='rotary', and that is 'learned'"),
        (
            {"position_embedding_type": "rotary", "position_embedding_init": "sinusoidal"},
            "position_embedding_init='sinusoidal' is for position_embedding_type='learned'",
        ),
        ({"norm_type": "batch_norm"}, "norm_type must be one of layer_norm, rms_norm"),
        ({"feed_forward_type": "mixture"}, "feed_forward_type must be one of plain, gated"),
        ({"use_bias": "no"}, "use_bias must be one of True, False"),
        ({"layer_norm_placement": "none"}, "layer_norm_placement must be one of post, pre"),
        ({"pooling": "sum"}, "pooling must be one of cls, mean, max, last_four, entities"),
        ({"encoder_output": "first"}, "encoder_output must be last, mixture, or a layer from -13 to 12"),
        ({"encoder_output": 13}, "encoder_output"),
        ({"encoder_output": -14}, "encoder_output"),
        ({"encoder_output": True}, "encoder_output"),
        ({"encoder_output": 1.0}, "encoder_output"),
        ({"pooling": "last_four", "num_hidden_layers": 3}, "needs 4 layers, and 3 are computed"),
        ({"pooling": "last_four", "encoder_output": 3}, "needs 4 layers, and 3 are computed"),
        ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob"),
    ],
)
def test_bad_values_are_user_errors(fields, message):
    with pytest.raises(UserError, match=message) as error:
        BertConfig(**fields)
    assert "\n" not in str(error.value)


def test_unknown_names_are_user_errors():
    with pytest.raises(UserError, match=r"'huge'.*tiny, mini"):
        preset("huge")
    with pytest.raises(UserError, match="hidden_width"):
        BertConfig.from_json({"hidden_width": 3})


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"dtype": "float16"}, "float32, bfloat16"), ({"remat": "some"}, "none, full"), ({"unroll": 0}, "unroll")],
)
def test_bad_executions_are_user_errors(fields, message):
    from bert_jax.models.execution import Execution

    with pytest.raises(UserError, match=message):
        Execution(**fields)


def test_settings_are_checked_without_jax_or_tensorflow():
    modules = (
        "bert_jax, bert_jax.config, bert_jax.errors, bert_jax.models.execution, bert_jax.data.masking_recipe,"
        " bert_jax.data.rows, bert_jax.training.recipe, bert_jax.tasks.pretraining_recipe"
    )
    code = f"import sys, {modules}\nprint([n for n in ('jax', 'flax', 'tensorflow') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
