"""The bytes that compiled programs move, counted by hand on programs of a few lines."""

import pytest

from bert_jax.parallel.hlo import Program
from bert_jax.parallel.hlo_traffic import memory_bytes

_STACK, _LAYER = 24 * 8 * 4 * 4, 8 * 4 * 4


def entry(*lines: str, called: str = "") -> Program:
    body = "\n".join(f"  {line}" for line in lines)
    return Program(
        f"{called}\nENTRY %main (x: f32[8,4]) -> f32[] {{\n  %x = f32[8,4]{{1,0}} parameter(0)\n{body}\n}}\n"
    )


def fused(*lines: str, name: str = "fused") -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"%{name} (p: f32[24,8,4]) -> f32[8,4] {{\n{body}\n}}\n"


def test_operands_are_read_and_results_written():
    program = entry(
        '%y = bf16[4,16]{1,0} custom-call(%x), custom_call_target="Sharding"',
        "ROOT %dot = f32[8,16]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
    )
    assert memory_bytes(program) == (_LAYER + 4 * 16 * 2) + (_LAYER + 4 * 16 * 2 + 8 * 16 * 4)


def test_what_lies_in_a_cores_memory_does_not_move():
    program = entry(
        "%near = f32[8,4]{1,0:T(8,128)S(1)} negate(%x)",
        "%again = f32[8,4]{1,0:T(8,128)S(1)} negate(%near)",
        "ROOT %far = f32[8,4]{1,0:T(8,128)} negate(%again)",
    )
    assert memory_bytes(program) == 2 * _LAYER


def test_copies_beside_other_work_count_where_they_begin():
    program = entry(
        "%start = (f32[8,4]{1,0:S(1)}, f32[8,4]{1,0}, u32[]{:S(2)}) copy-start(%x)",
        "%done = f32[8,4]{1,0:S(1)} copy-done(%start)",
        "%cut = ((f32[8,4]{1,0}), f32[2,4]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:2], [0:4]}",
        "ROOT %slice = f32[2,4]{1,0:S(1)} slice-done(%cut)",
    )
    assert memory_bytes(program) == _LAYER + _LAYER // 4


def test_names_and_reserved_memory_are_free():
    program = entry(
        '%room = f32[1000]{0} custom-call(), custom_call_target="AllocateBuffer"',
        "%flat = f32[32]{0} bitcast(%x)",
        "ROOT %both = (f32[1000]{0}, f32[32]{0}) tuple(%room, %flat)",
    )
    assert memory_bytes(program) == 0


_SLICED = (
    "%p = f32[24,8,4]{2,1,0} parameter(0)",
    "%i = s32[]{:S(6)} parameter(1)",
    "%slice = f32[1,8,4]{2,1,0} dynamic-slice(%p, %i), dynamic_slice_sizes={1,8,4}",
)
_CALL = (
    "%far = f32[24,8,4]{2,1,0} parameter(1)",
    "%i = s32[]{:S(6)} parameter(2)",
)


def test_of_a_stack_that_a_fusion_slices_the_slice_is_read():
    called = fused(*_SLICED, "ROOT %b = f32[8,4]{1,0} bitcast(%slice)")
    program = entry(*_CALL, "ROOT %f = f32[8,4]{1,0} fusion(%far, %i), kind=kLoop, calls=%fused", called=called)
    assert memory_bytes(program) == 2 * _LAYER


def test_a_stack_that_is_used_as_a_whole_too_is_read_whole():
    called = fused(
        *_SLICED,
        "%sum = f32[8,4]{1,0} reduce(%p, %i), dimensions={0}, to_apply=%add",
        "%b = f32[8,4]{1,0} bitcast(%slice)",
        "ROOT %all = f32[8,4]{1,0} add(%sum, %b)",
    )
    program = entry(*_CALL, "ROOT %f = f32[8,4]{1,0} fusion(%far, %i), kind=kLoop, calls=%fused", called=called)
    assert memory_bytes(program) == _STACK + _LAYER


def test_a_slice_is_seen_behind_a_conversion_in_a_fusion_within():
    called = fused(
        "%q = f32[24,8,4]{2,1,0} parameter(0)", "ROOT %c = bf16[24,8,4]{2,1,0} convert(%q)", name="inner"
    ) + fused(
        "%p = f32[24,8,4]{2,1,0} parameter(0)",
        "%i = s32[]{:S(6)} parameter(1)",
        "%low = bf16[24,8,4]{2,1,0} fusion(%p), kind=kLoop, calls=%inner",
        "ROOT %slice = bf16[1,8,4]{2,1,0} dynamic-slice(%low, %i), dynamic_slice_sizes={1,8,4}",
    )
    program = entry(*_CALL, "ROOT %f = bf16[1,8,4]{2,1,0} fusion(%far, %i), kind=kLoop, calls=%fused", called=called)
    assert memory_bytes(program) == _LAYER + _LAYER // 2


@pytest.mark.parametrize("space", ["", "S(1)"])
def test_of_a_stack_that_is_updated_in_place_the_update_is_written(space):
    called = fused(
        "%p = f32[24,8,4]{2,1,0} parameter(0)",
        f"%new = f32[8,4]{{1,0:{space}}} parameter(1)",
        "%i = s32[]{:S(6)} parameter(2)",
        "%b = f32[1,8,4]{2,1,0} bitcast(%new)",
        "ROOT %update = f32[24,8,4]{2,1,0} dynamic-update-slice(%p, %b, %i)",
    )
    program = entry(
        *_CALL,
        f"%value = f32[8,4]{{1,0:{space}}} negate(%x)",
        "ROOT %f = f32[24,8,4]{2,1,0} fusion(%far, %value, %i), kind=kLoop, calls=%fused",
        called=called,
    )
    value = 0 if space else 2 * _LAYER
    assert memory_bytes(program) == _LAYER + value + _LAYER


def test_a_loop_moves_its_slices_as_often_as_it_runs():
    called = (
        fused(*_SLICED, "ROOT %b = f32[8,4]{1,0} bitcast(%slice)")
        + """
%condition (p: (s32[], f32[24,8,4])) -> pred[] {
  %p = (s32[], f32[24,8,4]) parameter(0)
  %number = s32[] constant(24)
  %counter = s32[]{:S(6)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:S(6)} compare(%counter, %number), direction=LT
}

%body (q: (s32[], f32[24,8,4])) -> (s32[], f32[24,8,4]) {
  %q = (s32[]{:S(6)}, f32[24,8,4]{2,1,0}) parameter(0)
  %j = s32[]{:S(6)} get-tuple-element(%q), index=0
  %far = f32[24,8,4]{2,1,0} get-tuple-element(%q), index=1
  %f = f32[8,4]{1,0:S(1)} fusion(%far, %j), kind=kLoop, calls=%fused
  %one = s32[]{:S(6)} constant(1)
  %next = s32[]{:S(6)} add(%j, %one)
  ROOT %t = (s32[]{:S(6)}, f32[24,8,4]{2,1,0}) tuple(%next, %far)
}
"""
    )
    program = entry("ROOT %w = (s32[], f32[24,8,4]) while(%x), condition=%condition, body=%body", called=called)
    assert memory_bytes(program) == 24 * _LAYER
