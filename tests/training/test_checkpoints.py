"""Checkpoints: what is saved comes back bit for bit or not at all, and the right ones are kept."""

import errno
import gc
import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import durable_files
from bert_jax.errors import TrainingError, UserError
from bert_jax.training import failed_reads
from bert_jax.training.checkpoints import CheckpointStore, open_model
from bert_jax.training.saved_models import holds_checkpoint
from bert_jax.training.train_state import TrainState


def _state(number: float) -> TrainState:
    params = {"dense": {"kernel": jax.random.normal(jax.random.key(3), (64, 33)) * number, "bias": jnp.arange(5.0)}}
    return TrainState(params, {"mu": jnp.full((7, 2), number)}, jnp.int32(number))


def _abstract(state: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def _equal(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def _save(workdir: pathlib.Path, losses: dict[int, float | None], keep: int = 10) -> None:
    store = CheckpointStore(workdir, keep)
    for step, loss in losses.items():
        validation = None if loss is None else {"loss": loss, "accuracy": 0.5}
        store.save(step, _state(step), {"architecture": {"x": 1}}, {"tokenizer/vocab.txt": b"a\nb\n"}, validation)
    store.close()


def _steps(workdir: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    """Checkpoints of steps 1, 2 and 3, of which 2 has the lowest loss; not to be changed."""
    workdir = tmp_path_factory.mktemp("saved")
    _save(workdir, {1: 3.0, 2: 2.0, 3: 2.5})
    return workdir


def test_the_newest_comes_back_bit_for_bit(saved):
    store = CheckpointStore(saved, 10)
    assert store.steps() == [1, 2, 3] and store.best() == 2.0
    step, state = store.restore_latest(_abstract(_state(1)))
    assert step == 3 and _equal(state, _state(3))
    store.close()


def test_an_empty_folder(tmp_path):
    store = CheckpointStore(tmp_path, 1)
    assert store.restore_latest(_abstract(_state(1))) is None and store.best() is None
    store.close()


def test_a_donated_state_may_be_overwritten_while_it_is_saved(tmp_path):
    store = CheckpointStore(tmp_path, 10)
    advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = {"w": jnp.zeros((512, 512))}
    for step in range(1, 5):
        state = advance(state)
        store.save(step, state, {}, {}, None)
    store.close()
    store = CheckpointStore(tmp_path, 10)
    for step in range(4, 0, -1):
        found, restored = store.restore_latest(_abstract(state))
        assert found == step and np.array_equal(restored["w"], np.full((512, 512), step))
        store.close()
        shutil.rmtree(tmp_path / f"checkpoints/{step}")
        store = CheckpointStore(tmp_path, 10)
    store.close()


def test_the_last_and_the_best_are_kept(tmp_path):
    _save(tmp_path, {1: 5.0, 2: 1.0, 3: 4.0, 4: None, 5: 3.0}, keep=2)
    assert _steps(tmp_path) == [2, 4, 5]
    # Also by a store that was opened later, and until a better one comes.
    _save(tmp_path, {6: 2.0, 7: None, 8: None}, keep=2)
    assert _steps(tmp_path) == [2, 7, 8]
    _save(tmp_path, {9: 0.5, 10: None, 11: None}, keep=2)
    assert _steps(tmp_path) == [9, 10, 11]
    assert open_model(tmp_path, "best").step == 9


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_of_equals_the_first_is_the_best(tmp_path, keep):
    """However many are kept, and as early stopping counts."""
    _save(tmp_path, {1: 2.0, 2: 1.0, 3: 1.0, 4: 3.0}, keep=keep)
    assert open_model(tmp_path, "best").step == 2


def test_unfinished_saves_are_removed(tmp_path):
    _save(tmp_path, {1: None})
    shutil.copytree(tmp_path / "checkpoints/1", tmp_path / "checkpoints/2.orbax-checkpoint-tmp")
    store = CheckpointStore(tmp_path, 1)
    assert store.steps() == [1]
    store.save(3, _state(3), {}, {}, None)
    store.close()
    assert _steps(tmp_path) == [3]


def _damage(path: pathlib.Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x41
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["missing", "truncated", "flipped"])
def test_damage_to_any_file_gives_the_same_numbers_or_those_of_the_checkpoint_before(tmp_path, capsys, saved, kind):
    newest = saved / "checkpoints/3"
    fell_back = set()
    names = [path.relative_to(newest) for path in sorted(newest.rglob("*")) if path.is_file() and path.stat().st_size]
    for number, name in enumerate(names):
        workdir = tmp_path / str(number)
        shutil.copytree(saved, workdir)
        _damage(workdir / "checkpoints/3" / name, kind)
        store = CheckpointStore(workdir, 10)
        step, state = store.restore_latest(_abstract(_state(1)))
        assert _equal(state, _state(step)), name
        if step != 3:
            fell_back.add(str(name))
            assert step == 2 and "checkpoint 3 is damaged" in capsys.readouterr().err
            assert store.steps() == [1, 2] and (workdir / "damaged_checkpoints/3").is_dir()
        store.close()
    # The file that holds the arrays, and the one that holds the checksums.
    largest = max(names, key=lambda name: (newest / name).stat().st_size)
    assert {str(largest), "run/metadata"} <= fell_back


def test_several_damaged_ones(tmp_path, capsys, saved):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    for step in (2, 3):
        shutil.rmtree(workdir / f"checkpoints/{step}/state")
    store = CheckpointStore(workdir, 10)
    step, state = store.restore_latest(_abstract(_state(1)))
    assert step == 1 and _equal(state, _state(1)) and capsys.readouterr().err.count("is damaged") == 2
    # The one that had the lowest loss is gone, and a step that was lost can be saved again.
    assert store.best() == 3.0
    store.save(2, _state(2), {}, {}, None)
    store.close()
    assert _steps(workdir) == [1, 2]


def test_none_that_can_be_read(tmp_path, saved):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    for step in (1, 2, 3):
        shutil.rmtree(workdir / f"checkpoints/{step}/state")
    for _ in range(2):
        store = CheckpointStore(workdir, 10)
        with pytest.raises(TrainingError, match=r"no checkpoint in .* can be read; the newest, 3, fails with"):
            store.restore_latest(_abstract(_state(1)))
        store.close()
        assert _steps(workdir) == [1, 2, 3]


def test_two_processes_that_find_the_same_damage_say_the_same(tmp_path, saved, monkeypatch):
    """One of them has moved the checkpoint aside by the time that the other is about to."""
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    shutil.rmtree(workdir / "checkpoints/1")
    shutil.rmtree(workdir / "checkpoints/3/state")
    first, second = CheckpointStore(workdir, 10), CheckpointStore(workdir, 10)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    restore, message = second._restore, "checkpoint 3 is damaged .* goes on from the checkpoint before"

    def restore_late(step, abstract_state):
        try:
            return restore(step, abstract_state)
        finally:
            with pytest.raises(TrainingError, match=message):
                first.restore_latest(abstract_state)

    monkeypatch.setattr(second, "_restore", restore_late)
    with pytest.raises(TrainingError, match=message):
        second.restore_latest(_abstract(_state(1)))
    assert _steps(workdir) == [2] and (workdir / "damaged_checkpoints/3").is_dir()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, bad):
    _save(tmp_path, {1: None})
    store = CheckpointStore(tmp_path, 1)
    state = _state(2)
    state.params["dense"]["bias"] = state.params["dense"]["bias"].at[1].set(bad)
    with pytest.raises(TrainingError, match=r"step 2 .* not finite"):
        store.save(2, state, {}, {}, None)
    store.close()
    assert _steps(tmp_path) == [1]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("RESOURCE_EXHAUSTED: Failed writing: \"x\": No space left on device [os_error_code='28']"),
    ],
    ids=["orbax", "tensorstore"],
)
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, error):
    store = CheckpointStore(tmp_path, 1)

    def fail(*arguments, **others):
        raise error

    def save():
        store.save(1, _state(1), {}, {}, None)
        store.wait()

    # When the save begins, and while it goes on; then when it is brought to the disk.
    for owner, method in (
        (store._checkpointer, "save"),
        (store._checkpointer, "wait_until_finished"),
        (durable_files, "sync_file"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, method, fail)
            with pytest.raises(UserError, match=r"^cannot write to .*checkpoints: No space left on device; make room"):
                save()
    store.close()
    assert CheckpointStore(tmp_path, 1).steps() == [] and _steps(tmp_path) == []


def test_a_mistake_of_the_program_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, 1)

    def fail(*arguments, **others):
        raise ValueError("a tree of another structure")

    monkeypatch.setattr(store._checkpointer, "save", fail)
    with pytest.raises(ValueError, match="another structure"):
        store.save(1, _state(1), {}, {}, None)
    store.close()


def test_a_model_by_its_run_or_a_copy_of_a_checkpoint(tmp_path, saved):
    assert open_model(saved).step == open_model(saved, "latest").step == open_model(saved, "3").step == 3
    assert open_model(saved, "best").step == open_model(str(saved), "2").step == 2
    shutil.copytree(saved / "checkpoints/1", tmp_path / "elsewhere")
    model = open_model(tmp_path / "elsewhere")
    assert model.step == 1 and model.run["architecture"] == {"x": 1}
    assert (model.files / "tokenizer/vocab.txt").read_bytes() == b"a\nb\n"
    assert _equal(model.load_parameters(), _state(1).params)
    assert _equal(model.load_parameters(_abstract(_state(1)).params), _state(1).params)


def test_parameters_are_read_without_the_rest(saved):
    parameters = open_model(saved).load_parameters()
    assert set(parameters) == {"dense"} and _equal(parameters, _state(3).params)


@pytest.mark.parametrize(
    ("step", "message"), [("9", "no checkpoint of step 9: it has 1, 2, 3"), ("newest", "no checkpoint of step newest")]
)
def test_a_step_that_is_not_there(saved, step, message):
    with pytest.raises(UserError, match=message):
        open_model(saved, step)


def test_no_model(tmp_path, saved):
    for path, message in ((tmp_path / "x", "no such directory"), (tmp_path, "no finished checkpoint")):
        with pytest.raises(UserError, match=message):
            open_model(path)
    _save(tmp_path, {1: None})
    with pytest.raises(UserError, match="no checkpoint with a validation loss"):
        open_model(tmp_path, "best")


def test_a_damaged_model(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "run")
    checkpoint = tmp_path / "run/checkpoints/3"
    arrays = max((path for path in (checkpoint / "state").rglob("*")), key=lambda path: path.stat().st_size)
    _damage(arrays, "flipped")
    with pytest.raises(UserError, match="checkpoints/3 is damaged"):
        open_model(tmp_path / "run").load_parameters()
    (checkpoint / "run/metadata").write_text("{")
    for path, step in ((tmp_path / "run", "3"), (checkpoint, "latest")):
        with pytest.raises(UserError, match=r"checkpoints/3 is not a readable checkpoint: run/metadata is not JSON"):
            open_model(path, step)


def test_damage_elsewhere_does_not_change_which_is_the_best(tmp_path, saved):
    """Whatever it is that is damaged of the latest, and of another one."""
    for number, (step, wanted, used) in enumerate([(3, "best", 2), (1, "best", 2), (2, "best", 3), (3, "latest", 2)]):
        for name, damage in (("metadata", "{"), ("metadata", ""), ("metadata", "[1]"), ("gone", None)):
            run = tmp_path / f"{number}{name}{damage}"
            shutil.copytree(saved, run)
            if damage is None:
                shutil.rmtree(run / f"checkpoints/{step}/run")
            else:
                (run / f"checkpoints/{step}/run/metadata").write_text(damage)
            model = open_model(run, wanted)
            assert model.step == used and set(model.skipped) == {step}
            assert model.chosen_as == ("the latest" if wanted == "latest" else "the best by loss")
            # Every checkpoint is still there.
            assert _steps(run) == [1, 2, 3]


def test_the_best_or_the_latest(tmp_path, saved):
    assert open_model(saved, "best or latest").step == 2
    _save(tmp_path, {1: None, 2: None})
    model = open_model(tmp_path, "best or latest")
    assert model.step == 2 and model.chosen_as == "the latest, as none was evaluated"
    (tmp_path / "checkpoints/1/run/metadata").write_text("")
    with pytest.raises(UserError, match=r"1 cannot be read: there is no telling which is the best; name one of 2"):
        open_model(tmp_path, "best or latest")
    with pytest.raises(UserError, match="is a single checkpoint: another"):
        open_model(tmp_path / "checkpoints/2", "1")


def test_a_metric_that_is_not_a_number_is_not_the_best(tmp_path):
    _save(tmp_path, {1: float("nan"), 2: 3.0, 3: float("nan"), 4: 5.0}, keep=1)
    assert _steps(tmp_path) == [2, 4] and open_model(tmp_path, "best").step == 2


@pytest.mark.parametrize(
    "record", [{"best_by": [1]}, {"validation": "x"}, {"validation": {"accuracy": 1}}, {"step": "3"}]
)
def test_a_record_of_other_types_is_damaged(tmp_path, saved, record):
    shutil.copytree(saved, tmp_path / "run")
    path = tmp_path / "run/checkpoints/3/run/metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), **record}))
    assert open_model(tmp_path / "run").step == 2


@pytest.fixture
def failing_reads(monkeypatch):
    """Lets the next reads of a checkpoint's arrays fail, each with an error of a list."""
    monkeypatch.setattr(failed_reads.time, "sleep", lambda seconds: None)

    def fail(store: CheckpointStore, errors: list[Exception]) -> None:
        restore = store._checkpointer.restore

        def fail_or_restore(*arguments, **others):
            if errors:
                raise errors.pop()
            return restore(*arguments, **others)

        monkeypatch.setattr(store._checkpointer, "restore", fail_or_restore)

    return fail


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")],
)
def test_a_disk_that_does_not_answer_is_not_damage(tmp_path, saved, failing_reads, error):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    store = CheckpointStore(run, 10)
    failing_reads(store, [error])
    step, state = store.restore_latest(_abstract(_state(1)))
    assert step == 3 and _equal(state, _state(3))
    failing_reads(store, [error] * 3)
    with pytest.raises(TrainingError, match="checkpoint 3 cannot be read now"):
        store.restore_latest(_abstract(_state(1)))
    store.close()
    assert _steps(run) == [1, 2, 3] and not (run / "damaged_checkpoints").exists()


def test_a_record_that_cannot_be_read_now_ends_the_run(tmp_path, saved, monkeypatch):
    """The best would be removed by who does not know which it is."""
    monkeypatch.setattr(failed_reads.time, "sleep", lambda seconds: None)
    read = pathlib.Path.read_bytes

    def fail(path: pathlib.Path) -> bytes:
        if path.parts[-3:] == ("2", "run", "metadata"):
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    with pytest.raises(TrainingError, match="checkpoint 2 cannot be read now"):
        CheckpointStore(saved, 1)
    assert _steps(saved) == [1, 2, 3]


def test_all_of_a_checkpoint_is_on_disk_before_it_has_its_name_and_before_an_older_one_goes(tmp_path, monkeypatch):
    events = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def name(path) -> str:
        return os.path.relpath(path, tmp_path / "checkpoints")

    def record_sync(descriptor: int) -> None:
        events.append(("sync", name(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def record_rename(call):
        def renamed(source, target, **others):
            events.append(("rename", name(source), name(target)))
            call(source, target, **others)

        return renamed

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "rename", record_rename(rename))
    monkeypatch.setattr(os, "replace", record_rename(replace))
    _save(tmp_path, {1: None, 2: None}, keep=1)
    named = events.index(("rename", ".2.unfinished", "2"))
    files = [name(path) for path in (tmp_path / "checkpoints/2").rglob("*")]
    synced = {event[1] for event in events[:named] if event[0] == "sync"}
    assert {f".2.unfinished{file[1:]}" for file in files} | {".2.unfinished"} <= synced and len(files) > 8
    assert events[named + 1] == ("sync", ".")
    assert events.index(("rename", "1", ".1.removed")) > named + 1


def test_what_was_superseded_or_half_removed_when_a_run_was_killed(tmp_path, capsys):
    """By this version, which removes under another name, and by those before, which did so file by file."""
    _save(tmp_path, {1: 1.0, 2: None, 3: None, 4: None, 5: None})
    checkpoints = tmp_path / "checkpoints"
    shutil.rmtree(checkpoints / "2/run")
    (checkpoints / "3").rename(checkpoints / ".3.removed")
    (checkpoints / ".6.unfinished.orbax-checkpoint-tmp/state").mkdir(parents=True)
    store = CheckpointStore(tmp_path, 1)
    assert sorted(os.listdir(checkpoints)) == ["1", "2", "4", "5"]
    assert store.restore_latest(_abstract(_state(1)))[0] == 5
    store.close()
    assert _steps(tmp_path) == [1, 5] and os.listdir(tmp_path / "damaged_checkpoints") == ["2"]
    assert "checkpoint 2 is not complete: moved to damaged_checkpoints" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_one_line(tmp_path, saved, capfd):
    """Also where many reads are under way when the first fails."""
    shutil.copytree(saved, tmp_path / "run")
    for manifest in (tmp_path / "run/checkpoints/3/state").rglob("manifest*"):
        manifest.write_bytes(b"")
    store = CheckpointStore(tmp_path / "run", 10)
    assert store.restore_latest(_abstract(_state(1)))[0] == 2
    store.close()
    gc.collect()
    error = capfd.readouterr().err
    assert error.startswith("checkpoint 3 is damaged (DATA_LOSS") and error.count("\n") == 1


def test_a_folder_that_cannot_be_listed_is_not_one_without_checkpoints(saved, monkeypatch):
    """A run would begin again there."""
    monkeypatch.setattr(failed_reads.time, "sleep", lambda seconds: None)

    def fail(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(TrainingError, match=r"checkpoints cannot be read now \(Permission denied\)"):
        holds_checkpoint(saved)


@pytest.mark.parametrize(("old", "new"), [('"loss": 2.0', '"loss": 9.0'), ('"x": 1', '"x": 2')])
def test_a_number_that_changed_in_a_record_is_damage(tmp_path, saved, old, new):
    """Another model would be the best, or be read as another architecture; records of before had no checksum."""
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    path = run / "checkpoints/2/run/metadata"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    model = open_model(run, "best")
    assert model.step == 3 and "not as it was saved" in model.skipped[2]
    record = json.loads(path.read_text())
    del record["record_sha256"]
    path.write_text(json.dumps(record))
    assert not open_model(run, "best").skipped


@pytest.mark.parametrize("kind", ["a file", "a link to another", "a copy of another", "a pipe in it"])
def test_what_has_the_name_of_a_checkpoint_and_is_another_thing_is_damage(tmp_path, capsys, saved, kind):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    place = run / "checkpoints/3"
    if kind == "a pipe in it":
        (place / "run/metadata").unlink()
        os.mkfifo(place / "run/metadata")
    else:
        shutil.rmtree(place)
        if kind == "a file":
            place.write_text("x")
        elif kind == "a link to another":
            place.symlink_to(run / "checkpoints/1")
        else:
            shutil.copytree(run / "checkpoints/1", place)
    model = open_model(run)
    assert model.step == 2 and set(model.skipped) == {3}
    with pytest.raises(UserError, match="checkpoints/3 is not a readable checkpoint"):
        open_model(run, "3")
    store = CheckpointStore(run, 10)
    assert store.restore_latest(_abstract(_state(1)))[0] == 2
    store.save(3, _state(3), {}, {}, None)
    store.close()
    assert _steps(run) == [1, 2, 3] and os.listdir(run / "damaged_checkpoints") == ["3"]


def test_a_checkpoint_may_lie_elsewhere_behind_a_link(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run/checkpoints/3").rename(tmp_path / "elsewhere")
    (tmp_path / "run/checkpoints/3").symlink_to(tmp_path / "elsewhere")
    assert open_model(tmp_path / "run").step == 3
