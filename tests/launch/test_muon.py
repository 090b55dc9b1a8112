"""Muon through the launchers: runs are resumed bit for bit, and fine-tuning freezes and slows down layers."""

import json
import shutil

import jax
import pytest

from bert_jax.config import BertConfig
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.objectives import TextObjective
from bert_jax.training.recipe import Optimizer
from launch.finetuning_programs import build_update_rule

_MUON = ("Optimizer.kind = 'muon'", "pretrain.steps = 4", "pretrain.checkpoint_every = 2", "pretrain.eval_every = 0")


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path, capsys, pretrain, read_log):
    assert pretrain(tmp_path / "run", *_MUON) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped/checkpoints/4")
    capsys.readouterr()
    assert pretrain(tmp_path / "stopped", *_MUON) == 0
    assert "resuming from step 2" in capsys.readouterr().out
    assert read_log(tmp_path / "stopped", "train") == read_log(tmp_path / "run", "train")
    # What only Muon has is a part of what the run is.
    identity = json.loads((tmp_path / "run/run.json").read_text())
    assert identity["Optimizer.muon_momentum"] == 0.95 and identity["Optimizer.muon_learning_rate_factor"] == 10.0
    assert pretrain(tmp_path / "run", *_MUON, "Optimizer.muon_momentum = 0.9") == 2
    assert "Optimizer.muon_momentum is 0.9" in capsys.readouterr().err


@pytest.mark.parametrize(
    "choice", [{}, {"frozen_layers": 1, "layer_decay": 0.9}, {"frozen": ["*/attention/*"]}], ids=str
)
def test_an_update_rule_of_fine_tuning(choice):
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    recipe = FineTune(learning_rate=1e-3, optimizer=Optimizer("muon"), **choice)
    objective = TextObjective(config, "classes", 2)
    rule = build_update_rule(recipe, 10, objective)

    def update(key):
        params = objective.init(key)
        return rule.optimizer.update(params, rule.optimizer.init(params), params), params

    (updates, state), params = jax.eval_shape(update, jax.random.key(0))
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    kept = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert any("attention" in path and "kernel" in path for path in kept) == ("frozen" not in choice)
    assert not any("'feed_forward'" in path and "'kernel'" in path and ".nu" in path for path in kept)
