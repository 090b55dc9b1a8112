"""Programs compiled for eight fake devices in a process of their own, and what is read out of their text."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from bert_jax.parallel.hlo import Program
from bert_jax.parallel.hlo_collectives import Collective, _groups, find_collectives, mesh_axes, share_sent, summarize
from bert_jax.parallel.hlo_flops import matrix_flops
from bert_jax.parallel.hlo_traffic import memory_bytes

_MESH = {"data": 2, "fsdp": 2, "tensor": 2}
_LAYERS, _BATCH, _WIDTH = 5, 16, 32

_COMPILE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
layers, batch, width = {sizes}

def shape(sizes, *spec):
    return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))

def text(function, *arguments, out=None):
    keep = None if out is None else NamedSharding(mesh, P(*out))
    return jax.jit(function, out_shardings=keep).lower(*arguments).compile().as_text()

def scanned(x, kernels, unroll=1):
    return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels, unroll=unroll)[0]

x = shape((batch, width), ("data", "fsdp"))
whole = shape((layers, width, width))
programs = {{
    "sum_data": text(lambda x: x.sum(0), shape((8, 6), "data")),
    "gather_fsdp": text(lambda x: x * 2, shape((8, 6), "fsdp"), out=()),
    "gather_both": text(lambda x: x * 2, shape((8, 6), ("data", "tensor")), out=()),
    "scanned": text(scanned, x, whole),
    "unrolled": text(lambda x, k: scanned(x, k, unroll=layers), x, whole),
    "sum_in_loop": text(
        scanned, shape((batch, width), ("data", "fsdp"), "tensor"), shape((layers, width, width), None, "tensor")
    ),
    "convolution": text(
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (2,), [(1, 2)], lhs_dilation=(3,), dimension_numbers=("NWC", "WIO", "NWC")
        ),
        shape((4, 7, 3)),
        shape((3, 3, 5)),
    ),
}}
print(json.dumps(programs))
"""


@pytest.fixture(scope="module")
def programs(repository_root) -> dict[str, Program]:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE.format(sizes=(_LAYERS, _BATCH, _WIDTH))],
        cwd=repository_root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {name: Program(text) for name, text in json.loads(done.stdout).items()}


def only(collectives: list[Collective]) -> Collective:
    assert len(collectives) == 1, collectives
    return collectives[0]


def test_sum_over_data_is_an_all_reduce(programs):
    one = only(find_collectives(programs["sum_data"], _MESH))
    assert (one.kind, one.axes, one.times, one.bytes) == ("all-reduce", "data", 1, 6 * 4)
    assert len(one.group) == 2
    assert one.sent_bytes == 6 * 4


def test_gathering_counts_what_comes_out(programs):
    one = only(find_collectives(programs["gather_fsdp"], _MESH))
    assert (one.kind, one.axes, one.bytes) == ("all-gather", "fsdp", 8 * 6 * 4)
    assert one.sent_bytes == 8 * 6 * 4 / 2


def test_gathering_over_two_axes_names_both(programs):
    found = find_collectives(programs["gather_both"], _MESH)
    assert {axis for one in found for axis in one.axes.split("+")} == {"data", "tensor"}
    assert sum(one.sent_bytes for one in found) == pytest.approx(8 * 6 * 4 * 3 / 4)


def test_collectives_of_a_loop_count_once_a_layer(programs):
    # Kernels and vectors are both cut along what the product sums over.
    found = [one for one in find_collectives(programs["sum_in_loop"], _MESH) if one.kind == "all-reduce"]
    one = only(found)
    assert (one.axes, one.times) == ("tensor", _LAYERS)
    assert one.bytes == _LAYERS * (_BATCH // 4) * _WIDTH * 4


def test_loops_multiply_matrix_products(programs):
    rows = _BATCH // 4
    by_hand = 2 * rows * _WIDTH * _WIDTH
    assert matrix_flops(programs["scanned"]) == (_LAYERS * by_hand, by_hand)
    assert matrix_flops(programs["unrolled"]) == (_LAYERS * by_hand, _LAYERS * by_hand)


def test_loops_multiply_what_moves_but_not_the_stack_that_they_slice(programs):
    kernels, vectors = _WIDTH * _WIDTH * 4, (_BATCH // 4) * _WIDTH * 4
    looped, flat = memory_bytes(programs["scanned"]), memory_bytes(programs["unrolled"])
    # Each layer reads its kernel and its vectors and writes vectors, at the least, and a few of these again.
    assert _LAYERS * (kernels + 2 * vectors) <= min(looped, flat)
    assert max(looped, flat) < 4 * _LAYERS * (kernels + 2 * vectors)


def test_padding_and_holes_of_a_convolution_are_no_arithmetic(programs):
    batch, inputs, in_features, kernel, out_features = 4, 7, 3, 3, 5
    stride, low, high, dilation = 2, 1, 2, 3
    length = (inputs - 1) * dilation + 1
    outputs = (length + low + high - kernel) // stride + 1
    met = sum(
        (place := output * stride + position - low) >= 0 and place < length and place % dilation == 0
        for output in range(outputs)
        for position in range(kernel)
    )
    assert matrix_flops(programs["convolution"])[0] == 2 * batch * in_features * out_features * met


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups={}, to_apply=%add", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("replica_groups=[2,4]<=[8], dimensions={0}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("source_target_pairs={{0,1},{1,0}}, metadata={}", [[0, 1], [1, 0]]),
    ],
)
def test_every_spelling_of_groups(attributes, wanted):
    line = f"ENTRY %main (p: f32[4]) -> f32[4] {{\n  ROOT %a = f32[4]{{0}} all-reduce(%p), {attributes}\n}}"
    instruction = Program(line).computations["main"].instructions["a"]
    assert sorted(map(list, _groups(instruction, 8).tolist())) == wanted


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [
        ([[0, 1], [2, 3], [4, 5], [6, 7]], "tensor"),
        ([[0, 2], [1, 3], [4, 6], [5, 7]], "fsdp"),
        ([[0, 4], [1, 5], [2, 6], [3, 7]], "data"),
        ([[0, 2, 4, 6], [1, 3, 5, 7]], "data+fsdp"),
        ([[0, 1, 2, 3, 4, 5, 6, 7]], "data+fsdp+tensor"),
        ([[0, 3], [1, 2], [4, 7], [5, 6]], "part of fsdp+tensor"),
    ],
)
def test_groups_are_named_by_the_axes_they_lie_along(groups, wanted):
    assert mesh_axes(np.array(groups), _MESH) == wanted


def test_a_fused_reduce_scatter_is_one():
    text = """
%all-reduce-scatter.1 (p: bf16[8,4]) -> bf16[4,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  %all-reduce.1 = bf16[8,4]{1,0} all-reduce(%p), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  ROOT %slice = bf16[4,4]{1,0} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={4,4}
}

ENTRY %main (p: bf16[8,4]) -> bf16[4,4] {
  %p.1 = bf16[8,4]{1,0} parameter(0)
  ROOT %fusion = bf16[4,4]{1,0} fusion(%p.1), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    one = only(find_collectives(Program(text), _MESH))
    assert (one.kind, one.axes, one.bytes, one.sent_bytes) == ("reduce-scatter", "tensor", 64, 32)


@pytest.mark.parametrize(
    ("transfer", "kind", "payload", "sent"),
    [
        ("ALL_REDUCE", "all-reduce", 32, 32),
        ("ALL_GATHER", "all-gather", 64, 32),
        ("ONE_TO_ONE", "collective-permute", 32, 32),
    ],
)
def test_what_hosts_send_between_slices_is_found(transfer, kind, payload, sent):
    text = f"""
ENTRY %main (p: bf16[4,4]) -> bf16[4,4] {{
  %p = bf16[4,4]{{1,0}} parameter(0)
  %begin = token[] after-all()
  %send = (bf16[4,4]{{1,0}}, u32[], token[]) send(%p, %begin), channel_id=3, is_host_transfer=true,\
 frontend_attributes={{_xla_megascale_target="{{1,2}}x{{0:3}}",_xla_megascale_transfer_type="{transfer}"}}
  %done = token[] send-done(%send), channel_id=3
  %out = (bf16[4,4]{{1,0}}, u32[], token[]) send(%p, %begin), channel_id=9, is_host_transfer=true
  ROOT %same = bf16[4,4]{{1,0}} copy(%p)
}}
"""
    slices = [0, 0, 0, 0, 1, 1, 1, 1]
    one = only(find_collectives(Program(text), _MESH, slices))
    assert (one.kind, one.axes, one.group) == (kind, "data, between slices", (0, 4))
    assert (one.bytes, one.sent_bytes) == (payload, sent)


_LOOP = """
%condition (p: (s32[])) -> pred[] {{
  %p = (s32[]) parameter(0)
  %number = s32[] constant(24)
  %counter = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%counter, %number), direction=LT
}}

%body (q: (s32[])) -> (s32[]) {{
  %q = (s32[]) parameter(0)
  %count = s32[] get-tuple-element(%q), index=0
  %step = s32[] constant({step})
  %next = s32[] add(%count, %step)
  {inside}
  ROOT %tuple = (s32[]) tuple(%next)
}}
"""


@pytest.mark.parametrize(("step", "wanted"), [(1, 24), (2, 12), (5, 5)])
def test_a_loop_runs_until_its_counter_is_there(step, wanted):
    text = (
        _LOOP.format(step=step, inside="")
        + """
ENTRY %main (x: (s32[])) -> (s32[]) {
  %x = (s32[]) parameter(0)
  ROOT %loop = (s32[]) while(%x), condition=%condition, body=%body
}
"""
    )
    program = Program(text)
    assert program.trip_count(program.computations["main"].instructions["loop"]) == wanted


def test_a_collective_that_runs_beside_a_loop_counts_once():
    gather = "all-gather({}), channel_id=7, replica_groups={{{{0,1}},{{2,3}},{{4,5}},{{6,7}}}}, dimensions={{0}}"
    parts = "".join(
        f"""
%{name} (p.{name}: bf16[4]) -> bf16[8] {{
  %p.{name} = bf16[4]{{0}} parameter(0)
  ROOT %gather.{name} = bf16[8]{{0}} {gather.format(f"%p.{name}")}
}}
"""
        for name in ("start", "step", "done")
    )
    text = (
        parts
        + _LOOP.format(step=1, inside="%fusion.step = bf16[8]{0} fusion(%q), kind=kOutput, calls=%step")
        + """
ENTRY %main (x: bf16[4]) -> bf16[8] {
  %x = bf16[4]{0} parameter(0)
  %fusion.start = bf16[8]{0} fusion(%x), kind=kCustom, calls=%start
  %loop = (s32[]) while(%x), condition=%condition, body=%body
  ROOT %fusion.done = bf16[8]{0} fusion(%x), kind=kCustom, calls=%done
}
"""
    )
    one = only(find_collectives(Program(text), _MESH))
    assert (one.kind, one.axes, one.times, one.bytes) == ("all-gather", "tensor", 1, 16)


def test_a_ring_sends_each_byte_but_its_own():
    assert share_sent("all-reduce", 4) == pytest.approx(2 * 3 / 4)
    assert share_sent("all-gather", 4) == share_sent("reduce-scatter", 4) == pytest.approx(3 / 4)
    assert share_sent("collective-permute", 4) == 1


def test_totals_join_groups_along_the_same_axes():
    ones = [Collective("all-reduce", "data", (0, 4), 2, 100), Collective("all-reduce", "data", (1, 5), 3, 50)]
    assert summarize(ones) == {("all-reduce", "data"): (5, 150, 150.0)}


def test_a_loop_of_unknown_length_is_refused():
    text = """
%condition (p: (s32[])) -> pred[] {
  %p = (s32[]) parameter(0)
  ROOT %less = pred[] custom-call(%p)
}

%body (q: (s32[])) -> (s32[]) {
  ROOT %q = (s32[]) parameter(0)
}

ENTRY %main (x: (s32[])) -> (s32[]) {
  %x = (s32[]) parameter(0)
  ROOT %loop = (s32[]) while(%x), condition=%condition, body=%body
}
"""
    with pytest.raises(ValueError, match="loop"):
        Program(text)
