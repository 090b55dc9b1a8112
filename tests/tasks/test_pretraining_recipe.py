"""A run's choices: what fits together, and one line about what does not."""

import dataclasses

import pytest

from bert_jax.config import BertConfig, preset
from bert_jax.data.masking_recipe import Masking
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain, masking_of_run
from bert_jax.training.recipe import Optimizer

MODEL = preset("tiny")
ONE = Pretrain(MODEL, steps=10, batch_size=8)
TWO = Pretrain(MODEL, phases=[Phase(128, 32, 9), Phase(512, 8, 1, learning_rate=1e-3)])
DATA = {"rows.128": "a", "tokenizer": "b"}


def test_plans():
    assert ONE.plan([128]) == (Phase(128, 8, 10),)
    assert dataclasses.replace(ONE, accumulation_steps=4).plan([64])[0].accumulation_steps == 4
    assert TWO.plan([512, 128]) == tuple(TWO.phases)


@pytest.mark.parametrize(
    ("run", "lengths", "message"),
    [
        (ONE, [1024], "1024 tokens.*512 positions"),
        (ONE, [128, 512], "pretrain.phases"),
        (ONE, [128, 128], "same length"),
        (TWO, [128], "phase 2 wants rows of 512"),
        (TWO, [128, 512, 64], "no phase uses the rows of 64"),
        (Pretrain(MODEL, phases=[Phase(128, 8, 5, warmup_steps=6)]), [128], "warm-up of 6"),
        (dataclasses.replace(ONE, learning_rate=-1.0), [128], "learning_rate"),
    ],
)
def test_plans_that_do_not_fit_are_user_errors(run, lengths, message):
    with pytest.raises(UserError, match=message) as error:
        run.plan(lengths)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"phases": TWO.phases}, "exclude each other"),
        ({"steps": None}, "pretrain.steps"),
        ({"batch_size": 0}, "pretrain.batch_size"),
        ({"steps": 1.5}, "pretrain.steps"),
        ({"accumulation_steps": 0}, "accumulation_steps"),
        ({"steps": None, "batch_size": None, "phases": []}, "list of phases"),
        ({"steps": None, "batch_size": None, "phases": [1]}, "list of phases"),
        ({"steps": None, "batch_size": None, "phases": 3}, "list of phases"),
        ({"log_every": 0}, "log_every"),
        ({"checkpoint_every": "often"}, "checkpoint_every"),
        ({"eval_every": -1}, "eval_every"),
        ({"eval_rows": 0}, "eval_rows"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"next_sentence": "no"}, "next_sentence must be True or False"),
        ({"model": BertConfig(pooling="entities")}, "pooling='entities' is for fine-tuning on relations"),
    ],
    ids=str,
)
def test_runs_that_make_no_sense_are_user_errors(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(ONE, **fields)


def test_micro_batches_must_divide_the_batch():
    with pytest.raises(UserError, match="must divide"):
        Phase(128, 10, 5, accumulation_steps=4)


def test_identity_holds_what_decides_the_losses_and_nothing_else():
    identity = ONE.identity(ONE.plan([128]), DATA)

    def changed(run):
        other = run.identity(run.plan([128]), DATA)
        return {name for name in identity.keys() | other.keys() if identity.get(name) != other.get(name)}

    same = [{"log_every": 7}, {"eval_every": 3}, {"eval_rows": 5}, {"checkpoint_every": 9}, {"keep_checkpoints": 4}]
    same += [{"accumulation_steps": 2}, {"execution": Execution(remat="full", unroll=2)}]
    for fields in same:
        assert changed(dataclasses.replace(ONE, **fields)) == set(), fields
    others = {
        "BertConfig.hidden_act": {"model": preset("tiny", hidden_act="gelu_tanh")},
        "pretrain.steps": {"steps": 11},
        "pretrain.batch_size": {"batch_size": 16},
        "pretrain.learning_rate": {"learning_rate": 2e-4},
        "pretrain.seed": {"seed": 1},
        "Optimizer.b2": {"optimizer": Optimizer(b2=0.98)},
        "pretrain.next_sentence": {"next_sentence": False},
        "Masking.whole_word": {"masking": Masking(whole_word=True)},
        "Execution.dtype": {"execution": Execution(dtype="bfloat16")},
    }
    for name, fields in others.items():
        assert changed(dataclasses.replace(ONE, **fields)) == {name}
    own = {"Optimizer.kind", "Optimizer.muon_learning_rate_factor", "Optimizer.muon_momentum"}
    assert changed(dataclasses.replace(ONE, optimizer=Optimizer("muon"))) == own
    # Runs of before there was a choice go on.
    assert "pretrain.next_sentence" not in identity
    assert ONE.identity(ONE.plan([128]), {**DATA, "tokenizer": "c"})["data.tokenizer"] == "c"


def test_the_masking_of_a_run_is_read_from_its_identity():
    run = dataclasses.replace(ONE, seed=7, masking=Masking(masked_lm_prob=0.3, whole_word=True, static=True))
    assert masking_of_run(run.identity(run.plan([128]), DATA)) == (run.masking, 7)
    assert masking_of_run({"finetune.seed": 7}) is None
    for damaged in ({"pretrain.seed": None}, {"Masking.no_such": 1}, {"Masking.mask_share": "much"}):
        with pytest.raises(UserError, match="asking"):
            masking_of_run({**run.identity(run.plan([128]), DATA), **damaged})


def test_identity_of_phases():
    identity = TWO.identity(TWO.plan([128, 512]), DATA)
    assert identity["phase 1.seq_len"] == 128 and identity["phase 2.batch_size"] == 8
    assert identity["phase 2.learning_rate"] == 1e-3 and identity["pretrain.learning_rate"] == 1e-4
