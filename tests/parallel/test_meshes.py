"""The same training on every mesh, what each device holds of it, and checkpoints that change meshes.

What needs several devices runs in one process of its own, eight_devices.py, on fake devices of the CPU.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.parallel.mesh import make_mesh
from bert_jax.parallel.mesh_spec import MeshSpec

# As in eight_devices.py.
VOCAB_SIZE, LAYERS, HIDDEN, MLP, SAVED_AT = 100, 3, 32, 64, 3
ROWS, LENGTH, STEPS = 16, 24, 6
LAYOUTS = ("data:8", "fsdp:8", "data:2,tensor:4", "data:2,fsdp:2,tensor:2", "pmap")


@pytest.fixture(scope="module")
def batches_file(tmp_path_factory, random_pairs, lay_out):
    """Six batches of rows that differ in their number of pairs and of masked tokens."""
    path = tmp_path_factory.mktemp("meshes") / "batches.npz"
    pairs = iter(random_pairs(2 * ROWS * STEPS, VOCAB_SIZE))
    draw = np.random.default_rng(1)
    arrays = {}
    for step in range(STEPS):
        rows = [[next(pairs) for _ in range(draw.integers(1, 3))] for _ in range(ROWS)]
        batch = lay_out(rows, length=LENGTH, predictions=6, max_pairs=2)
        # Devices with few masked tokens, and devices with many: a mean of their means is not the mean.
        batch["masked_weights"][: ROWS // 2, 1:] = 0
        arrays |= {f"{step}/{name}": array for name, array in batch.items()}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def on_devices(repository_root, batches_file):
    """Runs the script on fake devices; returns what it prints."""

    def run(devices: int, action: str):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository_root)}
        script = pathlib.Path(__file__).with_name("eight_devices.py")
        command = [sys.executable, str(script), action, str(batches_file), str(batches_file.parent / "run")]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=repository_root)
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    return run


@pytest.fixture(scope="module")
def trained(on_devices):
    """What came of training on each mesh of 8 devices."""
    return on_devices(8, "train")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_the_same_on_every_mesh_with_dropout(trained, layout):
    reference, losses = trained["losses"]["1 device"], trained["losses"][layout]
    assert len(losses) == STEPS
    # Another dropout mask, or one row that counts otherwise, changes the third digit.
    np.testing.assert_allclose(losses, reference, rtol=1e-5)
    assert len({loss for loss, _ in reference}) == STEPS


@pytest.mark.slow
def test_evaluation_is_the_same_on_a_mesh_of_all_axes(trained):
    reference, metrics = (trained["evaluation"][name] for name in ("1 device", "data:2,fsdp:2,tensor:2"))
    assert metrics.keys() == reference.keys()
    for name, value in reference.items():
        assert metrics[name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.slow
def test_pmap_leaves_a_state_that_jit_goes_on_with(trained):
    np.testing.assert_allclose(trained["jit_after_pmap"], trained["losses"]["data:8"][SAVED_AT:], rtol=1e-5)


@pytest.mark.slow
def test_fsdp_leaves_each_device_an_eighth_of_the_state(trained):
    held = trained["bytes_held"]
    assert set(held) == {trained["bytes_expected"]}
    # Parameters and two moments: what is whole on every device is biases alone.
    whole = 3 * 4 * LAYERS * (12 * HIDDEN * HIDDEN + 4 * HIDDEN)
    assert held[0] < whole / 4
    # The compiled step takes the state in as it lies, and its rows.
    assert held[0] < trained["argument_bytes"] < held[0] + 4 * 8 * ROWS * LENGTH


@pytest.mark.slow
def test_fsdp_gathers_layer_by_layer_and_never_the_activations(trained):
    """Parameters are gathered where a layer needs them; neither they nor gradients are ever there for all layers."""
    gathered = trained["gathered_shapes"]
    assert [HIDDEN, MLP] in gathered and [MLP, HIDDEN] in gathered
    heads = [4, HIDDEN // 4]
    of_a_layer = [HIDDEN, *heads], [*heads, HIDDEN], [HIDDEN, MLP], [MLP, HIDDEN]
    of_all_layers = [[LAYERS, *kernel] for kernel in of_a_layer]
    for layout, shapes in trained["float_shapes"].items():
        assert [HIDDEN, MLP] in shapes and [ROWS // 8, LENGTH, HIDDEN] in shapes, layout
        for shape in shapes:
            assert shape not in of_all_layers, layout
            # Nor the pieces of vectors of all rows, as a table whose vectors are cut gives them.
            of_all_rows = shape[:2] == [ROWS, LENGTH] or shape[0] == ROWS * LENGTH
            assert not of_all_rows, (layout, shape)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [8, 16])
def test_a_checkpoint_of_eight_devices_is_restored_on_others_bit_for_bit(trained, on_devices, devices):
    restored = on_devices(devices, "restore")
    assert len(restored) == (4 if devices == 8 else 1)
    for mesh, found in restored.items():
        assert found["step"] == SAVED_AT, mesh
        assert found["checksums"] == trained["checksums"], mesh
        assert found["laid_out"], mesh
        if found["losses"]:
            np.testing.assert_allclose(found["losses"], trained["losses"]["fsdp:8"][SAVED_AT:], rtol=1e-5)
    assert any(found["losses"] for found in restored.values()) == (devices == 8)


class FakeDevice:
    """As much of a device as a mesh asks for."""

    platform = device_kind = "cpu"
    process_index = 0

    def __init__(self, number: int, slice_index: int | None):
        self.id = number
        if slice_index is not None:
            self.slice_index = slice_index

    def __repr__(self) -> str:
        return f"device {self.id}"


def ids(mesh) -> np.ndarray:
    return np.vectorize(lambda device: device.id)(mesh.devices)


def fake_devices(number: int, slices: int | None = None) -> list[FakeDevice]:
    return [FakeDevice(i, i * slices // number if slices else None) for i in range(number)]


def test_the_default_is_all_devices_on_data():
    mesh = make_mesh()
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == (jax.device_count(), 1, 1)
    assert ids(make_mesh(devices=fake_devices(8))).ravel().tolist() == list(range(8))


def test_across_nodes_is_outermost_where_no_slices_are_known():
    mesh = make_mesh(MeshSpec(2, 2, 2), MeshSpec(data=2), fake_devices(8))
    np.testing.assert_array_equal(ids(mesh)[0].ravel(), [0, 1, 2, 3])
    # fsdp across nodes: neighbours on data and tensor are of the same node.
    mesh = make_mesh(MeshSpec(2, 4, 1), MeshSpec(fsdp=2), fake_devices(8))
    np.testing.assert_array_equal(ids(mesh)[..., 0], [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_slices_lie_along_the_axis_asked_for():
    for dcn in (MeshSpec(data=2), None):
        mesh = make_mesh(MeshSpec(-1, 2, 2), dcn, fake_devices(16, slices=2))
        slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        assert (slices == np.arange(4)[:, None, None] // 2).all()
    mesh = make_mesh(MeshSpec(1, 16, 1), MeshSpec(fsdp=2), fake_devices(16, slices=2))
    assert [device.slice_index for device in mesh.devices.ravel()] == [0] * 8 + [1] * 8


@pytest.mark.parametrize(
    ("spec", "dcn", "slices", "message"),
    [
        (MeshSpec(3), None, None, "--mesh=data:3 needs 3 devices, and there are 8"),
        (MeshSpec(2, 4), MeshSpec(data=4), None, "data is 2 in the whole mesh and does not divide over 4"),
        (MeshSpec(8), MeshSpec(data=4), 2, "--dcn_mesh=data:4 wants 4 slices, and the devices lie in 2"),
    ],
)
def test_meshes_that_do_not_fit(spec, dcn, slices, message):
    with pytest.raises(UserError, match=message) as error:
        make_mesh(spec, dcn, fake_devices(8, slices))
    assert "\n" not in str(error.value)
