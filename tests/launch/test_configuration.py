"""Gin: every binding is honoured or refused, and what is wrong with it is said with its place."""

import os
import pathlib

import gin
import pytest

from bert_jax.config import BertConfig
from bert_jax.errors import UserError
from bert_jax.tasks.pretraining_recipe import Phase
from launch.configuration import REPOSITORY, load_pretrain

_RUN = ["pretrain.steps = 3", "pretrain.batch_size = 2"]


def _line(files=(), params=()) -> str:
    with pytest.raises(UserError) as error:
        load_pretrain(files, params)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bindings_of_every_part_are_honoured():
    recipe, record = load_pretrain(
        [],
        [
            *_RUN,
            "BertConfig.hidden_size = 24",
            "BertConfig.num_attention_heads = 2",
            "Optimizer.kind = 'lamb'",
            "Schedule.kind = 'constant'",
            "Masking.whole_word = True",
            "Execution.dtype = 'bfloat16'",
            "pretrain.learning_rate = 1",
            "pretrain.eval_rows = None",
        ],
    )
    assert recipe.model == BertConfig(hidden_size=24, num_attention_heads=2)
    assert (recipe.steps, recipe.batch_size, recipe.learning_rate) == (3, 2, 1)
    assert (recipe.optimizer.kind, recipe.schedule.kind, recipe.masking.whole_word) == ("lamb", "constant", True)
    assert recipe.execution.dtype == "bfloat16"
    for text in ("BertConfig.hidden_size = 24", "Masking.whole_word = True", "pretrain.steps = 3"):
        assert text in record


def test_phases():
    shared = [
        "Phase.batch_size = 2",
        "first/Phase.seq_len = 32",
        "second/Phase.seq_len = 64",
        "Phase.steps = %N",
        "N = 7",
    ]
    recipe, _ = load_pretrain([], [*shared, "pretrain.phases = [@first/Phase(), @second/Phase()]"])
    assert list(recipe.phases) == [Phase(32, 2, 7), Phase(64, 2, 7)]
    assert "exclude each other" in _line([], [*shared, *_RUN, "pretrain.phases = [@first/Phase(), @second/Phase()]"])


def test_later_bindings_win_and_nothing_is_left_of_an_earlier_call(tmp_path):
    one, two = tmp_path / "one.gin", tmp_path / "two.gin"
    one.write_text("pretrain.steps = 3\npretrain.batch_size = 2\npretrain.seed = 1\n")
    two.write_text("pretrain.steps = 4\n")
    recipe, _ = load_pretrain([str(one), str(two)], ["pretrain.batch_size = 8"])
    assert (recipe.steps, recipe.batch_size, recipe.seed) == (4, 8, 1)
    assert load_pretrain([], _RUN)[0].seed == 0


@pytest.mark.parametrize(
    "path", sorted(path.relative_to(REPOSITORY) for path in REPOSITORY.glob("gin_configs/pretrain/*"))
)
def test_the_shipped_files_load_from_any_directory(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    recipe, _ = load_pretrain([str(path)], [])
    assert recipe.model.vocab_size is None
    assert load_pretrain([str(REPOSITORY / path)], [])[0] == recipe


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("\n\npretrain.stepz = 3\n", 3, "stepz"),
        ("pretrain.seed = 1\nnowhere.steps = 3\n", 2, "unknown name 'nowhere'"),
        ("pretrain.seed = \n", 1, "cannot parse"),
        ("pretrain.seed = 1\npretrain.seed 2\n", 2, "cannot parse"),
        ("include 'nowhere.gin'\n", 1, "cannot find the file nowhere.gin"),
        ("\nBertConfig" + " " * 20_000 + "$\n", 2, "the line is longer than 2,000 characters"),
        ("pretrain.seed = [seed]\n", 1, "'seed' is not a value (strings are in quotes"),
        ("pretrain.seed = 1\npretrain." + "s" * 1900, 2, "cannot parse"),
        ("import nowhere_at_all\n", 1, "cannot import nowhere_at_all"),
        ("\nimport os\n", 2, "cannot import os"),
        ("from __gin__ import dynamic_registration\n", 1, "cannot import __gin__.dynamic_registration"),
        ("pretrain.steps = @gin.singleton()\n", 1, "unknown name 'gin.singleton'"),
        ("pretrain.steps = @os.system()\n", 1, "unknown name 'os.system'"),
        ("pretrain.steps = [{'a': (@x/foreign_call(),)}]\n", 1, "unknown name 'foreign_call'"),
        ("foreign_call.command = 'true'\n", 1, "unknown name 'foreign_call'"),
        ("foreign_call:\n  command = 'true'\n", 1, "unknown name 'foreign_call'"),
        ("pretrain.steps = @nowhere()\n", 1, "nowhere"),
    ],
)
def test_a_mistake_in_a_file_has_its_place(tmp_path, monkeypatch, capfd, text, line, what):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("run.gin").write_text(text)
    message = _line(["run.gin"], _RUN)
    assert message.startswith(f"run.gin:{line}: ") and what in message and len(message) < 500
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module", autouse=True)
def foreign():
    """Has gin know a function of somebody else, as any library that was imported may."""

    def foreign_call(command="true"):
        raise AssertionError("a configuration ran code")

    gin.external_configurable(foreign_call, module="tests")


def test_an_included_file_cannot_import_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("inner.gin").write_text("pretrain.steps = 3\nimport os\n")
    pathlib.Path("outer.gin").write_text("include 'inner.gin'\n")
    assert _line(["outer.gin"], _RUN).startswith("inner.gin:2: a configuration is data and cannot import os")


def test_gin_is_as_it_was_afterwards():
    load_pretrain([], _RUN)
    assert "tests.foreign_call" in gin.config._REGISTRY and "gin.singleton" in gin.config._REGISTRY
    gin.parse_config("import string")


def test_a_mistake_in_an_included_file_names_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("inner.gin").write_text("\npretrain.stepz = 3\n")
    pathlib.Path("outer.gin").write_text("include 'inner.gin'\n")
    assert "inner.gin:2" in _line(["outer.gin"], _RUN)


def test_a_file_that_is_not_text_is_named_with_its_line(tmp_path):
    path = tmp_path / "run.gin"
    path.write_bytes(b"pretrain.seed = 1\n# \xff\n")
    assert _line([str(path)], _RUN) == f"{path}:2: a configuration must be UTF-8, and this is not: convert the file"


@pytest.mark.parametrize("through", [(), ("second.gin",), ("second.gin", "folder/../third.gin")], ids=len)
def test_a_file_that_includes_itself_is_named_with_the_line(tmp_path, monkeypatch, through):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("folder").mkdir()
    files = ["run.gin", *through]
    for file, included in zip(files, [*through, "run.gin"], strict=True):
        pathlib.Path(file).write_text(f"pretrain.seed = 1\ninclude '{included}'\n")
    message = _line(["run.gin"], _RUN)
    assert message == f"{files[-1]}:2: run.gin would include itself without end: leave the line out"
    # Nothing is left of it.
    pathlib.Path("run.gin").write_text("pretrain.seed = 2\n")
    assert load_pretrain(["run.gin"], _RUN)[0].seed == 2


def test_a_file_may_be_included_twice_and_not_through_too_many(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("0.gin").write_text("pretrain.seed = 3\n")
    for number in range(1, 21):
        pathlib.Path(f"{number}.gin").write_text(f"include '{number - 1}.gin'\ninclude '0.gin'\n")
    assert load_pretrain(["19.gin"], _RUN)[0].seed == 3
    assert _line(["20.gin"], _RUN).startswith("1.gin:1: more than 20 files include one another")


@pytest.mark.parametrize(
    ("lines", "number", "name"),
    [
        (["X = %X"], 1, "X"),
        (["pretrain.seed = %X", "X = %Y", "Y = [1, {'a': %X}]"], 3, "Y"),
        (["pretrain.steps = @pretrain()"], 1, "pretrain.steps"),
        (
            ["pretrain.seed = 1", "a/pretrain.model = @a/BertConfig()", "a/BertConfig.hidden_size = @a/pretrain()"],
            3,
            "a/B",
        ),
        (["Phase.steps = @x/pretrain()", "pretrain.phases = [@first/Phase()]"], 2, "pretrain.phases"),
        (["X = @Phase()", "Phase.steps = %X"], 2, "Phase.steps"),
    ],
    ids=str,
)
def test_what_refers_to_itself_has_its_place(tmp_path, monkeypatch, lines, number, name):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("run.gin").write_text("\n".join(lines))
    message = _line(["run.gin"], _RUN)
    assert message.startswith(f"run.gin:{number}: {name}") and "refers to itself" in message and len(message) < 200
    message = _line([], [*_RUN, *lines])
    assert message.startswith(f"--gin_param={lines[number - 1]}: {name}") and "refers to itself" in message


def test_what_only_looks_like_a_circle_is_taken():
    """Within a scope its own binding wins; and a macro may be used by many."""
    shared = ["Phase.seq_len = 32", "Phase.batch_size = %N", "N = %M", "M = 7"]
    phases = ["Phase.steps = %N", "pretrain.phases = [@first/Phase(), @second/Phase()]"]
    assert list(load_pretrain([], [*shared, *phases])[0].phases) == [Phase(32, 7, 7)] * 2


def test_a_long_chain_of_values_is_one_line():
    chain = [f"X{number} = %X{number + 1}" for number in range(400)]
    message = _line([], [*_RUN, "pretrain.seed = %X0", *chain, "X400 = 3"])
    assert "in a circle, or through too many others" in message and len(message) < 300


@pytest.mark.parametrize("kind", ["folder", "pipe", "/dev/null"])
def test_what_is_not_a_file_is_not_read(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("folder").mkdir()
    os.mkfifo("pipe")
    assert _line([kind]) == f"--gin_file={kind}: it is not a file: give that of a configuration"
    pathlib.Path("run.gin").write_text(f"pretrain.seed = 1\ninclude '{kind}'\n")
    assert _line(["run.gin"]) == f"run.gin:2: {kind} is not a file"


def test_a_missing_file():
    assert _line(["nowhere.gin"]) == "--gin_file=nowhere.gin: no such file"


@pytest.mark.parametrize(
    ("binding", "what"),
    [
        ("pretrain.stepz = 3", "--gin_param=pretrain.stepz = 3: "),
        ("Execution.numerics = 0", "doesn't have a parameter named 'numerics'"),
        ("nowhere.steps = 3", "unknown name 'nowhere'"),
        ("pretrain.seed =", "cannot parse"),
        ("pretrain.seed", "cannot parse"),
        ("pretrain.seed = %nowhere", "%nowhere"),
        ("pretrain.steps = 'many'", "pretrain.steps must be a whole number or None, not 'many'"),
        ("pretrain.steps = 1e3", "pretrain.steps must be a whole number or None, not 1000.0"),
        ("pretrain.steps = True", "pretrain.steps"),
        ("pretrain.seed = " + "9" * 400, "pretrain.seed must be a whole number, not 999"),
        ("Schedule.kind = '" + "s" * 10_000 + "'", "Schedule.kind must be one of"),
        ("pretrain.steps = 0", "pretrain.steps"),
        ("pretrain.learning_rate = '1e-3'", "pretrain.learning_rate must be a number, not '1e-3'"),
        ("pretrain.learning_rate = -1", "learning_rate"),
        ("pretrain.phases = 3", "pretrain.phases must be a list such as [@first/Phase()] or None, not 3"),
        ("pretrain.phases = [@Phase()]", "Phase needs a value for seq_len, batch_size, steps"),
        ("Masking.masked_lm_prob = 'x'", "Masking.masked_lm_prob must be a number"),
        ("Masking.whole_word = 'no'", "Masking.whole_word must be True or False"),
        ("BertConfig.initializer_range = 'x'", "BertConfig.initializer_range must be a number"),
        ("BertConfig.layer_norm_eps = None", "BertConfig.layer_norm_eps must be a number"),
        ("BertConfig.hidden_size = 15", "must divide"),
        ("Optimizer.kind = 'sgd'", "Optimizer.kind must be one of"),
        # What would decide nothing: a scope that no reference names, and a part that the launcher puts together.
        ("other/BertConfig.hidden_size = 24", "nothing uses the binding of other/BertConfig.hidden_size"),
        ("Phase.steps = 3", "nothing uses the binding of Phase.steps"),
        ("pretrain.optimizer = @other/Optimizer()", "nothing uses the binding of pretrain.optimizer"),
    ],
)
def test_a_wrong_binding_is_one_line(capfd, binding, what):
    # A rate's range is looked at when the run is planned.
    if binding == "pretrain.learning_rate = -1":
        recipe, _ = load_pretrain([], [*_RUN, binding])
        with pytest.raises(UserError, match=what):
            recipe.plan([32])
        return
    assert what in _line([], [*_RUN, binding])
    assert capfd.readouterr().err == ""
