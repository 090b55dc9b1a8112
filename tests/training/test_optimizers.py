"""Optimizers against references in numpy (float64), written from the papers and the original's formulas."""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from bert_jax.errors import UserError
from bert_jax.training import optimizers
from bert_jax.training.recipe import OPTIMIZERS, Optimizer, Schedule
from bert_jax.training.schedules import build_schedule

SHARED = pathlib.Path(os.environ.get("BERT_JAX_SHARED", pathlib.Path(__file__).resolve().parents[2].parent / "shared"))
GOLDEN = SHARED / "data" / "golden" / "bert_adamw.json"
LAYERS = 3
LEARNING_RATE = 0.01


def make_params(seed=0):
    """A small tree with the names of the real one; layers are stacked."""
    random = np.random.default_rng(seed)

    def values(*shape, scale=0.5):
        return jnp.asarray(scale * random.standard_normal(shape), jnp.float32)

    # Layers of very different norms, so that a ratio per stack would show.
    per_layer = jnp.asarray([1.0, 10.0, 0.1]).reshape(LAYERS, 1, 1)
    return {
        "embeddings": {
            "word": {"embedding": values(11, 4)},
            "layer_norm": {"scale": values(4), "bias": values(4)},
        },
        "encoder": {
            "layers": {
                "attention": {"query": {"kernel": per_layer * values(LAYERS, 4, 4), "bias": values(LAYERS, 4)}},
                "mlp_layer_norm": {"scale": values(LAYERS, 4), "bias": values(LAYERS, 4)},
            }
        },
        "mlm": {"output_bias": values(11)},
    }


AXES = {
    "embeddings": {"word": {"embedding": ("vocab", "embed")}, "layer_norm": {"scale": ("embed",), "bias": ("embed",)}},
    "encoder": {
        "layers": {
            "attention": {"query": {"kernel": ("layers", "embed", "mlp"), "bias": ("layers", "mlp")}},
            "mlp_layer_norm": {"scale": ("layers", "embed"), "bias": ("layers", "embed")},
        }
    },
    "mlm": {"output_bias": ("vocab",)},
}
DECAYED = {"embeddings/word/embedding", "encoder/layers/attention/query/kernel"}


def flat(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(optimizers.path_names(path)): leaf for path, leaf in leaves}


def reference(params, all_gradients, o, corrects_bias):
    """Runs `o` for some steps on separate tensors: one for each layer, as in an unstacked model."""
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in flat(params).items()}
    mean = {name: np.zeros_like(leaf) for name, leaf in weights.items()}
    square = {name: np.zeros_like(leaf) for name, leaf in weights.items()}
    for step, tree in enumerate(all_gradients, start=1):
        gradients = {name: np.asarray(leaf, np.float64) for name, leaf in flat(tree).items()}
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
        clip = o.clip_global_norm / max(norm, o.clip_global_norm) if o.clip_global_norm else 1.0
        for name, gradient in gradients.items():
            gradient = gradient * clip
            mean[name] = o.b1 * mean[name] + (1 - o.b1) * gradient
            square[name] = o.b2 * square[name] + (1 - o.b2) * gradient**2
            m, v = mean[name], square[name]
            if corrects_bias:
                m, v = m / (1 - o.b1**step), v / (1 - o.b2**step)
            update = m / (np.sqrt(v) + o.eps)
            if name in DECAYED:
                update = update + o.weight_decay * weights[name]
            if o.kind == "lamb" and name in DECAYED:
                if "/layers/" in name:
                    for layer in range(LAYERS):
                        update[layer] *= np.linalg.norm(weights[name][layer]) / np.linalg.norm(update[layer])
                else:
                    update = update * np.linalg.norm(weights[name]) / np.linalg.norm(update)
            weights[name] = weights[name] - LEARNING_RATE * update
    return weights


def train(optimizer, schedule, params, all_gradients, state=None):
    transformation = optimizers.build_optimizer(optimizer, schedule, logical_axes=AXES)
    state = transformation.init(params) if state is None else state

    @jax.jit
    def step(params, state, gradients):
        updates, state = transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for gradients in all_gradients:
        params, state = step(params, state, gradients)
    return params, state


@pytest.mark.parametrize(
    "optimizer, corrects_bias",
    [
        (Optimizer("bert_adamw"), False),
        (Optimizer("bert_adamw", bias_correction=True, clip_global_norm=None, weight_decay=0.1), True),
        (Optimizer("bert_adamw", clip_global_norm=1e6, b1=0.8, b2=0.98), False),
        (Optimizer("adamw", weight_decay=0.05), True),
        (Optimizer("lamb"), True),
        (Optimizer("lamb", bias_correction=False, weight_decay=0.0), False),
    ],
    ids=lambda value: value.kind if isinstance(value, Optimizer) else str(value),
)
def test_five_steps_are_those_of_the_reference(optimizer, corrects_bias):
    params = make_params()
    all_gradients = [make_params(seed) for seed in range(1, 6)]
    got, _ = train(optimizer, optax.constant_schedule(LEARNING_RATE), params, all_gradients)
    expected = reference(params, all_gradients, optimizer, corrects_bias)
    for name, leaf in flat(got).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.skipif(not GOLDEN.exists(), reason="shared/data/golden/bert_adamw.json is not here")
def test_golden_steps_of_the_original():
    golden = json.loads(GOLDEN.read_text())
    optimizer = Optimizer(
        "bert_adamw",
        b1=golden["b1"],
        b2=golden["b2"],
        eps=golden["eps"],
        weight_decay=golden["weight_decay"],
    )
    params = {"dense": {"kernel": jnp.asarray(golden["w0"], jnp.float32)}}
    gradients = {"dense": {"kernel": jnp.asarray(golden["gradient_each_step"], jnp.float32)}}
    for steps, expected in enumerate(golden["w_after_each_step"], start=1):
        got, _ = train(optimizer, optax.constant_schedule(golden["learning_rate"]), params, [gradients] * steps)
        np.testing.assert_allclose(got["dense"]["kernel"], expected, rtol=0, atol=1e-7)


def test_lamb_of_a_stack_is_lamb_of_its_layers_and_not_optax_lamb():
    stack = {"encoder": {"layers": make_params()["encoder"]["layers"]}}
    gradients = [{"encoder": {"layers": make_params(seed)["encoder"]["layers"]}} for seed in (1, 2)]
    # Clipping by global norm sees the whole tree, which is another tree when there is one layer.
    optimizer = Optimizer("lamb", clip_global_norm=None)
    schedule = optax.constant_schedule(LEARNING_RATE)
    stacked, _ = train(optimizer, schedule, stack, gradients)
    for layer in range(LAYERS):
        own, own_gradients = jax.tree.map(
            lambda leaf, layer=layer: leaf[layer], (stack["encoder"]["layers"], gradients)
        )
        alone, _ = train(
            optimizer, schedule, {"layer": own}, [{"layer": g["encoder"]["layers"]} for g in own_gradients]
        )
        for name, leaf in flat(alone["layer"]).items():
            np.testing.assert_allclose(flat(stacked["encoder"]["layers"])[name][layer], leaf, rtol=1e-6, atol=1e-7)
    per_stack = optax.lamb(LEARNING_RATE, eps=1e-6, weight_decay=0.01, mask=optimizers.decay_mask)
    updates, _ = per_stack.update(gradients[0], per_stack.init(stack), stack)
    ours, _ = train(optimizer, schedule, stack, gradients[:1])
    kernel = ("encoder", "layers", "attention", "query", "kernel")
    theirs = optax.apply_updates(stack, updates)
    assert not np.allclose(flat(ours)["/".join(kernel)], flat(theirs)["/".join(kernel)], rtol=1e-3)


def test_trust_ratio_is_one_where_a_norm_is_zero():
    params = {"encoder": {"layers": {"kernel": jnp.asarray([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])}}}
    updates = {"encoder": {"layers": {"kernel": jnp.asarray([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])}}}
    transformation = optimizers.scale_by_layer_trust_ratio()
    scaled, _ = transformation.update(updates, transformation.init(params), params)
    np.testing.assert_allclose(scaled["encoder"]["layers"]["kernel"], [[1, 0], [0, 0], [0, 5]])


def test_masks_go_by_name_and_not_by_rank():
    mask = flat(optimizers.decay_mask(make_params()))
    assert {name for name, decayed in mask.items() if decayed} == DECAYED
    # A stacked bias is a matrix, and a vector that is neither bias nor LayerNorm is decayed all the same.
    assert flat(optimizers.decay_mask({"head": {"query": jnp.zeros(3), "bias_free": jnp.zeros(3)}})) == {
        "head/query": True,
        "head/bias_free": True,
    }
    # Weights over layers are no matrix of features.
    assert not any(
        flat(optimizers.decay_mask({"layer_mixture": {"weights": jnp.zeros(3), "gamma": jnp.ones(())}})).values()
    )


def test_layer_axes():
    paths, _ = jax.tree_util.tree_flatten_with_path(make_params())
    axes = {"/".join(optimizers.path_names(path)): optimizers.number_of_layer_axes(path) for path, _ in paths}
    assert {name for name, count in axes.items() if count == 1} == {name for name in axes if "/layers/" in name}
    assert set(axes.values()) == {0, 1}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_counts_the_steps_of_the_schedule(kind):
    schedule = build_schedule(Schedule("linear", warmup_steps=2), 1.0, 4)
    optimizer = Optimizer(kind, weight_decay=0.0, clip_global_norm=None)
    gradients = {"mlm": {"output_bias": jnp.ones(2)}}
    params = {"mlm": {"output_bias": jnp.zeros(2)}}
    moved = []
    for steps in range(1, 6):
        got, _ = train(optimizer, schedule, params, [gradients] * steps)
        moved.append(float(got["mlm"]["output_bias"][0]))
    rates = -np.diff([0.0, *moved])
    assert rates[0] == 0, "the first step of the warm-up has rate 0"
    assert rates[4] == 0, "after the last step nothing moves"
    assert all(rates[1:4] > 0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_restored_state_goes_on_bit_for_bit(kind, tmp_path):
    schedule = build_schedule(Schedule("linear", warmup_steps=2), 0.1, 8)
    optimizer = Optimizer(kind)
    gradients = [make_params(seed) for seed in range(1, 7)]
    whole, _ = train(optimizer, schedule, make_params(), gradients)
    params, state = train(optimizer, schedule, make_params(), gradients[:3])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert moments and all(leaf.dtype == jnp.float32 for leaf in moments)

    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", (params, state))
        checkpointer.wait_until_finished()
        params, state = checkpointer.restore(tmp_path / "state", (params, state))
    resumed, _ = train(optimizer, schedule, params, gradients[3:], state)
    for name, leaf in flat(whole).items():
        np.testing.assert_array_equal(leaf, flat(resumed)[name], err_msg=name)


@pytest.mark.parametrize(
    ("kind", "before", "count"), [("bert_adamw", "1", "4"), ("adamw", "1/0", "1/2"), ("lamb", "1", "4")]
)
def test_the_state_lies_where_it_did_in_checkpoints_of_earlier_versions(kind, before, count):
    params = make_params()
    state = optimizers.build_optimizer(Optimizer(kind), lambda _: 0.1).init(params)
    moments = {f"{before}/{moment}/{name}" for moment in ("mu", "nu") for name in flat(params)}
    assert flat(state).keys() == moments | {f"{before}/count", f"{count}/count"}


def test_an_optimizer_is_a_function_and_a_line_of_the_registry(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "sign", f"{__name__}:sign_descent")
    params, gradients = {"w": jnp.ones(3)}, {"w": jnp.asarray([5.0, -2.0, 0.0])}
    got, _ = train(Optimizer("sign"), optax.constant_schedule(0.1), params, [gradients])
    np.testing.assert_allclose(got["w"], [0.9, 1.1, 1.0])


def sign_descent(parts):
    """As a package of others would have it."""
    return optax.chain(parts.clip, optax.scale_by_sign(), parts.rate)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_identity_holds_what_is_said_of_this_kind(kind):
    """Of the kinds of before there was Muon nothing else than before, or their runs would not go on."""
    before = {"kind", "b1", "b2", "eps", "weight_decay", "bias_correction", "clip_global_norm"}
    fields = Optimizer(kind).to_json()
    own = {"muon_learning_rate_factor", "muon_momentum"} if kind == "muon" else set()
    assert fields.keys() == before | own and Optimizer(**json.loads(json.dumps(fields))) == Optimizer(kind)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Optimizer("adam"), "bert_adamw, adamw, lamb, muon"),
        (lambda: Optimizer(b1=1.0), "b1"),
        (lambda: Optimizer(b2=-0.1), "b2"),
        (lambda: Optimizer(eps=0.0), "eps"),
        (lambda: Optimizer(weight_decay=-0.01), "weight_decay"),
        (lambda: Optimizer(clip_global_norm=0.0), "clip_global_norm"),
        (lambda: Optimizer(bias_correction="yes"), "bias_correction"),
        (lambda: Optimizer("adamw", bias_correction=False), "bert_adamw"),
        (lambda: Optimizer("muon", muon_momentum=1.0), "muon_momentum must be .* below 1, not 1.0"),
        (lambda: Optimizer("muon", muon_learning_rate_factor=0.0), "muon_learning_rate_factor must be .* above 0"),
        (lambda: Optimizer("adamw", muon_momentum=0.9), "muon_momentum needs Optimizer.kind='muon', not 'adamw'"),
        (lambda: Optimizer(muon_learning_rate_factor=1.0), "needs Optimizer.kind='muon', not 'bert_adamw'"),
    ],
)
def test_mistakes_are_said(make, says):
    with pytest.raises(UserError, match=says):
        make()
