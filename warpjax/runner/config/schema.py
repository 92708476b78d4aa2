"""Checks a table of settings against the function that it calls; an unused key is an error.

The signature of the function is the schema. Its arguments are the keys, its annotations the types, and arguments with a
default may be left out. All checks run before anything is compiled.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from warpjax.runner.config.recipes import near, nearest

T = TypeVar("T")
# What a setting belongs to, said where it is declared: `shots: OfProblem[OfTest[int]]`.
OfProblem = Annotated[T, "problem"]
"""Changing it changes the tasks, so that the paper's number no longer applies."""
OfTest = Annotated[T, "test"]
"""A trained model can be tested with another value."""
OfTraining = Annotated[T, "training"]
"""It does not affect which test tasks are drawn."""
OfSelection = Annotated[T, "chosen"]
"""It selects the checkpoints of a result, and cannot be changed afterwards."""

_NAMES = {int: "an integer", float: "a number", bool: "True or False", str: "a string", dict: "a table"}
_UNIONS = (typing.Union, types.UnionType)
_SEQUENCES = (tuple, list, collections.abc.Sequence)
KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def call(
  where: str, table: Mapping[str, Any], function: Callable[..., Any], *, also: Iterable[str] = (), **further: Any
) -> Any:
  """Calls `function` with the table's entries as arguments, after checking their names and types.

  Args:
    where: Path of the table, for errors: "config.inner".
    table: The settings.
    function: The function.
    also: Keys of the same table that another function reads; errors list them among the allowed.
    **further: Further arguments, which the table must not contain.

  Returns:
    The function's result.

  Raises:
    ValueError: For a key that is unknown, with the nearest name, or missing, or of the wrong type.

  Example:
    >>> def sgd(learning_rate: float, momentum: float = 0.0): return learning_rate
    >>> call("config.inner", {"learning_rate": 0.1}, sgd)
    0.1
    >>> call("config.inner", {"momentom": 0.1}, sgd)
    Traceback (most recent call last):
    ValueError: config.inner.momentom is not a setting; did you mean 'momentum'? Allowed: learning_rate, momentum.
  """
  _check(where, table, function, further, also)
  try:
    return function(**table, **further)
  except ValueError as error:
    raise ValueError(_at(where, str(error), parameters_of(function, further))) from error


def _at(where: str, message: str, names: Iterable[str]) -> str:
  """A message of the library, which knows no configs, with the setting that it names written as a config's."""
  if message.startswith("config"):
    return message
  names_setting = re.split(r"\W", message, maxsplit=1)[0] in names
  return f"{where}.{message}" if names_setting else f"{where}: {message}"


def _check(
  where: str, table: Mapping[str, Any], function: Callable[..., Any], further: Iterable[str], also: Iterable[str]
) -> None:
  also = list(also)
  hints, parameters = hints_of(function), parameters_of(function, (*further, *also))
  for key, value in table.items():
    if key not in parameters:
      allowed = [*parameters, *also]
      raise ValueError(f"{where}.{key} is not a setting{nearest(key, allowed)}")
    hint = hints.get(key, Any)
    if not matches(value, hint):
      close = near(value, choices(hint))
      raise ValueError(f"{where}.{key} must be {describe(hint)}; got {value!r} ({type(value).__name__}){close}")
  missing = [key for key, parameter in parameters.items() if parameter.default is parameter.empty and key not in table]
  if missing:
    others = f" Missing too: {', '.join(missing[1:])}." if missing[1:] else ""
    raise ValueError(f"{where}.{missing[0]} is missing; it must be {describe(hints.get(missing[0], Any))}.{others}")


def parameters_of(function: Callable[..., Any], excluded: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
  """The arguments that a config can set, except `excluded`: those without a default, or of a type it can hold.

  Example:
    >>> def rule(rate: float, seed: int = 0, init: Callable | None = None): ...
    >>> list(parameters_of(rule, ("seed",)))
    ['rate']
  """
  hints, excluded = hints_of(function), set(excluded)
  return {
    name: parameter
    for name, parameter in inspect.signature(function).parameters.items()
    if name not in excluded
    and parameter.kind in KINDS
    and (parameter.default is parameter.empty or is_data(hints.get(name, Any)))
  }


def once(function: Callable[..., Any]) -> Callable[..., Any]:
  """The function, computed once for the same arguments; each time for those that have no hash."""
  cached = functools.cache(function)

  @functools.wraps(function)
  def call(*arguments: Any) -> Any:
    try:
      hash(arguments)
    except TypeError:
      return function(*arguments)
    return cached(*arguments)

  return call


@once
def hints_of(function: Callable[..., Any], marks: bool = False) -> Mapping[str, Any]:
  """The annotations of a function, of a class, or of what a `functools.partial` calls; with `Annotated` if `marks`."""
  try:
    return types.MappingProxyType(typing.get_type_hints(called(function), include_extras=marks))
  except NameError as error:
    name = getattr(called(function), "__qualname__", repr(function))
    raise ValueError(f"the annotations of {name} must be importable at run time: {error}.") from None


def called(function: Callable[..., Any]) -> Callable[..., Any]:
  """The function behind a `functools.partial`; any other function itself."""
  return function.func if isinstance(function, functools.partial) else function


def is_data(hint: Any) -> bool:
  """Whether a config can hold a value of the type. It cannot hold functions, arrays and modules.

  Example:
    >>> is_data(float | Callable[[int], float]), is_data(Callable[[int], float] | None), is_data(tuple[int, ...])
    (True, False, True)
  """
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return is_data(args[0])
  if origin in _UNIONS:
    return any(map(is_data, args))
  return hint is Any or origin in (typing.Literal, *_SEQUENCES) or hint in (*_NAMES, list, tuple) or origin is dict


def choose(where: str, name: Any, options: Mapping[str, Any]) -> Any:
  """The option of that name.

  Raises:
    ValueError: For an unknown name, with the nearest.
  """
  if not isinstance(name, str) or name not in options:
    raise ValueError(f"{where} has no {name!r}{nearest(name, options)}")
  return options[name]


def choices(hint: Any) -> list[str]:
  """The strings among the literals of a type.

  Example:
    >>> choices(typing.Literal["all", "head"] | None)
    ['all', 'head']
  """
  args = typing.get_args(hint)
  if typing.get_origin(hint) is typing.Literal:
    return [name for name in args if isinstance(name, str)]
  return [name for arg in args for name in choices(arg)] if typing.get_origin(hint) in _UNIONS else []


def matches(value: Any, hint: Any) -> bool:
  """Whether a value is of a type."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin is typing.Literal:
    return value in args
  if origin in _UNIONS:
    return any(matches(value, arg) for arg in args)
  if origin in _SEQUENCES:
    return isinstance(value, tuple | list) and _elements_match(value, args)
  if hint in (int, float) and isinstance(value, bool):
    return False
  if hint is float:
    return isinstance(value, int | float)
  return isinstance(value, origin or hint)


def _elements_match(value: Any, args: tuple[Any, ...]) -> bool:
  if len(args) == 1 or args[-1] is Ellipsis:
    return all(matches(element, args[0]) for element in value)
  return len(value) == len(args) and all(map(matches, value, args))


def describe(hint: Any) -> str:
  """A type in words."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Literal:
    return f"one of {', '.join(map(repr, args))}"
  if origin in _UNIONS:
    return " or ".join(describe(arg) for arg in args if is_data(arg))  # None stands for a missing setting
  if origin in _SEQUENCES:
    return f"a sequence, each {describe(args[0])}"
  return _NAMES.get(hint, str(hint))
