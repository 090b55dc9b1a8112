"""Whether a folder holds the run that is asked for."""

import errno
import os

import pytest

from bert_jax.errors import UserError
from bert_jax.training.run_identity import check_identity, read_identity, write_identity

_IDENTITY = {"BertConfig.hidden_size": 16, "Schedule.kind": "linear", "data.rows_32": "a" * 64, "pretrain.steps": 10}


def _check(saved, wanted, *, depends=True, allow=False):
    check_identity(
        "runs/x",
        saved,
        wanted,
        last_steps="pretrain.steps",
        schedule_depends_on_steps=depends,
        allow_schedule_change=allow,
    )


def test_what_is_written_is_read(tmp_path):
    assert read_identity(tmp_path) is None and read_identity(tmp_path / "nowhere") is None
    write_identity(tmp_path, _IDENTITY)
    assert read_identity(tmp_path) == _IDENTITY
    (tmp_path / "file").write_text("x")
    assert read_identity(tmp_path / "file") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run.json"]


def test_a_damaged_file(tmp_path):
    (tmp_path / "run.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        read_identity(tmp_path)


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    write_identity(tmp_path, _IDENTITY)

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bert_jax.training.run_identity.os.replace", refuse)
    with pytest.raises(UserError, match=r"cannot write .*run\.json: No space left on device"):
        write_identity(tmp_path, {})
    assert read_identity(tmp_path) == _IDENTITY


def test_the_same_run():
    _check(_IDENTITY, _IDENTITY)
    # JSON knows no tuples.
    _check({"a": [1, 2]}, {"a": (1, 2)})


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        ({}, {"BertConfig.hidden_size": 32}, "BertConfig.hidden_size is 32, but the run in runs/x has 16: set it back"),
        ({}, {"data.rows_32": "b" * 64}, "data.rows_32 is bbbbbbbbbbbb..., but the run in runs/x has aaaaaaaaaaaa..."),
        ({}, {"data.rows_64": "b"}, "data.rows_64 is 'b', but the run in runs/x has None"),
        ({"data.rows_64": "b"}, {}, "data.rows_64 is None, but the run in runs/x has 'b'"),
        ({}, {"Schedule.kind": "constant"}, "Schedule.kind is 'constant'"),
        ({}, {"pretrain.steps": 11}, "planned for 10, which its learning rate depends on"),
        ({}, {"pretrain.steps": 9}, "planned for 10: set it back"),
    ],
)
def test_a_difference_is_named(saved, wanted, message):
    with pytest.raises(UserError) as error:
        _check({**_IDENTITY, **saved}, {**_IDENTITY, **wanted})
    assert message in str(error.value) and "--workdir" in str(error.value)


def test_when_the_number_of_steps_may_change():
    more, fewer = {**_IDENTITY, "pretrain.steps": 11}, {**_IDENTITY, "pretrain.steps": 9}
    _check(_IDENTITY, more, depends=False)
    with pytest.raises(UserError):
        _check(_IDENTITY, fewer, depends=False)
    for wanted in (more, fewer, {**_IDENTITY, "Schedule.kind": "constant"}):
        _check(_IDENTITY, wanted, allow=True)
    with pytest.raises(UserError, match="hidden_size"):
        _check(_IDENTITY, {**more, "BertConfig.hidden_size": 32}, allow=True)
