"""The arithmetic of a step by formula, against the compiler's count."""

import jax
import pytest

from bert_jax.config import BertConfig
from bert_jax.data.batches import BatchMaker
from bert_jax.data.masking_recipe import Masking
from bert_jax.models.execution import Execution
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.flops import train_flops
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.train_step import make_train_step

_LAYERS, _ROWS = 3, 2


@pytest.mark.parametrize(
    ("seq_len", "within", "options"),
    [
        (128, 0.05, {}),
        (512, 0.03, {}),
        (128, 0.05, {"encoder_output": 2}),
        (128, 0.05, {"feed_forward_type": "gated", "position_embedding_type": "rotary"}),
        (128, 0.05, {"num_hidden_layers": 4, "pooling": "last_four"}),
    ],
)
def test_formula_is_what_the_compiler_counts(seq_len, within, options):
    # The width of BERT-large; its layers without a loop, whose body the compiler's analysis counts once.
    sizes = {"vocab_size": 8192, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
    config = BertConfig(**{"num_hidden_layers": _LAYERS, **sizes, **options})
    task = PreTraining(config, execution=Execution(dtype="bfloat16", unroll=config.num_hidden_layers))
    optimizer = build_optimizer(Optimizer(), lambda step: 1e-4)
    state = jax.eval_shape(lambda key: create_train_state(task.init(key), optimizer), jax.random.key(0))
    shapes = BatchMaker(None, seq_len, 1, True, None, Masking(), 0).shapes(_ROWS)
    batch = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
    step = make_train_step(task, optimizer, lambda step: 1e-4, seed=0)
    counted = jax.jit(step).lower(state, batch).cost_analysis()["flops"]
    formula = train_flops(config, _ROWS, seq_len, batch["masked_ids"].shape[1], 1)
    # Only products are in the formula: the compiler also counts sums, activations, dropout and the optimizer.
    assert formula < counted
    assert formula == pytest.approx(counted, rel=within)
