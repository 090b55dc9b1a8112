"""How parameters and the optimizer's state are cut, on meshes of any size: no devices are needed to say so."""

import re

import jax
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from bert_jax.config import BertConfig
from bert_jax.parallel.mesh_spec import AXES, MeshSpec
from bert_jax.parallel.sharding import (
    bytes_per_device,
    describe,
    param_shardings,
    rules_for,
    state_shardings,
    with_shardings,
)
from bert_jax.tasks.pretraining import PreTraining
from bert_jax.training.optimizers import build_optimizer
from bert_jax.training.recipe import OPTIMIZERS, Optimizer
from bert_jax.training.train_state import create_train_state
from bert_jax.training.trainable import moments_of_trained, update_factors


@pytest.fixture(scope="module")
def task():
    return PreTraining(
        BertConfig(
            vocab_size=300,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=40,
        )
    )


def abstract_mesh(**sizes):
    return AbstractMesh(MeshSpec(**sizes).sizes, AXES)


def specs(task, **sizes):
    """Returns how each parameter is cut, by its path."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    shardings = param_shardings(abstract_mesh(**sizes), task.logical_axes(), shapes)
    leaves = jax.tree_util.tree_leaves_with_path(shardings)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec for path, leaf in leaves}


def test_data_alone_cuts_nothing(task):
    assert rules_for(abstract_mesh(data=8)) == {}
    assert all(axis is None for spec in specs(task, data=8).values() for axis in spec)


def test_fsdp_and_tensor_cut_what_the_rules_name(task):
    cut = specs(task, data=2, fsdp=2, tensor=2)
    layer = "bert/encoder/layers"
    assert cut["bert/embeddings/word_embeddings/embedding"] == PartitionSpec("tensor", "fsdp")
    assert cut[f"{layer}/attention/query/kernel"] == PartitionSpec(None, "fsdp", "tensor", None)
    assert cut[f"{layer}/attention/query/bias"] == PartitionSpec(None, "tensor", None)
    assert cut[f"{layer}/attention/output/kernel"] == PartitionSpec(None, "tensor", None, "fsdp")
    assert cut[f"{layer}/feed_forward/intermediate/kernel"] == PartitionSpec(None, "fsdp", "tensor")
    assert cut[f"{layer}/feed_forward/output/kernel"] == PartitionSpec(None, "tensor", "fsdp")
    assert cut["masked_lm/bias"] == PartitionSpec("tensor")
    # No matrix is left whole under fsdp: that would be gradients and moments on every device.
    whole = [name for name, spec in specs(task, fsdp=8).items() if "fsdp" not in spec]
    assert all(name.endswith("bias") for name in whole), whole


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_no_axis_of_the_mesh_cuts_an_array_twice_and_every_piece_is_whole(task, sizes):
    mesh = abstract_mesh(**sizes)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    shardings = param_shardings(mesh, task.logical_axes(), shapes)

    def check(leaf, sharding):
        used = [axis for axis in sharding.spec if axis is not None]
        assert len(used) == len(set(used))
        for size, axis in zip(leaf.shape, sharding.spec, strict=True):
            assert axis is None or size % mesh.shape[axis] == 0

    jax.tree.map(check, shapes, shardings)


def test_an_axis_of_the_mesh_is_used_once_in_an_array():
    shapes, axes = {"w": jax.ShapeDtypeStruct((8, 8), "float32")}, {"w": ("heads", "mlp")}
    mesh = abstract_mesh(tensor=2)
    assert param_shardings(mesh, axes, shapes)["w"].spec == PartitionSpec("tensor", None)
    assert "w along mlp: tensor already cuts another of its axes" in describe(mesh, axes, shapes)[-1]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_moments_lie_where_their_parameters_do(task, kind):
    rate = optax.constant_schedule(1e-3)
    optimizer = build_optimizer(Optimizer(kind=kind), rate, logical_axes=task.logical_axes())
    state = jax.eval_shape(lambda key: create_train_state(task.init(key), optimizer), jax.random.key(0))
    shardings = state_shardings(abstract_mesh(fsdp=4, tensor=2), task.logical_axes(), state)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    parameters = specs(task, fsdp=4, tensor=2)
    found = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(shardings.opt_state):
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        if moment := re.search("/(mu|nu)/(.+)", place):
            assert leaf.spec == parameters[moment[2]], place
            found.add(moment.groups())
        else:
            assert leaf.spec == PartitionSpec(), place
    assert {name for moment, name in found if moment == "mu"} == parameters.keys()
    assert shardings.step.spec == PartitionSpec()


@pytest.mark.parametrize("frozen_layers", [1, 3])
def test_moments_of_some_layers_are_cut_as_those_of_all(task, frozen_layers):
    factors = update_factors(jax.eval_shape(task.init, jax.random.key(0)), frozen_layers=frozen_layers)
    optimizer = build_optimizer(Optimizer(), optax.constant_schedule(1e-3), moments_of_trained(factors))
    state = jax.eval_shape(lambda key: create_train_state(task.init(key), optimizer), jax.random.key(0))
    shardings = state_shardings(abstract_mesh(fsdp=4, tensor=2), task.logical_axes(), state)
    parameters = specs(task, fsdp=4, tensor=2)
    moments = {
        jax.tree_util.keystr(path, simple=True, separator="/").partition("/mu/")[2]: leaf.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(shardings.opt_state)
    }
    moments.pop("")
    assert moments == {name: parameters[name] for name in moments}
    assert any("/layers/" in name for name in moments) == (frozen_layers < 3)
    assert not any("/embeddings/" in name for name in moments)


def test_the_average_lies_where_its_parameters_do(task):
    optimizer = build_optimizer(Optimizer(), optax.constant_schedule(1e-3))
    state = jax.eval_shape(lambda key: create_train_state(task.init(key), optimizer, with_ema=True), jax.random.key(0))
    shardings = state_shardings(abstract_mesh(fsdp=4, tensor=2), task.logical_axes(), state)
    assert shardings.ema == shardings.params


def test_what_each_device_holds(task):
    state = jax.eval_shape(task.init, jax.random.key(0))
    whole = bytes_per_device(with_shardings(state, param_shardings(abstract_mesh(), task.logical_axes(), state)))
    assert whole == sum(4 * leaf.size for leaf in jax.tree.leaves(state))
    cut = bytes_per_device(with_shardings(state, param_shardings(abstract_mesh(fsdp=8), task.logical_axes(), state)))
    assert whole / 8 < cut < whole / 8 + 4000


def test_what_does_not_divide_is_whole_and_listed(task):
    """The vocabulary's 384 rows divide by 3, the 64 of the feed-forward network do not."""
    cut = specs(task, tensor=3)
    assert cut["bert/embeddings/word_embeddings/embedding"] == PartitionSpec("tensor", None)
    assert cut["bert/encoder/layers/feed_forward/output/kernel"] == PartitionSpec(None, None, None)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    lines = describe(abstract_mesh(tensor=3), task.logical_axes(), shapes)
    reason = "mlp: 64 does not divide over tensor:3"
    assert f"  not cut: bert/encoder/layers/feed_forward/output/kernel along {reason}" in lines
    assert not any("word_embeddings" in line for line in lines)
    assert not any("not cut" in line for line in describe(abstract_mesh(fsdp=8), task.logical_axes(), shapes))
