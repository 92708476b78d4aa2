"""The pages made from the code: the API, a page for each recipe, and the settings of a run."""

from __future__ import annotations

import collections
import importlib
import pathlib
import pkgutil
import re
import types
from collections.abc import Mapping

import warpjax
from warpjax.runner.config import recipes, registry, schema, settings

PAGE = """# {name}

```{{eval-rst}}
.. automodule:: {name}
   :members:{options}
```
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
SETTINGS = """# Settings

Every setting of every component that a config can name. `warpjax train --config=RECIPE:ROW --settings` prints the
settings of one row with their values; the same functions generate this page. `--config.PATH=VALUE` changes a setting.

{marks}

{tables}
"""
MARKS = {
  "problem": "Another value makes other tasks, for which the row has no published number.",
  "test": "A trained model can be tested under another value, by `warpjax evaluate --set=PATH=VALUE`.",
  "training": "It has no influence on the test tasks.",
  "chosen": "It chose the checkpoints of a result, so that `warpjax evaluate` refuses another value.",
}


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
    if isinstance(value, types.FunctionType | type)
    and (exported or (value.__module__ == name and not key.startswith("_")))
  ]


def write_api(folder: pathlib.Path) -> None:
  """Writes a page for each module, and an index of them."""
  pages = {}
  for name, module in modules().items():
    options = "\n   :imported-members:" if "__all__" in vars(module) else ""
    pages[f"{name}.md"] = PAGE.format(name=name, options=options)
  rows = [f"| [{name}]({name}.md) | {_first_line(module)} |" for name, module in modules().items()]
  pages["index.md"] = INDEX.format(rows="\n".join(rows), names="\n".join(modules()))
  _write(folder, pages)


def write_experiments(folder: pathlib.Path) -> None:
  """Writes a page for each config file, its docstring, and an index of them."""
  documented = {name: recipes.load(name).doc.strip() for name in recipes.names()}
  titles = {name: text.split("\n")[0] for name, text in documented.items()}
  pages = {f"{name}.md": EXPERIMENT.format(name=name, docstring=text) for name, text in documented.items()}
  rows = [f"| [{name}]({name}.md) | {title} |" for name, title in titles.items()]
  _write(folder, pages | {"index.md": EXPERIMENTS.format(rows="\n".join(rows), names="\n".join(titles))})


def write_settings(folder: pathlib.Path) -> None:
  """Writes the page of settings: a section for each table of a config, and in it one for each component."""
  of_the_run = settings.reference({})
  evaluation = [each for each in of_the_run if each.path.startswith("eval.")]
  sections = [_section("The run", _columns({"": [each for each in of_the_run if "." not in each.path]}))]
  sections += [_section("`eval`", _columns({"": evaluation}))]
  sections += [_kind(kind) for kind in registry.KINDS]
  marks = "\n".join(f"| `{name}` | {text} |" for name, text in MARKS.items())
  text = SETTINGS.format(marks=f"| mark | meaning |\n|---|---|\n{marks}", tables="\n\n".join(sections))
  _write(folder, {"index.md": text})


def components(kind: str) -> dict[str, list[settings.Setting]]:
  """The settings of each component of a table, without the one that names it."""
  key = f"{kind}.{registry.KEY[kind]}"
  made = {name: settings.reference({kind: {registry.KEY[kind]: name}}) for name in registry.TABLES[kind]}
  return {
    name: [each for each in every if each.path.startswith(f"{kind}.") and each.path != key]
    for name, every in made.items()
  }


def _kind(kind: str) -> str:
  """The section of a table: what all of its components take, and then each; those that differ in defaults share one."""
  every = components(kind)
  shared = [each for each in next(iter(every.values())) if all(each in others for others in every.values())]
  groups: dict[tuple[str, ...], dict[str, list[settings.Setting]]] = {}
  for name, each in every.items():
    own = [setting for setting in each if setting not in shared]
    groups.setdefault(tuple(f"{setting.path}: {setting.hint} {setting.doc}" for setting in own), {})[name] = own
  key = f"{kind}.{registry.KEY[kind]}"
  intro = f"`{key}` names one of these, or `module:function`, [a function of your own](../your_method.md)."
  parts = [
    _section(", ".join(f"`{name}`" for name in group), _columns(group) if own else "No settings of its own.", level=3)
    for own, group in groups.items()
  ]
  common = [_section(f"Settings of every `{kind}`", _columns({"": shared}), level=3)] if shared else []
  return "\n\n".join([_section(f"`{kind}`", intro), *common, *parts])


def _section(title: str, text: str, level: int = 2) -> str:
  return f"{'#' * level} {title}\n\n{text}"


def _columns(group: Mapping[str, list[settings.Setting]]) -> str:
  """A table of settings; a default that differs between components names them."""
  lines = ["| setting | type | default | meaning | marks |", "|---|---|---|---|---|"]
  for same in zip(*group.values(), strict=True):
    first = same[0]
    cells = (
      f"`{first.path}`",
      schema.describe(first.hint),
      _defaults(dict(zip(group, map(_default, same), strict=True))),
      first.doc,
      ", ".join(sorted(first.marks)),
    )
    lines.append(f"| {' | '.join(map(_cell, cells))} |")
  return "\n".join(lines)


def _defaults(by_name: Mapping[str, str]) -> str:
  """The most common default, and those of the components that have another."""
  usual = collections.Counter(by_name.values()).most_common(1)[0][0]
  others: dict[str, list[str]] = {}
  for name, text in by_name.items():
    if text != usual:
      others.setdefault(text, []).append(f"`{name}`")
  return "; ".join([usual, *(f"{text} in {', '.join(names)}" for text, names in others.items())])


def _default(setting: settings.Setting) -> str:
  if setting.required:
    return "required"
  return "none" if setting.default is None else f"`{setting.default!r}`"


def _cell(text: str) -> str:
  """The text with what Markdown would read as a mark escaped; within code that is the bar alone."""
  parts = re.split(r"(`[^`]*`)", text)
  return "".join(re.sub(r"\|" if index % 2 else r"[|*$<>\[\]_]", r"\\\g<0>", part) for index, part in enumerate(parts))


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
