"""The pages made from the code: the API, a page for each recipe, and the settings of a run."""

from __future__ import annotations

import functools
import importlib
import inspect
import pathlib
import pkgutil
import sys
import types

import settings_reference

import warpjax
from warpjax.runner.config import recipes

PAGE = """# {name}

```{{eval-rst}}
.. automodule:: {name}
   :members:{options}
```
"""
PRESETS = """## Presets

{table}

```{{eval-rst}}
{entries}
```
"""
ENTRY = """.. py:function:: {name}(**fields)
   :module: {module}

   ``{call}``
"""
INDEX = """# API

The docstrings, module by module. The nouns are in [](warpjax.types.md).

| module | what it is |
|---|---|
{rows}

```{{toctree}}
:hidden:

{names}
```
"""
COMBINATIONS = """# Which rule, which estimator, which task

Every estimator with every rule is a case of `tests/test_conformance.py`, from whose tables this page is made.

| estimator | few-shot | shared, query | bilevel | learned rule | rules |
|---|---|---|---|---|---|
{rows}

- *few-shot*: the start of the adaptation, `initial`. `implicit`, `warm_implicit`, `penalty`, `sama`, `soba` and
  `one_step` estimate it by the proximal term alone, so that `InnerLoop.prox` must be above 0.
- *shared, query*: `shared` that the query loss reads, such as a frozen body or warp-layers.
- *bilevel*: `shared` that the inner loss alone reads, such as the weights of examples or hyper-parameters. An estimator
  without a "yes" has a zero gradient there.
- *learned rule*: step sizes and other parameters of the rule.
- *rules*: those of {rules}.
  An estimator that differentiates a step refuses a rule without a derivative, by name.
- `truncated_unroll` has its default here, `derivative="first_order"`. With `"mixed"` it is for bilevel problems too.
- Estimators that carry a state do not go with `own_parameters` and `blockwise`.
"""
EXPERIMENT = """# {name}

The docstring of `configs/{name}.py`: paper, command, protocol. `RESULTS.md` has what was measured.

```text
{docstring}
```
"""
EXPERIMENTS = """# Experiments

Run one with `warpjax train --config=NAME:METHOD --workdir=DIR`.

| config | what it is |
|---|---|
{rows}

```{{toctree}}
:hidden:

{names}
```
"""


def modules() -> dict[str, types.ModuleType]:
  """Every public module: those of `warpjax`, and those that a sub-package names in its `__all__`."""
  found = {}
  for info in pkgutil.iter_modules(warpjax.__path__, "warpjax."):
    module = importlib.import_module(info.name)
    found[info.name] = module
    inside = vars(module).get("__all__", ()) if info.ispkg else ()
    found |= {f"{info.name}.{name}": getattr(module, name) for name in inside if _is_module(getattr(module, name))}
  return dict(sorted((name, module) for name, module in found.items() if "._" not in name))


def names(name: str, module: types.ModuleType) -> list[str]:
  """The full names of a module's public functions and classes: its `__all__`, else what it defines."""
  exported = vars(module).get("__all__")
  public = {key: getattr(module, key) for key in exported or vars(module)}
  return [
    f"{name}.{key}"
    for key, value in public.items()
    if isinstance(value, types.FunctionType | type | functools.partial)
    and (exported or (value.__module__ == name and not key.startswith("_")))
  ]


def write_api(folder: pathlib.Path) -> None:
  """Writes a page for each module, and an index of them."""
  pages = {}
  for name, module in modules().items():
    options = "\n   :imported-members:" if "__all__" in vars(module) else ""
    pages[f"{name}.md"] = PAGE.format(name=name, options=options) + _presets(name, module)
  rows = [f"| [{name}]({name}.md) | {_first_line(module)} |" for name, module in modules().items()]
  pages["index.md"] = INDEX.format(rows="\n".join(rows), names="\n".join(modules()))
  _write(folder, pages)


def _presets(name: str, module: types.ModuleType) -> str:
  """A section for the presets of a module, instances of `functools.partial`, which autodoc leaves out."""
  public = {full: getattr(module, full.rpartition(".")[2]) for full in names(name, module)}
  presets = {full: value for full, value in public.items() if isinstance(value, functools.partial)}
  if not presets:
    return ""
  entries = [ENTRY.format(module=name, name=full.rpartition(".")[2], call=_call(presets[full])) for full in presets]
  table = inspect.getdoc(sys.modules[type(next(iter(presets.values()))).__module__])
  return "\n" + PRESETS.format(table=table, entries="\n".join(entries))


def _call(preset: functools.partial[object]) -> str:
  fields = {key: "..." if callable(value) else repr(value) for key, value in preset.keywords.items()}
  return f"{preset.func.__name__}({', '.join(f'{key}={text}' for key, text in fields.items())})"


def write_experiments(folder: pathlib.Path) -> None:
  """Writes a page for each config file, its docstring, and an index of them."""
  documented = {name: recipes.load(name).doc.strip() for name in recipes.names()}
  titles = {name: text.split("\n")[0] for name, text in documented.items()}
  pages = {f"{name}.md": EXPERIMENT.format(name=name, docstring=text) for name, text in documented.items()}
  rows = [f"| [{name}]({name}.md) | {title} |" for name, title in titles.items()]
  _write(folder, pages | {"index.md": EXPERIMENTS.format(rows="\n".join(rows), names="\n".join(titles))})


def write_combinations(folder: pathlib.Path) -> None:
  """Writes the page of which rule goes with which estimator and which task, from the tables of the conformance test."""
  from tests import test_conformance as conformance

  rows = []
  for name in conformance.ESTIMATORS:
    refused = [f"`{rule}`" for rule in conformance.RULES if conformance.refused(rule, name)]
    estimated = ["yes" if part in conformance.ESTIMATES[name] else "-" for part in conformance.PARTS]
    rows.append(f"| `{name}` | {' | '.join(estimated)} | {'all but ' + ', '.join(refused) if refused else 'all'} |")
  rules = ", ".join(f"`{rule}`" for rule in conformance.RULES)
  _write(folder, {"index.md": COMBINATIONS.format(rows="\n".join(rows), rules=rules)})


def write_settings(folder: pathlib.Path) -> None:
  """Writes the page of settings."""
  _write(folder, {"index.md": settings_reference.page()})


def _write(folder: pathlib.Path, pages: dict[str, str]) -> None:
  """Writes the pages; those that nobody makes any more are removed."""
  folder.mkdir(exist_ok=True)
  for stale in set(folder.glob("*.md")) - {folder / page for page in pages}:
    stale.unlink()
  for page, text in pages.items():
    (folder / page).write_text(text, encoding="utf-8")


def _is_module(value: object) -> bool:
  return isinstance(value, types.ModuleType)


def _first_line(module: types.ModuleType) -> str:
  return (module.__doc__ or "").strip().split("\n")[0]
