"""The pages of the API: an index of groups, a page for each group, and one for each module with a table of its names.

A module that no group names is an internal one.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
import types

import settings_reference
from api_groups import GROUPS

import warpjax

PAGE = """# {name}

```{{eval-rst}}
.. automodule:: {module}
   :members:{options}
{table}
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
GROUP = """# {title}

{text}

{sections}

```{{toctree}}
:hidden:

{names}
```
"""
INDEX = """# API

The public names by group. {{ref}}`All names <genindex>` are in alphabetical order, too.

| group | what it has |
|---|---|
{groups}

## Names of `warpjax` itself

`import warpjax as wj` has these names, each imported when it is first used. The modules of the second
table are attributes too: `wj.rules`, `wj.optimizers`.

{table}

{modules}

```{{toctree}}
:hidden:

{names}
```
"""


_CODE = re.compile(r"(`[^`]+`)")


def modules() -> dict[str, types.ModuleType]:
  """Every public module: those of `warpjax`, and those that a sub-package names in its `__all__`."""
  named = {}
  for info in pkgutil.iter_modules(warpjax.__path__, "warpjax."):
    module = importlib.import_module(info.name)
    named[info.name] = module
    inside = vars(module).get("__all__", ()) if info.ispkg else ()
    named |= {f"{info.name}.{name}": getattr(module, name) for name in inside if _is_module(getattr(module, name))}
  return dict(sorted((name, module) for name, module in named.items() if "._" not in name))


def names(name: str, module: types.ModuleType) -> list[str]:
  """The full names of a module's public functions and classes: its `__all__`, else what it defines."""
  exported = vars(module).get("__all__")
  public = {key: getattr(module, key) for key in exported or vars(module)}
  return [
    f"{module.__name__}.{key}"
    for key, value in public.items()
    if isinstance(value, types.FunctionType | type | functools.partial)
    and (exported or (value.__module__ == module.__name__ and not key.startswith("_")))
  ]


def groups() -> dict[str, list[str]]:
  """The full names of each group's modules; the last group has those that no other names."""
  every = list(modules())
  belongs = lambda name, parts: any(name == f"warpjax.{part}" or name.startswith(f"warpjax.{part}.") for part in parts)
  chosen = {
    key: [name for part in group.modules for name in every if belongs(name, (part,))] for key, group in GROUPS.items()
  }
  others = [name for name in every if not any(name in each for each in chosen.values())]
  return {key: list(dict.fromkeys(found)) or others for key, found in chosen.items()}


def pages() -> dict[str, str]:
  """The text of every page of the API, by the name of its file."""
  every = modules()
  texts = {f"{name}.md": page(name, module) for name, module in every.items()}
  for key, members in groups().items():
    parts = [
      f"## [{name}]({name}.md)\n\n{_first_line(every[name])}\n\n{_table(_lines(name, every[name]))}".strip()
      for name in members
    ]
    group = GROUPS[key]
    texts[f"{key}.md"] = GROUP.format(
      title=group.title, text=group.text, sections="\n\n".join(parts), names="\n".join(members)
    )
  return texts | {"index.md": _index(every)}


def page(name: str, module: types.ModuleType) -> str:
  """The page of a module: a table of its names, then their docstrings, then presets."""
  options = "\n   :imported-members:" if "__all__" in vars(module) else ""
  rows = [f"* - :py:obj:`{_last(full)} <{full}>`\n  - {as_rest(_lead(text))}" for full, text in _lines(name, module)]
  table = "\n\n.. list-table::\n   :widths: auto\n\n" + textwrap.indent("\n".join(rows), "   ") if rows else ""
  text = PAGE.format(name=name, module=module.__name__, options=options, table=textwrap.indent(table, "   "))
  return text + _presets(name, module)


def _index(every: dict[str, types.ModuleType]) -> str:
  rows = [f"| [{group.title}]({key}.md) | {group.text} |" for key, group in GROUPS.items()]
  homes = {key: warpjax._HOMES[key] for key in warpjax.__all__ if key in warpjax._HOMES}
  lines = [(f"warpjax.{home}.{key}", inspect.getdoc(getattr(warpjax, key)) or "") for key, home in homes.items()]
  attributes = {key: getattr(warpjax, key) for key in warpjax.__all__ if key not in homes}
  file_of = {module.__name__: name for name, module in every.items()}
  listed = [
    f"| [`{key}`]({file_of[module.__name__]}.md) | {settings_reference.cell(_first_line(module))} |"
    for key, module in attributes.items()
  ]
  return INDEX.format(
    groups="\n".join(rows),
    table=_table(lines),
    modules="\n".join(["| module | what it is |", "|---|---|", *listed]),
    names="\n".join(GROUPS),
  )


def _lines(name: str, module: types.ModuleType) -> list[tuple[str, str]]:
  """The full names of a module, without presets, and their docstrings."""
  objects = {full: getattr(module, _last(full)) for full in names(name, module)}
  lines = [(full, inspect.getdoc(value) or "") for full, value in objects.items() if not _is_preset(value)]
  return [*lines, *_documented_constants(module)]


def _table(lines: list[tuple[str, str]]) -> str:
  """The names, each linked to its entry, with the first line of its docstring."""
  rows = [f"| {{py:obj}}`{_last(full)} <{full}>` | {settings_reference.cell(_lead(text))} |" for full, text in lines]
  return "\n".join(["| name | what it is |", "|---|---|", *rows]) if rows else ""


def as_rest(text: str) -> str:
  """A docstring in reST: code within single backticks gets pairs of them, and bars outside of it are escaped."""
  parts = _CODE.split(text)
  for index, part in enumerate(parts):
    if index % 2:
      parts[index] = f"`{part}`" + ("\\ " if re.match(r"\w", parts[index + 1]) else "")
    else:
      parts[index] = re.sub(r"\|", r"\\|", part)
  return "".join(parts)


def _documented_constants(module: types.ModuleType) -> list[tuple[str, str]]:
  """Public constants and type aliases with a docstring below them, which autodoc documents."""
  body = ast.parse(inspect.getsource(module)).body
  lines = []
  for statement, after in zip(body, body[1:], strict=False):
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
    if isinstance(text, str) and isinstance(targets[0], ast.Name) and not targets[0].id.startswith("_"):
      lines.append((f"{module.__name__}.{targets[0].id}", inspect.cleandoc(text)))
  return [] if "__all__" in vars(module) else lines


def _presets(name: str, module: types.ModuleType) -> str:
  """A section for the presets of a module, instances of `functools.partial`, which autodoc leaves out."""
  public = {full: getattr(module, _last(full)) for full in names(name, module)}
  presets = {full: value for full, value in public.items() if _is_preset(value)}
  if not presets:
    return ""
  entries = [ENTRY.format(module=name, name=_last(full), call=_call(presets[full])) for full in presets]
  table = inspect.getdoc(sys.modules[type(next(iter(presets.values()))).__module__])
  return "\n" + PRESETS.format(table=table, entries="\n".join(entries))


def _call(preset: functools.partial[object]) -> str:
  fields = {key: "..." if callable(value) else repr(value) for key, value in preset.keywords.items()}
  return f"{preset.func.__name__}({', '.join(f'{key}={text}' for key, text in fields.items())})"


def _lead(text: str) -> str:
  """The first paragraph of a docstring up to the end of its first line that ends a sentence."""
  paragraph = " ".join(text.split("\n\n")[0].split())
  first = text.strip().split("\n")[0]
  return first if first.endswith((".", ":")) else paragraph


def _last(full: str) -> str:
  return full.rpartition(".")[2]


def _first_line(module: types.ModuleType) -> str:
  return (module.__doc__ or "").strip().split("\n")[0]


def _is_module(value: object) -> bool:
  return isinstance(value, types.ModuleType)


def _is_preset(value: object) -> bool:
  return isinstance(value, functools.partial)
