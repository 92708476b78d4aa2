"""The settings of a run: a recipe's values, overridden by a command line; their types, defaults and documentation."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from warpjax.runner.components import warp
from warpjax.runner.config import recipes, registry, run_settings, schema

Table = Mapping[str, Any]
_UNSET = object()


class Setting(NamedTuple):
  """One setting that a row can take.

  Attributes:
    path: "inner.learning_rate".
    hint: Its type.
    default: Its default; None if it has none, or if its default is None or a function.
    required: Whether it has no default.
    doc: Its sentence in the docstring, or "".
    marks: What it belongs to: "problem", "test", "training" or "chosen"; see `schema.OfProblem` and its siblings.
  """

  path: str
  hint: Any
  default: Any
  required: bool
  doc: str
  marks: frozenset[str] = frozenset()


def load_config(source: str, *overrides: str) -> dict[str, Any]:
  """The settings of a row of a recipe, with overrides.

  An override that changes the tasks removes the row's published number.

  Args:
    source: `FILE.py:METHOD`, or `NAME:METHOD` of a recipe, as for `--config`.
    *overrides: `KEY=VALUE`, such as "inner.learning_rate=0.02", as for `--config.KEY=VALUE`.

  Returns:
    Nested dicts, for `warpjax.runner.build` and `warpjax.runner.train_and_evaluate`.

  Raises:
    ValueError: For an unknown file, method or setting, with the nearest name, or a value of the wrong type.

  Example:
    >>> from warpjax import runner
    >>> runner.load_config("sinusoid:maml", "inner.num_steps=5")["inner"]
    {'rule': 'sgd', 'learning_rate': 0.01, 'num_steps': 5}
  """
  settings = recipes.settings(source)
  settings = with_overrides(without_published(settings, overrides), overrides)
  return with_modules(settings, registry.user_modules(settings))


def with_overrides(settings: Table, overrides: Sequence[str]) -> dict[str, Any]:
  """A recipe's settings, overridden by those of a command line.

  Args:
    settings: Nested tables.
    overrides: `KEY=VALUE`, such as "inner.learning_rate=0.02".

  Returns:
    The settings. A table whose function is replaced, as by `inner.rule=adam`, keeps the settings that both have.

  Raises:
    ValueError: For text that is not `KEY=VALUE`, a repeated key, an unknown setting, with the nearest name, or a value
      of the wrong type.

  Example:
    >>> from warpjax.runner.config import recipes
    >>> with_overrides(recipes.settings("sinusoid:maml"), ["inner.num_steps=5"])["inner"]["num_steps"]
    5
  """
  pairs = [_pair(text) for text in overrides]
  if not set(registry.KINDS) & settings.keys():
    return _replaced(settings, pairs)
  _check_given_once(pairs)
  for key, text in sorted(pairs, key=lambda pair: pair[0].rpartition(".")[2] not in ("name", "rule", "kind")):
    settings = _put(settings, key, _value(reference(settings), key, text))
  return dict(settings)


def values(settings: Table, overrides: Sequence[str]) -> dict[str, Any]:
  """`KEY=VALUE` by key, each value of the type of its setting.

  Raises:
    ValueError: As `with_overrides`.

  Example:
    >>> from warpjax.runner.config import recipes
    >>> values(recipes.settings("sinusoid:maml"), ["eval.num_steps=5", "eval.norm_stats=support"])
    {'eval.num_steps': 5, 'eval.norm_stats': 'support'}
  """
  known, pairs = reference(settings), list(map(_pair, overrides))
  _check_given_once(pairs)
  return {key: _value(known, key, text) for key, text in pairs}


def _check_given_once(pairs: Sequence[tuple[str, str]]) -> None:
  keys = [key for key, _ in pairs]
  if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
    raise ValueError(f"config.{twice[0]} is given twice.")


def _value(known: Sequence[Setting], key: str, text: str) -> Any:
  by_path = {setting.path: setting for setting in known}
  if key not in by_path:
    raise ValueError(_unknown(key, list(by_path)))
  setting = by_path[key]
  value = parse(f"config.{key}", text, setting.hint)
  if value is None and setting.default is not None:
    raise ValueError(f"config.{key} must not be None, which stands for its default, {setting.default!r}.")
  return value


def _replaced(settings: Table, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
  """For the tables of other commands, such as the benchmark, which have no schema: a key that exists gets the value."""
  for key, text in pairs:
    if (present := _get(settings, key)) is _UNSET:
      table = _get(settings, key.rpartition(".")[0]) if "." in key else settings
      names = list(table) if isinstance(table, Mapping) else list(settings)
      near = recipes.near(key.rpartition(".")[2], names)
      raise ValueError(f"config.{key} is not a setting{near} Allowed: {', '.join(names)}.")
    settings = _put(settings, key, parse(f"config.{key}", text, _hint_of(present)))
  return dict(settings)


def _hint_of(value: Any) -> Any:
  if isinstance(value, tuple | list):
    element: Any = _hint_of(value[0]) if value else Any
    return tuple[element, ...]
  return type(value)


def without_published(settings: Table, overrides: Sequence[str]) -> dict[str, Any]:
  """The settings, without the published number if an override changes the tasks."""
  changed = marked(settings, "problem") & {text.partition("=")[0] for text in overrides}
  return recipes.unpublished(settings) if changed else dict(settings)


def marked(settings: Table, mark: str) -> set[str]:
  """The paths of the settings that have the mark."""
  return {setting.path for setting in reference(settings) if mark in setting.marks}


def of_the_test(settings: Table) -> dict[str, Any]:
  """The settings of the data that determine the test tasks, with the defaults of those that a workdir lacks."""
  try:
    settings = resolved(settings)
    training = {path.removeprefix("data.") for path in marked(settings, "training")}
  except ValueError:  # a module of the run is gone: every setting may belong to the test
    training = set()
  return {key: value for key, value in settings.get("data", {}).items() if key not in training}


def completed(settings: Table) -> dict[str, Any]:
  """`resolved` for readers of a workdir: unchanged settings if a function cannot be imported any more."""
  try:
    return resolved(settings)
  except ValueError:
    return dict(settings)


def identity(settings: Table) -> dict[str, Any]:
  """The resolved settings by which two runs are the same, without the folders of modules and the devices of a CPU."""
  modules = {name: {"sha256": origin["sha256"]} for name, origin in (settings.get("modules") or {}).items()}
  return with_modules({k: v for k, v in resolved(settings).items() if k != "cpu_devices"}, modules)


def with_modules(settings: Table, modules: Table) -> dict[str, Any]:
  """The settings with `modules` as their table of user modules; without that table if `modules` is empty."""
  others = {key: value for key, value in settings.items() if key != "modules"}
  return {**others, "modules": modules} if modules else others


def text(settings: Table) -> str:
  """Every setting that a row can take, for a terminal: its type, its value in this row, its default, its sentence."""
  return "\n".join(_line(setting, _get(settings, setting.path)) for setting in reference(settings))


def _line(setting: Setting, value: Any) -> str:
  default = "must be given" if setting.required else f"default {setting.default!r}"
  shown = default if value is _UNSET else f"is {value!r}"
  if value is not _UNSET and not setting.required and value != setting.default:
    shown += f", {default}"
  about = f"\n    {setting.doc}" if setting.doc else ""
  return f"{setting.path}: {schema.describe(setting.hint)}; {shown}{about}"


def reference(settings: Table) -> list[Setting]:
  """Every setting that a row can take: those of the run, and those of the functions named in its tables.

  Args:
    settings: Nested tables.

  Returns:
    The settings, table by table.
  """
  registry.make_importable(settings.get("modules") or {})  # the modules of a workdir may be in another folder
  listed = list(_of(run_settings.Run, ""))
  for name in registry.KINDS:
    table = settings.get(name) or {}
    key = registry.KEY[name]
    names = f"One of {', '.join(registry.TABLES[name])}; or module:function."
    marks = frozenset({"problem"}) if name == "data" else frozenset()
    listed.append(Setting(f"{name}.{key}", str, None, True, names, marks))
    for function, others in registry.readers(name, table):
      listed += _of(function, f"{name}.", others)
  if any(setting.path == "network.warp" for setting in listed):
    listed = [setting for setting in listed if setting.path != "network.warp"] + list(_of(warp.layers, "network.warp."))
  return [*listed, *_of(run_settings.Evaluation, "eval.")]


def resolved(settings: Table) -> dict[str, Any]:
  """The settings, completed by their defaults; a default of None stays left out.

  Warp-layers without their kind are left as they are, for an error that says so.
  """
  settings = recipes.without_none(settings)
  for path, default in ((setting.path, setting.default) for setting in reference(settings)):
    of_no_layers = path.startswith("network.warp.") and _get(settings, "network.warp.kind") is _UNSET
    if default is not None and _get(settings, path) is _UNSET and not of_no_layers:
      settings = _put(settings, path, default)
  return dict(settings)


def parse(where: str, text: str, hint: Any) -> Any:
  """Parses the text of a command line as a value of the type `hint`.

  Raises:
    ValueError: For text that is no such value; the message says what is allowed.

  Example:
    >>> parse("config.x", "(1, 2)", tuple[int, ...]), parse("config.x", "1e-3", float), parse("config.x", "True", bool)
    ((1, 2), 0.001, True)
  """
  value = _parsed(text, hint)
  if value is _UNSET:
    near = recipes.near(text, schema.choices(hint))
    raise ValueError(f"{where} must be {schema.describe(hint)}; got {text!r}{near}")
  return value


def _parsed(text: str, hint: Any) -> Any:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Literal:
    return next((each for each in args if str(each) == text), _UNSET)
  if origin in (typing.Union, types.UnionType):
    values = (_parsed(text, each) for each in sorted(args, key=lambda each: each is str))  # any text is a str
    return next((value for value in values if value is not _UNSET), _UNSET)
  if origin in (tuple, list, collections.abc.Sequence):
    return _sequence(text, args)
  if hint is type(None):
    return None if text == "None" else _UNSET
  if hint is str:
    return text
  value = _literal(text)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  return value if hint is Any or schema.matches(value, hint) else _UNSET


def _sequence(text: str, args: tuple[Any, ...]) -> Any:
  parts = [part.strip() for part in text.strip().strip("()[]").split(",")]
  parts = [part for part in parts if part]
  hints = [args[0]] * len(parts) if len(args) == 1 or args[-1] is Ellipsis else list(args)
  if len(hints) != len(parts):
    return _UNSET
  values = tuple(_parsed(part.strip("'\""), each) for part, each in zip(parts, hints, strict=True))
  return _UNSET if any(value is _UNSET for value in values) else values


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return {"true": True, "false": False}.get(text.lower(), text)


def _pair(text: str) -> tuple[str, str]:
  key, equals, value = text.partition("=")
  if not equals:
    raise ValueError(f"a setting must be KEY=VALUE, such as inner.num_steps=5; got {text!r}.")
  return key, value


def _unknown(key: str, known: Sequence[str]) -> str:
  """The message for an unknown setting: the nearest, and those of its table or how to list all."""
  table, _, name = key.rpartition(".")
  names = [path.rpartition(".")[2] for path in known if path.rpartition(".")[0] == table]
  if not names:
    listed = f"`warpjax train --config=FILE:METHOD --settings` lists all {len(known)}"
    return f"config.{key} is not a setting{recipes.near(key, known)} {listed}."
  near = recipes.near(name, names)
  if near == "." and (elsewhere := [path for path in known if path.endswith(f".{name}")]):
    near = f"; did you mean {' or '.join(map(repr, elsewhere))}?"
  return f"config.{key} is not a setting{near} Allowed: {', '.join(names)}."


def _of(function: Callable[..., Any], prefix: str, excluded: Sequence[str] = ()) -> Iterator[Setting]:
  hints, docs = schema.hints_of(function, True), _docs(schema.called(function))
  for name, parameter in schema.parameters_of(function, excluded).items():
    required = parameter.default is parameter.empty
    default = None if required or callable(parameter.default) else parameter.default
    hint, *marks = _unmarked(hints.get(name, Any))
    yield Setting(f"{prefix}{name}", hint, default, required, docs.get(name, ""), frozenset(marks))


def _unmarked(hint: Any) -> list[Any]:
  """The type of an annotation, and its marks."""
  return [hint.__origin__, *hint.__metadata__] if typing.get_origin(hint) is typing.Annotated else [hint]


@schema.once
def _docs(function: Callable[..., Any]) -> Mapping[str, str]:
  """The sentences on arguments in a docstring's `Args:` or `Attributes:`."""
  docs: dict[str, str] = {}
  name = ""
  section = re.search(r"(?:Args|Attributes):\n(.*?)(?:\n\n|\Z)", inspect.getdoc(function) or "", re.DOTALL)
  for line in section.group(1).splitlines() if section else ():
    if match := re.match(r"  (\w+): (.*)", line):
      name = match.group(1)
      docs[name] = match.group(2)
    elif name:
      docs[name] += f" {line.strip()}"
  return docs


def _get(settings: Table, path: str) -> Any:
  value: Any = settings
  for part in path.split("."):
    if not isinstance(value, Mapping) or part not in value:
      return _UNSET
    value = value[part]
  return value


def _put(settings: Table, path: str, value: Any) -> dict[str, Any]:
  name, _, rest = path.partition(".")
  if not rest:
    return {**settings, name: value}
  table = _put(settings.get(name) or {}, rest, value)
  if rest == registry.KEY.get(name) and table != settings.get(name):
    allowed = {
      setting.path.partition(".")[2]
      for setting in reference({**settings, name: {rest: value}})
      if setting.path.startswith(f"{name}.")
    }
    table = {key: each for key, each in table.items() if key in allowed or key == "warp"}
  return {**settings, name: table}
