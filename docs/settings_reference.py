"""The page of settings: every setting of every component, from the functions that `--settings` uses."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping

from warpjax.runner.config import registry, schema, settings

PAGE = """# Settings

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


def page() -> str:
  """The page: a section for each table of a config, and in it one for each component."""
  of_the_run = settings.reference({})
  evaluation = [each for each in of_the_run if each.path.startswith("eval.")]
  sections = [_section("The run", _columns({"": [each for each in of_the_run if "." not in each.path]}))]
  sections += [_section("`eval`", _columns({"": evaluation}))]
  sections += [_kind(kind) for kind in registry.KINDS]
  marks = "\n".join(f"| `{name}` | {text} |" for name, text in MARKS.items())
  return PAGE.format(marks=f"| mark | meaning |\n|---|---|\n{marks}", tables="\n\n".join(sections))


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
  intro = f"`{key}` names one of these, or `module:function`, [a function of your own](../how_to/your_method.md)."
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
    lines.append(f"| {' | '.join(map(cell, cells))} |")
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


def cell(text: str) -> str:
  """The text with what Markdown would read as a mark escaped; within code that is the bar alone."""
  parts = re.split(r"(`[^`]*`)", text)
  return "".join(re.sub(r"\|" if index % 2 else r"[|*$<>\[\]_]", r"\\\g<0>", part) for index, part in enumerate(parts))
