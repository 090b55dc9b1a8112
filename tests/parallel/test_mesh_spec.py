"""What --mesh may say, and what it may not, in one line and without JAX."""

import subprocess
import sys

import pytest

from bert_jax.errors import UserError
from bert_jax.parallel.mesh_spec import DEFAULT_MESH, MeshSpec, check_heads, parse_mesh


def test_axes_that_are_not_named_have_size_one():
    assert parse_mesh("fsdp:8") == MeshSpec(data=1, fsdp=8, tensor=1)
    assert parse_mesh("data:-1, fsdp:4,tensor:2") == MeshSpec(data=-1, fsdp=4, tensor=2)
    assert parse_mesh("data:2", "dcn_mesh") == MeshSpec(data=2)


@pytest.mark.parametrize("text", ["data:-1", "data:2,fsdp:-1", "fsdp:8", "data:1", "data:4,tensor:2"])
def test_a_specification_is_written_as_it_is_read(text):
    assert str(parse_mesh(text)) == text


@pytest.mark.parametrize(
    ("text", "devices", "sizes"),
    [
        ("data:-1", 8, (8, 1, 1)),
        ("data:-1,fsdp:4,tensor:2", 16, (2, 4, 2)),
        ("data:2,fsdp:-1", 8, (2, 4, 1)),
        ("tensor:-1", 1, (1, 1, 1)),
        ("data:2,fsdp:2,tensor:2", 8, (2, 2, 2)),
    ],
)
def test_what_is_left(text, devices, sizes):
    assert parse_mesh(text).resolve(devices).sizes == sizes
    assert DEFAULT_MESH.resolve(devices).sizes == (devices, 1, 1)


@pytest.mark.parametrize(
    ("text", "devices", "message"),
    [
        ("data:3", 8, "--mesh=data:3 needs 3 devices, and there are 8"),
        ("data:16", 8, "needs 16 devices"),
        ("data:-1,fsdp:3", 8, "needs a multiple of 3 devices, and there are 8"),
        ("data:-1,fsdp:16", 8, "a multiple of 16"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices(text, devices, message):
    with pytest.raises(UserError, match=message) as error:
        parse_mesh(text).resolve(devices)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "flag", "message"),
    [
        ("", "mesh", "'' is not an axis; write data, fsdp, tensor"),
        ("8", "mesh", "'8' is not an axis"),
        ("model:2", "mesh", "--mesh=model:2: 'model' is not an axis"),
        ("data:2,data:4", "mesh", "data is there twice"),
        ("data", "mesh", "the size of data must be a positive number, or -1"),
        ("data:0", "mesh", "not '0'"),
        ("data:-2", "mesh", "not '-2'"),
        ("data:1.5", "mesh", "not '1.5'"),
        ("data:-1,fsdp:-1", "mesh", "only one axis can be -1"),
        ("data:-1", "dcn_mesh", "--dcn_mesh=data:-1: the size of data must be a positive number, not '-1'"),
    ],
)
def test_what_cannot_be_read(text, flag, message):
    with pytest.raises(UserError) as error:
        parse_mesh(text, flag)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_tensor_axis_must_divide_the_heads():
    for tensor in (1, 2, 3, 4, 6, 12):
        check_heads(tensor, 12)
    with pytest.raises(UserError, match=r"tensor is 8, and the model's 12 attention heads .* use 1, 2, 3, 4, 6 or 12"):
        check_heads(8, 12)
    with pytest.raises(UserError, match="one attention head: use 1"):
        check_heads(2, 1)


def test_it_is_read_before_jax_is_imported(repository_root):
    code = (
        "import sys; from absl import flags; from launch import mesh_flags; values = flags.FlagValues();"
        "mesh_flags.define_mesh_flags(values); values(['x', '--mesh=fsdp:2']); mesh_flags.parse_mesh_flags(values);"
        "assert 'jax' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository_root)
