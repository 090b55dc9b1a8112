"""Gin: the one place where the library's plain dataclasses become configurable by files and parameters.

A configuration is data. Gin itself would import what a file says and call whatever it finds there; here a file can
bind and refer to the names that are registered in this module, and to those of plugins that were asked for.
"""

import collections.abc
import contextlib
import dataclasses
import inspect
import io
import os
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from gin import config_parser, selector_map

from bert_jax.config import BertConfig
from bert_jax.data.masking_recipe import Masking
from bert_jax.errors import UserError
from bert_jax.models.execution import Execution
from bert_jax.numerics import Numerics
from bert_jax.tasks.finetuning_recipe import FineTune
from bert_jax.tasks.pretraining_recipe import Phase, Pretrain
from bert_jax.text.files import read_bounded
from bert_jax.training.recipe import Optimizer, Schedule

_KINDS = {int: "a whole number", float: "a number", str: "a string", bool: "True or False", type(None): "None"}
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
gin.add_config_file_search_path(str(REPOSITORY))
# Files are read from the file system only. Gin would also take a path for that of a Python package, which fails on
# gin_configs/ where the repository is on Python's path, and logs each place where it found nothing.
gin.config._FILE_READERS[:] = [(lambda path: _open(path), os.path.isfile)]
_LARGEST_FILE = 1 << 20
# Characters; before one that Python does not know, its tokenizer takes time by the square of the spaces.
_LONGEST_LINE = 2000
_LONGEST_MESSAGE = 600
# Files within files; gin reads them by functions that call themselves.
_MOST_WITHIN = 20


class _OpenFile(io.StringIO):
    """The text of a file, which is known to be read until gin closes it."""

    being_read: typing.ClassVar[list[str]] = []

    def __init__(self, path: str, text: str):
        super().__init__(text)
        self.name = path  # which gin names lines by

    def __enter__(self) -> typing.Self:
        self.being_read.append(os.path.realpath(self.name))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.being_read.pop()
        super().__exit__(*error)


def _open(path: str) -> _OpenFile:
    """Opens a file for gin, which says nothing of which it is where that fails, but by which line it is included."""
    if os.path.realpath(path) in _OpenFile.being_read:
        raise ValueError(f"{path} would include itself without end: leave the line out")
    if len(_OpenFile.being_read) == _MOST_WITHIN:
        raise ValueError(f"more than {_MOST_WITHIN} files include one another: write some into one")
    content = read_bounded(path, _LARGEST_FILE, "give another --gin_file")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: a configuration must be UTF-8, and this is not: convert the file") from error
    for number, line_text in enumerate(io.StringIO(text), start=1):
        if len(line_text) > _LONGEST_LINE:
            raise UserError(f"{path}:{number}: the line is longer than {_LONGEST_LINE:,} characters: go on on the next")
    return _OpenFile(path, text)


# The full names that a configuration may use. Of gin's own, macros are values with a name.
_USABLE = {"gin.macro"}


def register(name: str, cls: Callable[..., Any], module: str = "bert_jax") -> Callable[..., Any]:
    """Lets configurations use a dataclass, or a function whose arguments have types.

    Args:
        name: how a configuration calls it.
        cls: what a reference to it makes, or returns.
        module: whose name it is, for where two have the same; of a plugin, the plugin's own.

    Returns:
        A function of the same signature that checks the types of its values.
    """
    hints = typing.get_type_hints(cls)
    signature = inspect.signature(cls)
    # The numerics that a run goes on with are recorded in it, and nothing to choose.
    parameters = [one for one in signature.parameters.values() if hints[one.name] is not Numerics]
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]

    def make(**values: Any) -> Any:
        place = "/".join([*gin.current_scope(), name])
        missing = [parameter for parameter in required if parameter not in values]
        if missing:
            raise UserError(f"{place} needs a value for {', '.join(missing)}: bind {place}.{missing[0]}")
        for parameter, value in values.items():
            _check_type(f"{place}.{parameter}", value, hints[parameter])
        return cls(**values)

    make.__signature__ = signature.replace(parameters=parameters)
    _USABLE.add(f"{module}.{name}")
    return gin.external_configurable(make, name=name, module=module)


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Raises a UserError unless a value is of the type that a field declares."""
    union = isinstance(hint, types.UnionType)
    allowed = typing.get_args(hint) if union else (hint,)
    for one in allowed:
        if typing.get_origin(one) is collections.abc.Sequence:
            (element,) = typing.get_args(one)
            if isinstance(value, list | tuple) and all(_is_one(item, element) for item in value):
                return
        elif _is_one(value, one):
            return
    wanted = " or ".join(_KINDS.get(one) or _name_list(*typing.get_args(one)) for one in allowed)
    raise UserError(f"{name} must be {wanted}, not {value!r:.200}")


def _is_one(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return False
    return isinstance(value, int | float if kind is float else kind)


def _name_list(element: type) -> str:
    examples = {int: "[1, 2]", float: "[1.0, 2.5]", str: "['first', 'second']"}
    return f"a list such as {examples.get(element) or f'[@first/{element.__name__}()]'}"


_PARTS = {
    "model": register("BertConfig", BertConfig),
    "optimizer": register("Optimizer", Optimizer),
    "schedule": register("Schedule", Schedule),
    "masking": register("Masking", Masking),
    "execution": register("Execution", Execution),
}
register("Phase", Phase)
_PRETRAIN = register("pretrain", Pretrain)
_FINETUNE = register("finetune", FineTune)


def load_pretrain(gin_files: Sequence[str], gin_params: Sequence[str]) -> tuple[Pretrain, str]:
    """Reads the configuration of a pre-training run.

    Args:
        gin_files: paths; they and their includes are looked for in the working directory, then in the repository.
        gin_params: bindings such as "pretrain.steps=200", which win over the files.

    Returns:
        The recipe, and the operative configuration as text, for the record.

    Raises:
        UserError: a file is missing or cannot be parsed, a name is unknown, a value is wrong, or a binding is not
            used by anything.
    """
    with _usable_names_only():
        return _load_pretrain(gin_files, gin_params)


def _load_pretrain(gin_files: Sequence[str], gin_params: Sequence[str]) -> tuple[Pretrain, str]:
    _parse(gin_files, gin_params)
    with _readable_errors():
        # Every part is made by gin, whether or not the run's own bindings mention it, so that no binding is ignored.
        recipe = _PRETRAIN(**{name: make() for name, make in _PARTS.items()})
    _check_all_used()
    return recipe, gin.operative_config_str()


def load_finetune(
    gin_files: Sequence[str], gin_params: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[FineTune, BertConfig | None, str]:
    """Reads the configuration of a fine-tuning run; see `load_pretrain`.

    Args:
        gin_files: paths.
        gin_params: bindings such as "finetune.epochs=2".
        overrides: values of `FineTune` given as flags, which win over all; None stands for none.

    Returns:
        The recipe, the architecture if there are bindings of one, and the operative configuration.
    """
    with _usable_names_only():
        return _load_finetune(gin_files, gin_params, overrides)


def _load_finetune(
    gin_files: Sequence[str], gin_params: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[FineTune, BertConfig | None, str]:
    _parse(gin_files, gin_params)
    given = {name: value for name, value in overrides.items() if value is not None}
    with _readable_errors():
        parts = {name: _PARTS[name]() for name in ("optimizer", "schedule", "execution")}
        recipe = dataclasses.replace(_FINETUNE(**parts), **given)
        has_model = any(selector == "bert_jax.BertConfig" for _, selector in gin.config._CONFIG)
        model = _PARTS["model"]() if has_model else None
    _check_all_used()
    return recipe, model, gin.operative_config_str() + "".join(f"# --{name}={given[name]}\n" for name in given)


@contextlib.contextmanager
def _usable_names_only() -> Iterator[None]:
    """Lets gin know no other names for a while, import nothing, and bind nothing that refers to itself."""
    context = gin.config.ParseContext
    kept = gin.config._REGISTRY, context.process_import, gin.config.bind_parameter
    usable = selector_map.SelectorMap()
    for selector, configurable in gin.config._REGISTRY.items():
        if selector in _USABLE:
            usable[selector] = configurable

    def bind(key: Any, value: Any) -> None:
        kept[-1](key, value)
        if any(reference.evaluate for reference in gin.config.iterate_references([value])):
            _check_ends(gin.config.ParsedBindingKey.parse(key))

    gin.config._REGISTRY, context.process_import, gin.config.bind_parameter = usable, _refuse_import, bind
    try:
        yield
    finally:
        gin.config._REGISTRY, context.process_import, gin.config.bind_parameter = kept


def _check_ends(bound: gin.config.ParsedBindingKey) -> None:
    """Raises a ValueError if what was just bound is needed to know its own value; gin adds where that is."""
    ended: set[tuple] = set()

    def follow(scope: tuple[str, ...], selector: str, callers: tuple[tuple, ...]) -> None:
        call = scope, selector
        if call in callers:
            name = _binding_name(bound.scope, bound.complete_selector, bound.arg_name)
            raise ValueError(f"{name} refers to itself, and would have no value: give it one")
        if call in ended:
            return
        # A call uses the bindings of its scope and of those around it, of which the inner ones win.
        values: dict[str, Any] = {}
        for depth in range(len(scope) + 1):
            values.update(gin.config._CONFIG.get(("/".join(scope[:depth]), selector), {}))
        for reference in gin.config.iterate_references(values):
            if reference.evaluate:
                follow(tuple(reference.scopes) or scope, reference.configurable.selector, (*callers, call))
        ended.add(call)

    follow(tuple(filter(None, bound.scope.split("/"))), bound.complete_selector, ())


def _binding_name(scope: str, selector: str, parameter: str) -> str:
    """Returns how a configuration calls what is bound."""
    if selector == "gin.macro":
        return scope
    return f"{'/'.join(filter(None, [scope, selector.rpartition('.')[2]]))}.{parameter}"


def _refuse_import(context: Any, statement: config_parser.ImportStatement) -> None:
    raise UserError(
        f"{statement.location.filename or 'configuration'}:{statement.location.line_num}: a configuration is data and"
        f" cannot import {statement.module:.100}: leave the line out, or install what it is for as a plugin and pass"
        " --plugin=NAME"
    )


def _parse(gin_files: Sequence[str], gin_params: Sequence[str]) -> None:
    # Nothing from the record of an earlier call in this process; later bindings win over earlier ones.
    gin.clear_config()
    for path in gin_files:
        if not pathlib.Path(path).is_file() and not (REPOSITORY / path).is_file():
            is_there = os.path.exists(path) or os.path.exists(REPOSITORY / path)
            wrong = "it is not a file: give that of a configuration" if is_there else "no such file"
            raise UserError(f"--gin_file={path}: {wrong}")
    for path in gin_files:
        # One by one: of some mistakes gin does not say in which file they are.
        with _readable_errors(str(path)):
            gin.parse_config_files_and_bindings([path], None, finalize_config=False)
    for binding in gin_params:
        if not binding.strip():
            raise UserError("--gin_param= binds nothing: give such as --gin_param='pretrain.steps=200'")
        with _readable_errors(f"--gin_param={binding}"):
            gin.parse_config(binding)


def _check_all_used() -> None:
    """Raises a UserError for a binding that decided nothing, such as one of a scope that no reference names."""
    used = gin.config._OPERATIVE_CONFIG
    for (scope, selector), values in gin.config._CONFIG.items():
        if selector == "gin.macro":
            continue
        # A binding without scope is also used by the calls within one.
        calls = [
            given
            for (called_scope, called), given in used.items()
            if called == selector and (not scope or f"{called_scope}/".startswith(f"{scope}/"))
        ]
        for parameter in values:
            if not any(parameter in given for given in calls):
                name = _binding_name(scope, selector, parameter)
                call = name.rpartition(".")[0]
                raise UserError(f"nothing uses the binding of {name}: remove it, or refer to @{call}()")


@contextlib.contextmanager
def _readable_errors(place: str = "") -> Iterator[None]:
    """Turns what gin says about a user's mistake into one line.

    Args:
        place: where the bindings are from, if not from a file.
    """
    try:
        yield
    except UserError as error:
        # Gin adds lines that say within which call it happened.
        raise UserError(f"{str(error).splitlines()[0]:.{_LONGEST_MESSAGE}}") from error
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}" if error.filename else place
        what = " ".join((error.msg or "").split()).rstrip(".:")
        if found := re.search(r"Failed to parse token (.*)", what):
            what = f"{found[1]:.60} is not a value (strings are in quotes, references begin with @ or %)"
        text = (error.text or "").strip()
        raise UserError(f"{where}: cannot parse the configuration: {what:.200}: {text!r:.100}") from error
    except Exception as error:  # gin raises what its parts and the modules that a file imports lead it to
        raise UserError(_readable(str(error), place)) from error


def _readable(message: str, place: str) -> str:
    """Rearranges gin's message, whose place comes at the end, into place: what."""
    message = " ".join(message.split())
    message = re.sub(
        r"No configurable matching (?:reference )?'@?([^'()]+)(?:\(\))?'",
        r"unknown name '\1' in the configuration (those of a plugin need --plugin=NAME)",
        message,
    )
    message = re.sub(
        r"Unable to open file: (\S+)\. Searched.*\]\.",
        lambda found: f"{found[1]} is not a file" if os.path.exists(found[1]) else f"cannot find the file {found[1]}",
        message,
    )
    message = re.sub(
        r"maximum recursion depth exceeded.*?(?= In file | In bindings | In call |$)",
        "values refer to one another in a circle, or through too many others: give some of them values",
        message,
    )
    message = re.sub(
        r"^macro\(\) missing .* In call to configurable '[^']*' \(.*\) in scope '([^']+)'.*",
        r"the macro %\1 has no value",
        message,
    )
    if found := re.search(r'In file "([^"]+)", line (\d+)', message):
        place = f"{found[1]}:{found[2]}"
    what = re.split(r" In (?:file|bindings|call)| No values supplied by Gin", message)[0].rstrip(" .:")
    return f"{place or 'configuration'}: {what:.300}"
