"""The planner: mistakes found before anything compiles, what it tries where a step does not fit, and a real compile."""

import dataclasses
import importlib.util
import json
import re
import types

import jax
import pytest

from bert_jax.config import BertConfig, preset
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.parallel.chips import CHIPS
from bert_jax.parallel.hlo_collectives import Collective
from bert_jax.parallel.mesh_spec import MeshSpec
from bert_jax.parallel.roofline import Roofline
from bert_jax.parallel.topology import parse_topology
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain
from launch import plan
from launch.plan_table import format_plan, plan_values
from launch.planned_step import Case, Compiled, OutOfMemory, compile_here, read_shortage

_LARGE = "gin_configs/pretrain/bert_large.gin"
_HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


def make_case(rows: int = 256, mesh: MeshSpec | None = None, remat: str = "none") -> Case:
    phase = Phase(512, rows, 1000)
    recipe = Pretrain(BertConfig(), phases=[phase], execution=Execution(remat=remat))
    return Case(recipe, phase, parse_topology("v5e:4x4"), mesh or MeshSpec(data=16))


def make_compiled(seconds: float = 0.5) -> Compiled:
    return Compiled(
        parameters=1000,
        bytes_of={
            "parameters": 4 << 20,
            "optimizer": 8 << 20,
            "batch": 0,
            "gradients": 4 << 20,
            "activations": 1 << 30,
        },
        formula_flops=16 * 10**14,
        flops=10**14,
        flops_once=10**13,
        compiler_flops=1.0,
        memory_bytes=81_900_000_000,
        peak_flops=197e12,
        collectives=[Collective("all-reduce", "data", tuple(range(16)), 3, 16 * 10**6)],
        roofline=Roofline(seconds, 0.1, 0.25, 0.0),
        layout=["mesh: data 16"],
        compile_seconds=1.0,
    )


@pytest.fixture
def failing(capsys, monkeypatch):
    """Runs the launcher, which must fail without compiling; returns its line."""
    monkeypatch.setattr("bert_jax.parallel.topology.Topology.check_installed", lambda self: None)
    monkeypatch.setattr(plan, "compile_case", lambda case: pytest.fail("compiled"))

    def fail(*arguments: str) -> str:
        assert plan.main(["plan", *arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return fail


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((f"--gin_file={_LARGE}",), "--topology is missing"),
        (("--topology=v5e:4x4",), "--gin_file is missing"),
        ((f"--gin_file={_LARGE}", "--topology=v8:4x4"), "'v8' is not a chip"),
        ((f"--gin_file={_LARGE}", "--topology=v5e:4x4", "--mesh=data:3"), "needs 3 devices, and there are 16"),
        ((f"--gin_file={_LARGE}", "--topology=v5e:4x4", "--mesh=fsdp:-1,tensor:3"), "--mesh"),
        ((f"--gin_file={_LARGE}", "--topology=v3:32x32"), "give --rows_per_step=2048"),
        ((f"--gin_file={_LARGE}", "--topology=v5e:4x4", "--rows_per_step=0"), "--rows_per_step=0"),
        ((f"--gin_file={_LARGE}", "--topology=v5e:4x4", "--phase=3"), "the run has 2"),
        ((f"--gin_file={_LARGE}", "--topology=v5e:4x4", "--json=nowhere/plan.json"), "there is no folder"),
    ],
)
def test_mistakes_are_one_line(failing, arguments, said):
    assert said in failing(*arguments)


def test_heads_must_divide_over_tensor(failing):
    arguments = ("--gin_param=BertConfig.num_attention_heads=4", "--mesh=data:-1,tensor:8")
    assert "heads" in failing(f"--gin_file={_LARGE}", "--topology=v5e:4x4", *arguments)


def test_a_missing_compiler_names_the_install_line(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert plan.main(["plan", f"--gin_file={_LARGE}", "--topology=v5e:4x4"]) == 2
    assert "pip install -e .[plan]" in capsys.readouterr().err
    assert plan.main(["plan", f"--gin_file={_LARGE}", "--topology=h100:2x8"]) == 2
    assert "jax-cuda12-plugin" in capsys.readouterr().err


def test_each_phase_is_planned_with_its_rows(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("bert_jax.parallel.topology.Topology.check_installed", lambda self: None)
    seen = []
    monkeypatch.setattr(plan, "compile_case", lambda case: seen.append(case) or make_compiled())
    output = tmp_path / "plan.json"
    arguments = [f"--gin_file={_LARGE}", "--topology=v5e:16x16", f"--json={output}"]
    assert plan.main(["plan", *arguments]) == 0
    assert [(case.phase.seq_len, case.phase.batch_size) for case in seen] == [(128, 256), (512, 256)]
    assert seen[0].recipe.model.vocab_size == 30522
    assert "published 30522" in capsys.readouterr().out
    assert len(json.loads(output.read_text())["phases"]) == 2
    assert plan.main(["plan", *arguments, "--rows_per_step=512", "--phase=2"]) == 0
    assert [(case.number, case.phase.seq_len, case.phase.batch_size) for case in seen[2:]] == [(2, 512, 512)]
    assert re.search(r"^phase +2$", capsys.readouterr().out, re.MULTILINE)


def test_the_table_adds_up():
    case = make_case()
    lines = format_plan([(case, make_compiled())])
    table = {line.strip().rsplit("  ", 1)[0].strip(): line.strip().rsplit("  ", 1)[-1].strip() for line in lines}
    assert table["at the peak"] == "1,040.0 MiB"
    assert table["by the compiler"] == table["by formula"] == "1,600.0"
    assert table["all-reduce over data"] == "30.0 (3)"
    assert table["communication hidden"] == "500.00"
    assert table["communication not hidden"] == "750.00"
    # 1.6e15 / (16 * 197e12) = 0.508 s at peak.
    assert table["MFU, at most"] == "68% to 102%"
    values = plan_values([(case, make_compiled())])
    assert values["days"] == [500 / 86400, 750 / 86400]
    assert values["chip_hours"][1] == pytest.approx(16 * 750 / 3600)


def test_nearer_changes_come_first():
    changes = [change for change, _ in plan.nearby(make_case())]
    assert changes[:4] == [f"accumulation_steps={number}" for number in (2, 4, 8, 16)]
    assert changes[4] == "Execution.remat='full'"
    assert changes[-1] == "all of it, and --mesh=fsdp:16"
    for _, changed in plan.nearby(make_case()):
        plan.check_rows(changed.phase, changed.mesh)


def test_changes_that_cannot_suffice_are_not_tried():
    changes = [change for change, _ in plan.nearby(make_case(), excess=3.1)]
    assert changes[0] == "accumulation_steps=4"
    assert "accumulation_steps=2" not in changes
    assert next(iter(plan.nearby(make_case(rows=16), excess=3.1)))[0] == "Execution.remat='full'"


def test_the_first_change_that_fits_is_named(monkeypatch, capsys):
    def compile_case(case):
        return make_compiled() if case.phase.accumulation_steps >= 8 else OutOfMemory("20.0G", "15.75G")

    monkeypatch.setattr(plan, "compile_case", compile_case)
    changed = plan.advise(make_case(), OutOfMemory("40.0G", "15.75G"))
    assert changed.phase.accumulation_steps == 8 and changed.recipe.execution.remat == "none"
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  accumulation_steps=4: needs 20.0G"
    assert lines[2].startswith("  accumulation_steps=8: fits")
    assert len(lines) == 3


def test_where_nothing_fits_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(plan, "compile_case", lambda case: OutOfMemory("20.0G", "15.75G"))
    assert plan.advise(make_case(rows=16), OutOfMemory("20.0G", "15.75G")) is None
    assert "nothing of this fits" in capsys.readouterr().out


def test_what_is_out_of_memory_exits_with_1(monkeypatch, capsys):
    monkeypatch.setattr("bert_jax.parallel.topology.Topology.check_installed", lambda self: None)
    monkeypatch.setattr(plan, "compile_case", lambda case: OutOfMemory("21.5G", "15.75G"))
    monkeypatch.setattr(plan, "nearby", lambda case, excess: iter(()))
    assert plan.main(["plan", f"--gin_file={_LARGE}", "--topology=v5e:4x4", "--phase=2"]) == 1
    assert "need 21.5G of the 15.75G of a device" in capsys.readouterr().out


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 29.50G of 15.75G hbm. Exceeded hbm capacity",
        "Ran out of memory: the total memory required for HLO temporaries (29.50G) exceeds available HBM (15.75G).",
    ],
)
def test_both_ways_of_saying_that_memory_is_short(message):
    assert read_shortage(message) == OutOfMemory("29.50G", "15.75G")
    with pytest.raises(UserError, match="does not fit"):
        read_shortage("RESOURCE_EXHAUSTED: something else")


def test_excess_reads_the_compilers_units():
    assert OutOfMemory("31.5G", "15.75G").excess == 2
    assert OutOfMemory("1.0T", "512.0G").excess == 2
    assert OutOfMemory("15.9M", "15.75G").excess == 1


def test_published_configurations_load():
    for name in ("bert_large", "bert_xl"):
        recipe, _ = plan.load_pretrain([f"gin_configs/pretrain/{name}.gin"], [])
        assert recipe.plan([phase.seq_len for phase in recipe.phases])


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_LIBTPU, reason="needs libtpu, the TPU compiler: pip install -e .[plan]")
def test_a_real_step_compiles_for_chips_that_are_not_there(tmp_path, capsys):
    configuration = tmp_path / "small.gin"
    configuration.write_text(
        "BertConfig.vocab_size = 1000\nBertConfig.hidden_size = 128\nBertConfig.num_hidden_layers = 3\n"
        "BertConfig.num_attention_heads = 2\nBertConfig.intermediate_size = 256\npretrain.steps = 1000\n"
        "pretrain.batch_size = 64\nExecution.dtype = 'bfloat16'\n"
    )
    output = tmp_path / "plan.json"
    arguments = [f"--gin_file={configuration}", "--topology=v5e:4x4", "--mesh=data:-1,fsdp:4,tensor:2"]
    assert plan.main(["plan", *arguments, f"--json={output}"]) == 0
    values = json.loads(output.read_text())
    phase = values["phases"][0]
    assert values["mesh"] == {"data": 2, "fsdp": 4, "tensor": 2}
    axes = {axis for one in phase["collectives"] for axis in one["axes"].removeprefix("part of ").split("+")}
    assert axes == {"data", "fsdp", "tensor"}
    assert any(one["times"] % 3 == 0 and one["times"] for one in phase["collectives"])
    # What the compiled products are, by formula: within a tenth, for padding and what is computed twice over tensor.
    assert phase["flops_by_compiler_of_device"] * values["devices"] == pytest.approx(phase["flops_by_formula"], rel=0.1)
    assert phase["bytes_of_device"]["optimizer"] == pytest.approx(2 * phase["bytes_of_device"]["parameters"], rel=1e-3)
    assert "in all" in capsys.readouterr().out


def test_a_case_survives_the_way_to_the_compiler():
    import pickle

    case = make_case()
    assert pickle.loads(pickle.dumps(case)) == case
    assert dataclasses.replace(case, mesh=MeshSpec(fsdp=16)) != case


@pytest.mark.parametrize(
    ("changed", "rows"), [({"hidden_size": 4_000_000}, 8), ({"max_position_embeddings": 2 * 10**9}, 8), ({}, 2 * 10**9)]
)
def test_what_no_compiler_can_make_smaller_is_not_compiled(monkeypatch, changed, rows):
    """State or batch alone are larger than the memory of a device."""
    monkeypatch.setattr("bert_jax.training.compilation.compile_train_step", lambda *_: pytest.fail("compiled"))
    recipe = Pretrain(preset("tiny", **changed), steps=1, batch_size=8)
    topology = types.SimpleNamespace(chip=CHIPS["v5e"], make_devices=lambda: jax.devices()[:1], sizes=(1, 1))
    case = Case(recipe, Phase(128, rows, 1), topology, MeshSpec(1, 1, 1))
    if changed:
        assert isinstance(compile_here(case), OutOfMemory)
    else:
        with pytest.raises(UserError, match=r"a batch of 2,000,000,000 rows .* TiB of the 16.0 GiB .*--rows_per_step"):
            compile_here(case)
