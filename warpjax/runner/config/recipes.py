"""Recipes: files of data, with `COMMON` settings and a row for each method, looked up by path or by name.

  COMMON = {"seed": 0, "num_meta_steps": 60_000, "inner": {"rule": "sgd", "learning_rate": 0.01, "num_steps": 1}, ...}
  METHODS = {"maml": {}, "maml_5_steps": {"inner": {"num_steps": 5}}}

A row overrides the common settings. A recipe can also have:

* `BASE = "sinusoid"`: the file overrides another recipe. `BASE = "sinusoid:maml"`: it overrides one row of it.
  Published numbers are not inherited.
* `DATA = "fc100"` beside a `BASE`: its settings of the data are used for another data set.
* `"base": "maml"` in a row, or a tuple of names: the row overrides other rows of the file. A row whose name begins with
  an underscore is a part of others and no method.
* `VARIANTS = {"_strict": {...}}`: every method also exists with that suffix, overridden by that table and without its
  published number.
* `"published": None`: removes a row's published number.
* `ALSO_PUBLISHED = {"maml": {"figure": "about 125"}}`: further numbers of the paper, which the row's result is not
  compared with. `figure` is read from a figure. `per_step` has the means after the steps before the last.
  `support_plus_one` has number and interval without transduction. `source` names the place.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Table = Mapping[str, Any]

_ROOT = pathlib.Path(__file__).parents[3]
CHECKOUT = _ROOT if (_ROOT / "setup.py").is_file() else None
"""The checkout of this package; None where it is installed."""
FOLDERS = (pathlib.Path(__file__).parents[2] / "recipes", *([CHECKOUT / "configs"] if CHECKOUT else []))
"""Folders of the recipes that are named without a path: in an installed package, and in a checkout."""


class Recipe(NamedTuple):
  """One file.

  Attributes:
    name: The file's name without `.py`, which is the experiment's name.
    path: The file.
    doc: Its docstring.
    common: The settings that all methods share.
    methods: The rows, each merged with its bases.
    variants: Suffixes of methods, and the settings that each overrides.
    also_published: Further numbers of the paper, by method.
  """

  name: str
  path: pathlib.Path
  doc: str
  common: Table
  methods: Mapping[str, Table]
  variants: Mapping[str, Table]
  also_published: Mapping[str, Table] = types.MappingProxyType({})

  def settings(self, method: str) -> dict[str, Any]:
    """All settings that the recipe gives for a method, to keep and to change.

    Raises:
      ValueError: For a method that is not there, naming the nearest.
    """
    return _copied({"experiment": self.name, "method": method, **lay_over(self.common, self._row(method))})

  def names(self) -> list[str]:
    """The names of its methods, and of their variants."""
    return [*self.methods, *(f"{method}{suffix}" for suffix in self.variants for method in self.methods)]

  def has(self, method: str) -> bool:
    """Whether there is such a method or variant."""
    return method in self.names()

  def also(self, method: str) -> Table:
    """Further numbers of the paper for a row; a row sized for a CPU has those of its full size."""
    return self.also_published.get(method) or self.also_published.get(self.whole(method), {})

  def whole(self, method: str) -> str:
    """The row at the paper's size to which a row for a CPU belongs; the row itself if there is none."""
    parts = method.split("_")
    names = ("_".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((name for name in names if name in self.methods), method) if parts[-1] == "cpu" else method

  def _row(self, method: str) -> Table:
    if method in self.methods:
      return self.methods[method]
    for suffix, table in self.variants.items():
      if (stem := method.removesuffix(suffix)) in self.methods and stem != method:
        return lay_over(unpublished(self.methods[stem]), table)
    raise ValueError(f"{self.path} has no method {method!r}{nearest(method, self.methods)}")


def settings(source: str) -> dict[str, Any]:
  """The settings of `FILE.py:METHOD` or `NAME:METHOD`; the method may be left out if the recipe has only one.

  Raises:
    ValueError: For a missing file or method, with the nearest name, and for a file that is no recipe.

  Example:
    >>> settings("sinusoid:maml")["inner"]
    {'rule': 'sgd', 'learning_rate': 0.01, 'num_steps': 1}
  """
  file, _, method = source.rpartition(":") if ":" in source else (source, "", "")
  recipe = load(file)
  if not method:
    if len(recipe.methods) != 1:
      raise ValueError(f"--config must name a method, {file}:METHOD; {file} has {', '.join(recipe.methods)}.")
    method = next(iter(recipe.methods))
  return recipe.settings(method)


def load(source: str | os.PathLike[str]) -> Recipe:
  """The recipe in a file, or of that name.

  Raises:
    ValueError: If it does not exist, with the nearest name, or is no recipe.
  """
  return _load(find(source))


def find(source: str | os.PathLike[str], folder: pathlib.Path = pathlib.Path()) -> pathlib.Path:
  """The file of a recipe: a path, or the name of one in `FOLDERS`.

  Args:
    source: The path, relative to `folder`, or the name.
    folder: A folder.

  Returns:
    The file.

  Raises:
    ValueError: If it does not exist, with the nearest name.
  """
  path = pathlib.Path(source)
  shipped = [each / f"{path.name.removesuffix('.py')}.py" for each in FOLDERS if _may_be_shipped(path)]
  for candidate in (folder / path, *shipped):
    if candidate.is_file():
      return candidate.resolve()
  raise ValueError(f"--config must be FILE.py:METHOD or NAME:METHOD; {os.fspath(source)!r} does not exist{_near(path)}")


def names() -> list[str]:
  """The names of the installed recipes, sorted."""
  return sorted({path.stem for folder in FOLDERS if folder.is_dir() for path in folder.glob("[!_]*.py")})


def lay_over(base: Table, row: Table) -> dict[str, Any]:
  """Overrides `base` by `row`.

  A table of the row with a `name` or `rule` replaces the base's table, whose settings belong to another function. Any
  other table is merged, setting by setting. An entry of None removes the base's.

  Example:
    >>> lay_over({"inner": {"rule": "sgd", "num_steps": 1}, "seed": 0}, {"inner": {"num_steps": 5}, "seed": 1})
    {'inner': {'rule': 'sgd', 'num_steps': 5}, 'seed': 1}
  """
  merged = dict(base)
  for key, value in row.items():
    lay = isinstance(value, Mapping) and not {"name", "rule"} & value.keys()
    merged[key] = {**(merged.get(key) or {}), **value} if lay else value
  return {key: value for key, value in merged.items() if value is not None}


def without_none(table: Mapping[str, Any]) -> dict[str, Any]:
  """Nested tables without entries that are None and tables that are empty."""
  nested = {key: without_none(value) if isinstance(value, Mapping) else value for key, value in table.items()}
  return {key: value for key, value in nested.items() if value is not None and value != {}}


def flat(table: Table, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """The settings of nested tables, each with its path.

  Example:
    >>> dict(flat({"network": {"name": "mlp", "warp": {"kind": "linear"}}, "seed": 0}))
    {'network.name': 'mlp', 'network.warp.kind': 'linear', 'seed': 0}
  """
  for key, value in table.items():
    if isinstance(value, Mapping):
      yield from flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


def unpublished(row: Table) -> dict[str, Any]:
  """A row without its published number, for settings that differ from the paper's."""
  return {key: value for key, value in row.items() if key != "published"}


def nearest(name: Any, allowed: Any) -> str:
  """The end of a sentence on an unknown name: "; did you mean 'x'? Allowed: ...", or ". Allowed: ..."."""
  allowed = list(allowed)
  return f"{near(name, allowed)} Allowed: {', '.join(allowed)}."


def near(name: Any, allowed: Iterable[str]) -> str:
  """The end of a sentence on an unknown name: "; did you mean 'x'?", or "." if no allowed name is near."""
  close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.5)
  return f"; did you mean {close[0]!r}?" if close else "."


def _copied(value: Any) -> Any:
  """`copy.deepcopy` for nested tables, several times faster."""
  if isinstance(value, Mapping):
    return {key: _copied(each) for key, each in value.items()}
  return value if isinstance(value, str | int | float) else copy.deepcopy(value)


def _load(path: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> Recipe:
  if path in above:
    raise ValueError(f"{path} is its own BASE, by {' and '.join(map(os.fspath, above))}.")
  module = _module(path, path.stat().st_mtime_ns)
  common, variants = getattr(module, "COMMON", {}), getattr(module, "VARIANTS", {})
  methods = dict(_methods(path, module))
  if base := getattr(module, "BASE", ""):
    below = _load(find(base.partition(":")[0], path.parent), (*above, path))
    if hasattr(module, "DATA"):
      common = {**common, "data": {**below.common["data"], "name": module.DATA}}
    if ":" in base:
      common = lay_over(unpublished(lay_over(below.common, below._row(base.partition(":")[2]))), common)
    else:
      common, variants = lay_over(below.common, common), {**below.variants, **variants}
      methods = {
        name: lay_over(unpublished(below.methods.get(name, {})), methods.get(name, {}))
        for name in {**below.methods, **methods}
      }
  elif hasattr(module, "DATA"):
    raise ValueError(f"{path} has DATA = {module.DATA!r} and no BASE whose data could have that name.")
  also = getattr(module, "ALSO_PUBLISHED", {})
  return Recipe(path.stem, path, module.__doc__ or "", common, types.MappingProxyType(methods), variants, also)


@functools.cache
def _methods(path: pathlib.Path, module: types.ModuleType) -> Table:
  """The rows of a file, each over its bases."""
  if not isinstance(rows := getattr(module, "METHODS", None), Mapping):
    raise ValueError(f"{path} must have METHODS, a dict with a row for each method; got {rows!r}.")
  return {name: _with_bases(path, rows, name) for name in rows if not name.startswith("_")}


def _with_bases(path: pathlib.Path, rows: Mapping[str, Table], name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
  if name not in rows:
    raise ValueError(f"{path}: METHODS[{seen[-1]!r}] has the base {name!r}, which does not exist{nearest(name, rows)}")
  if name in seen:
    raise ValueError(f"{path}: METHODS[{name!r}] is its own base, by {' and '.join(seen)}.")
  row = dict(rows[name])
  bases = row.pop("base", ())
  merged: dict[str, Any] = {}
  for base in (bases,) if isinstance(bases, str) else bases:
    merged = _over_row(merged, _with_bases(path, rows, base, (*seen, name)))
  return _over_row(merged, row)


def _over_row(base: Table, row: Table) -> dict[str, Any]:
  """As `lay_over`, but entries of None stay, to remove entries of a base that is merged later."""
  merged = lay_over(base, row)
  return {**merged, **{key: None for key, value in row.items() if value is None}}


@functools.cache
def _module(path: pathlib.Path, modified: int) -> types.ModuleType:
  """The file as a module named after it, so that a config can name its functions as `module:function`.

  It is executed again after it was modified, as in a notebook.
  """
  del modified
  if path.suffix != ".py":
    raise ValueError(f"{path} is no Python file: its name does not end in .py.")
  name = f"_recipe_{path.stem}" if path.parent in FOLDERS else path.stem
  if path.parent not in FOLDERS and os.fspath(path.parent) not in sys.path:
    sys.path.insert(0, os.fspath(path.parent))
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None and spec.loader is not None  # a file that ends in .py has both
  module = importlib.util.module_from_spec(spec)
  before = sys.modules.get(name)
  sys.modules[name] = module  # where dataclasses, and so flax modules, look for their module
  try:
    spec.loader.exec_module(module)
  except BaseException as error:
    sys.modules.pop(name)
    if before is not None:
      sys.modules[name] = before
    if isinstance(error, SyntaxError):
      raise ValueError(f"{error.filename}, line {error.lineno}, is no Python: {error.msg}.") from None
    raise
  return module


def _may_be_shipped(path: pathlib.Path) -> bool:
  return path.parent in (pathlib.Path(), pathlib.Path("configs"))


def _near(path: pathlib.Path) -> str:
  close = near(path.name.removesuffix(".py"), names())
  return close if close != "." else f". Recipes: {', '.join(names())}."
