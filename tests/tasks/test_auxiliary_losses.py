"""Losses beside that of the task: the loss is their weighted sum, and what is evaluated is the task alone."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.models.dropout import fold_in_each, row_keys
from bert_jax.models.execution import Execution
from bert_jax.models.parameters import restrict
from bert_jax.models.registry import build_layer_head, build_model
from bert_jax.tasks.auxiliary_losses import check_auxiliary_losses, with_further_losses
from bert_jax.tasks.encoding.encoded_rows import EncodedRows, Row
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.layer_heads import _FIRST_HEAD
from bert_jax.tasks.objectives import ChoiceObjective, SpanObjective, TextObjective, TokenObjective
from bert_jax.tasks.pretraining_losses import _VIEW_PASS
from bert_jax.training.train_step import loss_and_gradients

_CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    initializer_range=0.2,
)
_CALM = dataclasses.replace(_CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
_ROWS, _LENGTH = 4, 10
_KEYS = row_keys(jax.random.key(1), np.arange(_ROWS))
_ALL = {"mlm_weight": 0.5, "nsp_weight": 0.25, "auxiliary_layers": (1, 2), "auxiliary_weight": 0.125}


def _tokens(draw, shape):
    used = np.arange(shape[-1]) < draw.integers(3, shape[-1] + 1, (*shape[:-1], 1))
    return {
        "input_ids": np.where(used, draw.integers(5, 40, shape), 0).astype(np.int32),
        "token_type_ids": np.zeros(shape, np.int32),
        "position_ids": np.where(used, np.arange(shape[-1]), 0).astype(np.int32),
        "segment_ids": used.astype(np.int32),
    }


def _batch(choices=0, **targets):
    draw = np.random.default_rng(0)
    view = _tokens(draw, (_ROWS, _LENGTH))
    return {
        **_tokens(draw, (_ROWS, choices, _LENGTH) if choices else (_ROWS, _LENGTH)),
        **{f"view_{name}": array for name, array in view.items()},
        "row_weights": np.asarray([1, 0.5, 2, 0], np.float32),
        "masked_positions": np.tile(np.asarray([1, 2, 0], np.int32), (_ROWS, 1)),
        "masked_ids": draw.integers(5, 40, (_ROWS, 3)).astype(np.int32),
        "masked_weights": draw.integers(0, 2, (_ROWS, 3)).astype(np.float32),
        "next_sentence_labels": draw.integers(0, 2, _ROWS).astype(np.int32),
        "next_sentence_weights": np.asarray([1, 1, 0, 1], np.float32),
        **targets,
    }


def _cases(config):
    draw = np.random.default_rng(1)
    at = draw.integers(0, 3, _ROWS).astype(np.int32)
    return {
        "text": (TextObjective(config, "classes", 3), _batch(labels=at)),
        "tokens": (TokenObjective(config, 3), _batch(labels=draw.integers(-1, 3, (_ROWS, _LENGTH)).astype(np.int32))),
        "span": (SpanObjective(config), _batch(start_positions=at, end_positions=at)),
        "choice": (ChoiceObjective(config), _batch(choices=3, labels=at)),
    }


def _with(objective, config=_CONFIG, **choices):
    return with_further_losses(objective, FineTune(**choices), config, Execution())


def _mean(losses, weights):
    return float(np.sum(losses * weights) / np.sum(weights))


def _cross_entropies(logits, labels):
    logits = np.asarray(logits, np.float64)
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return -np.take_along_axis(logs, labels[..., None], -1)[..., 0]


class _Case(NamedTuple):
    """An objective with all further losses, and what a step's batch gives."""

    objective: Any
    wrapped: Any
    params: Any
    batch: Any
    metrics: Any
    gradients: Any


def _step(objective, params, batch, accumulation_steps=1):
    """The metrics of a step's batch, and the gradients."""
    statistics, gradients = jax.jit(
        lambda params: loss_and_gradients(objective, params, batch, jax.random.key(1), accumulation_steps)
    )(params)
    return {name: float(value) for name, value in objective.metrics(statistics).items()}, gradients


@functools.cache
def _case(name):
    objective, batch = _cases(_CONFIG)[name]
    wrapped = _with(objective, **_ALL)
    params = jax.jit(wrapped.init)(jax.random.key(0))
    return _Case(objective, wrapped, params, batch, *_step(wrapped, params, batch))


def _of_task(objective, params):
    """The parameters of the task's own model."""
    return restrict(params, objective.logical_axes())


_EVERY = pytest.mark.parametrize("name", ["text", "tokens", "span", "choice"])


@_EVERY
def test_the_loss_is_the_sum_of_its_parts(name):
    objective, wrapped, params, batch, metrics, _ = _case(name)
    assert {"mlm_accuracy", "nsp_accuracy", "layer_1_accuracy", "layer_2_accuracy"} <= metrics.keys()
    if isinstance(objective, TokenObjective | SpanObjective):
        # Models of whole texts drop other elements where all states are computed; see below, without dropout.
        plain, _ = _step(objective, _of_task(objective, params), batch)
        assert metrics["task_loss"] == pytest.approx(plain["loss"], rel=1e-5)
        assert metrics["accuracy"] == plain["accuracy"] and metrics["tokens"] == plain["tokens"]

    parts = {"task": 1, "mlm": 0.5, "nsp": 0.25, "layer_1": 0.125, "layer_2": 0.125}
    total = sum(weight * metrics[f"{term}_loss"] for term, weight in parts.items())
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)
    assert dict(wrapped.term_weights) == parts


@pytest.mark.parametrize("name", ["text", "span"])
def test_the_losses_of_pretraining_are_those_of_its_model(name):
    _, _, params, batch, metrics, _ = _case(name)
    pretraining = build_model("BertForPreTraining", _CONFIG)
    view = {name.removeprefix("view_"): array for name, array in batch.items() if name.startswith("view_")}
    view |= {"masked_positions": batch["masked_positions"], "cls_positions": np.zeros((_ROWS, 1), np.int32)}
    own = {name: params[name] for name in ("bert", "masked_lm", "next_sentence")}
    mlm, nsp = jax.jit(pretraining.apply)(own, view, fold_in_each(_KEYS, _VIEW_PASS))
    wanted = _mean(_cross_entropies(mlm, batch["masked_ids"]), batch["masked_weights"])
    assert metrics["mlm_loss"] == pytest.approx(wanted, rel=1e-5)
    wanted = _mean(_cross_entropies(nsp[:, 0], batch["next_sentence_labels"]), batch["next_sentence_weights"])
    assert metrics["nsp_loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "model_class", "num_labels"),
    [
        ("text", "BertForSequenceClassification", 3),
        ("tokens", "BertForTokenClassification", 3),
        ("span", "BertForQuestionAnswering", None),
        ("choice", "BertForSequenceClassification", 1),
    ],
)
def test_heads_read_the_states_of_their_layers(name, model_class, num_labels):
    objective, _, params, batch, metrics, _ = _case(name)
    head = build_layer_head(model_class, _CONFIG, num_labels=num_labels)
    with_pooler = model_class == "BertForSequenceClassification"
    assert ("pooler" in params["layer_heads"]["layer_1"]) == with_pooler
    for layer in (1, 2):
        # The model cut off above the layer, with the same dropout.
        bert = {name: part for name, part in params["bert"].items() if name != "pooler"}
        cut = dataclasses.replace(_CONFIG, encoder_output=layer)
        body = build_model("BertForTokenClassification", cut, num_labels=1)

        def score(texts, keys, body=body, bert=bert, layer=layer):
            tokens = (texts[name] for name in ("input_ids", "token_type_ids", "position_ids", "segment_ids"))
            filled = {**jax.tree.map(lambda leaf: np.zeros(leaf.shape), body.abstract()), "bert": bert}
            states = body.apply(filled, *tokens, keys, method="bert")
            own = params["layer_heads"][f"layer_{layer}"]
            return head.apply(own, states, texts, fold_in_each(keys, _FIRST_HEAD + layer))

        logits = jax.jit(lambda score=score: objective.logits(score, batch, _KEYS))()
        losses, _ = objective.losses(logits, batch)
        wanted = _mean(np.asarray(losses), np.asarray(objective.weights(batch)))
        assert metrics[f"layer_{layer}_loss"] == pytest.approx(wanted, rel=1e-5)


@_EVERY
def test_gradients_reach_every_head_and_the_encoder(name):
    for path, leaf in jax.tree_util.tree_leaves_with_path(_case(name).gradients):
        parameter = jax.tree_util.keystr(path)
        # Softmax does not change with a bias of keys, nor with that of the scores of a row's tokens or choices.
        is_free = "['key']['bias']" in parameter or ("['bias']" in parameter and leaf.shape in ((1,), (2,)))
        assert is_free or np.abs(leaf).max() > 1e-7, parameter


@pytest.mark.parametrize(
    ("choices", "head"),
    [
        ({"mlm_weight": 2.0}, "masked_lm"),
        ({"nsp_weight": 2.0}, "next_sentence"),
        ({"auxiliary_layers": (1,)}, "layer_heads"),
    ],
)
def test_each_loss_reaches_the_encoder_by_itself(choices, head):
    objective, _, params, batch, _, _ = _case("span")
    one = _with(objective, **choices)
    assert set(one.logical_axes()) == {"bert", "span", head}
    _, with_it = _step(one, restrict(params, one.logical_axes()), batch)
    _, without = _step(objective, _of_task(objective, params), batch)
    lowest = [tree["bert"]["encoder"]["layers"]["attention"]["query"]["kernel"][0] for tree in (with_it, without)]
    assert np.abs(lowest[0] - lowest[1]).max() > 1e-6


@pytest.mark.parametrize("name", ["tokens"])
def test_the_loss_is_the_same_however_the_batch_is_cut(name):
    _, wrapped, params, batch, *whole = _case(name)
    pieces = _step(wrapped, params, batch, accumulation_steps=4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), tuple(whole), pieces)


@pytest.mark.parametrize("name", ["span"])
def test_what_is_evaluated_is_the_task_alone(name):
    objective, wrapped, params, batch, _, _ = _case(name)
    # Of a dev set there is no view.
    seen = {name: array for name, array in batch.items() if not name.startswith(("view_", "masked_", "next_"))}

    def evaluate(objective, params):
        # As the launchers do: one program for both.
        return jax.jit(lambda params: (objective.loss(params, seen, None), objective.outputs(params, seen)))(params)

    ours, theirs = evaluate(wrapped, params), evaluate(objective, _of_task(objective, params))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert wrapped.metrics(ours[0][1]).keys() == objective.metrics(theirs[0][1]).keys()


@pytest.mark.parametrize("name", ["text", "span"])
def test_every_parameter_has_axes_and_the_task_begins_as_without(name):
    objective, wrapped, params, *_ = _case(name)
    numbers = jax.tree.map(len, wrapped.logical_axes(), is_leaf=lambda node: isinstance(node, tuple))
    assert numbers == jax.tree.map(lambda leaf: leaf.ndim, params)
    jax.tree.map(np.testing.assert_array_equal, _of_task(objective, params), jax.jit(objective.init)(jax.random.key(0)))
    heads = params["layer_heads"]
    assert not np.array_equal(heads["layer_1"]["output"]["kernel"], heads["layer_2"]["output"]["kernel"])


@pytest.mark.parametrize("option", [{}, {"pooling": "last_four", "encoder_output": "mixture"}])
def test_options_of_the_encoder(option):
    config = dataclasses.replace(_CALM, num_hidden_layers=5, **option)
    objective, batch = _cases(config)["text"]
    wrapped = _with(objective, config, **_ALL)
    params = jax.jit(wrapped.init)(jax.random.key(0))
    metrics, _ = _step(wrapped, params, batch)
    plain, _ = _step(objective, _of_task(objective, params), batch)
    assert metrics["task_loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_of_relations():
    """Heads on layers read where the task's head does."""
    config = dataclasses.replace(_CALM, pooling="entities")
    objective, batch = _cases(config)["text"]
    batch = {**batch, "entity_positions": np.tile(np.asarray([4, 2], np.int32), (_ROWS, 1))}
    wrapped = _with(objective, config, mlm_weight=0.5, auxiliary_layers=(1,))
    params = jax.jit(wrapped.init)(jax.random.key(0))
    assert params["layer_heads"]["layer_1"]["pooler"]["dense"]["kernel"].shape[0] == 2 * config.hidden_size
    metrics, _ = _step(wrapped, params, batch)
    plain, _ = _step(objective, _of_task(objective, params), batch)
    assert metrics["task_loss"] == pytest.approx(plain["loss"], rel=1e-5) and metrics["layer_1_loss"] > 0
    turned, _ = _step(wrapped, params, {**batch, "entity_positions": batch["entity_positions"][:, ::-1]})
    assert turned["layer_1_loss"] != pytest.approx(metrics["layer_1_loss"], rel=1e-5)


def test_with_r_drop():
    objective, batch = _cases(_CONFIG)["text"]
    wrapped, alone = _with(objective, r_drop=2.0, mlm_weight=0.5), _with(objective, r_drop=2.0)
    params = jax.jit(wrapped.init)(jax.random.key(0))
    metrics, _ = _step(wrapped, params, batch)
    wanted, _ = _step(alone, _of_task(objective, params), batch)
    assert metrics["task_loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert metrics["divergence"] == pytest.approx(wanted["divergence"], rel=1e-4) and metrics["mlm_loss"] > 0


def test_without_any_the_objective_is_itself():
    objective, _ = _cases(_CONFIG)["text"]
    assert _with(objective) is objective


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"auxiliary_layers": (3,)}, "the model has 3 layers, and 3 is none below the last: choose from 1 to 2"),
        ({"auxiliary_layers": (0,)}, "0 is none below the last"),
        ({"nsp_weight": 1.0}, "finetune.nsp_weight is for pairs of texts, and the training examples are single texts"),
    ],
)
def test_what_does_not_fit_the_model_or_the_rows(choices, message):
    rows = EncodedRows.of([Row([2, 9, 3], 3, 0)] * 3)
    with pytest.raises(UserError, match=message):
        check_auxiliary_losses(FineTune(**choices), _CONFIG, rows)
    check_auxiliary_losses(FineTune(), _CONFIG, rows)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"mlm_weight": 0.0}, "mlm_weight must be above 0, or None for off"),
        ({"nsp_weight": float("nan")}, "nsp_weight must be above 0"),
        ({"auxiliary_layers": (1, 1)}, "names a layer twice"),
        ({"auxiliary_layers": (1,), "auxiliary_weight": -1.0}, "auxiliary_weight must be above 0"),
        ({"auxiliary_layers": (1,), "r_drop": 1.0}, "auxiliary_layers and r_drop do not go together"),
    ],
)
def test_bad_choices(choices, message):
    with pytest.raises(UserError, match=message):
        FineTune(**choices)


def test_off_they_are_no_part_of_a_runs_identity():
    off, on = FineTune().identity(), FineTune(auxiliary_layers=(1,)).identity()
    assert not any(name.startswith("finetune.auxiliary") for name in off)
    assert off["finetune.mlm_weight"] is None is off["finetune.nsp_weight"]
    assert on["finetune.auxiliary_layers"] == (1,) and on["finetune.auxiliary_weight"] == 0.3
