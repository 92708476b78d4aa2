"""RESULTS.md and the tables of README and the docs: a line for each measured row, from its record and its recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from warpjax.runner import workdir
from warpjax.runner.config import listing, recipes
from warpjax.runner.reporting import records, sections
from warpjax.runner.reporting.sections import Section
from warpjax.runner.reporting.tables import markdown

SMOKE = 0.2  # a share of the paper's tasks
COLUMNS = ("method", "published", "measured", "gap", "recipe", "budget", "test tasks", "time", "reason")
OF_SMOKE = ("task", *(name for name in COLUMNS if name != "gap"))
OF_HIGHLIGHTS = ("task", "recipe", "measured", "published", "budget")

MAML = dict.fromkeys(("omniglot_5", "omniglot_1", "mini_5", "mini_1"), ("warpjax", "warpjax_cores"))
"""The cases and paths of README's sentence on speed."""


class Entry(NamedTuple):
  """A measured row."""

  section: Section
  recipe: recipes.Recipe
  method: str
  record: records.Record

  @property
  def whole(self) -> str:
    """The name of the row at its paper's size."""
    return self.recipe.whole(self.method)

  @property
  def budgets(self) -> tuple[tuple[int, int], tuple[int, int]]:
    """Meta-steps and the tasks in each, as measured and of the paper's size."""
    rows = (self.record, self.recipe.settings(self.whole))
    own, paper = ((row["num_meta_steps"], row["tasks_per_step"]) for row in rows)
    return own, paper

  @property
  def share(self) -> float:
    """The row's training tasks as a share of its paper's."""
    (steps, tasks), (all_steps, all_tasks) = self.budgets
    return steps * tasks / (all_steps * all_tasks)

  @property
  def published(self) -> Mapping[str, Any]:
    """The paper's number for the row, empty where it has none."""
    return self.recipe.settings(self.method).get("published", {})


def entries() -> Iterator[Entry]:
  """The measured rows, section by section, in the order of the recipes."""
  for section in sections.SECTIONS:
    recipe, measured = recipes.load(section.recipe), records.load(section.recipe)
    for method in (name + suffix for name in recipe.methods for suffix in ("", *recipe.variants)):
      if method in measured and re.fullmatch(section.pattern, method):
        yield Entry(section, recipe, method, measured[method])


def is_smoke(entry: Entry) -> bool:
  """Whether a row is too small to be compared with its paper, whatever was measured."""
  return entry.share < SMOKE


def results() -> str:
  """The whole of RESULTS.md."""
  every, parts = list(entries()), [sections.HEAD]
  small = [entry for entry in every if is_smoke(entry)]
  for section in sections.SECTIONS:
    if shown := [entry for entry in every if entry.section == section and entry not in small]:
      parts += [f"## {section.title}\n\n{section.text}\n", f"{of(shown, COLUMNS)}\n", others(shown)]
  parts += [sections.SMOKE_HEAD, notes(small), f"{of(small, OF_SMOKE)}\n", others(small)]
  parts += [f"## {_of_machines(name)[-1]['title']}\n\n{benchmark(name)}\n" for name in _benchmarks()]
  return "\n".join(filter(None, [*parts, f"## Never run\n\n{not_run()}\n"]))


def cells(entry: Entry, *, alone: bool = False) -> dict[str, str]:
  """The cells of a row by column; `alone` for its numbers without transduction."""
  _, recipe, method, record = entry
  also = recipe.also(method)
  result = {**record, **record["support_plus_one"]} if alone else record
  number = also["support_plus_one"][0] if alone else entry.published.get("number")
  scale = 100 if record["metric"] == "accuracy" else 1
  changed = "".join(f" --config.{key}={value}" for key, value in record.get("changed", {}).items())
  budget, whole = (f"{steps:,} x {tasks}" for steps, tasks in entry.budgets)
  return {
    "task": entry.section.title,
    "method": f"{entry.whole}, no transduction" if alone else entry.whole,
    "published": records.published(recipe, method, alone=alone),
    "measured": records.measured(result, per_step="per_step" in also),
    "gap": "" if number is None else f"{scale * (result['mean'] - number):+.2f}",
    "recipe": f"`{recipe.name}.py:{method}{changed}`",
    "budget": budget if budget == whole else f"{budget} of {whole}",
    "test tasks": f"{record['num_tasks']:,}" if record["num_tasks"] else records.NOTHING,
    "time": time(record),
    "reason": record.get("reason", ""),
  }


def time(record: records.Record) -> str:
  """The time of one seed, and the machine if the run recorded it."""
  if record.get("wall_seconds") is None:
    return record.get("time", "")
  seconds = record["wall_seconds"] / len(record["seeds"])
  sizes = (("h", 3600), ("min", 60), ("s", 1))
  unit, size = next((unit, size) for unit, size in sizes if seconds >= 2 * size or size == 1)
  return f"{seconds / size:.{int(unit == 'h')}f} {unit}, {record['machine']['cpu']}, {record['machine']['cores']} cores"


def of(shown: Sequence[Entry], columns: Sequence[str]) -> str:
  """The table of some rows, with one more line for numbers without transduction that the paper has too."""
  rows = []
  for entry in shown:
    rows.append(cells(entry))
    if all("support_plus_one" in said for said in (entry.record, entry.recipe.also(entry.method))):
      rows.append(cells(entry, alone=True))
  return _table(columns, rows)


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
  return markdown(columns, [[row[name] for name in columns] for row in rows])


def others(shown: Sequence[Entry]) -> str:
  """The further numbers of some rows, as a list; "" for none."""
  lines = []
  for entry in shown:
    numbers = [f"  - {other['what']}: {records.further(other)}" for other in entry.record.get("others", ())]
    lines += [f"- `{entry.recipe.name}.py:{entry.method}`", *numbers] if numbers else []
  return "\n".join(["Other runs:", "", *lines, ""]) if lines else ""


def notes(shown: Sequence[Entry]) -> str:
  """Notes on each task of a table; tasks with the same note share a line."""
  titles: dict[str, dict[str, None]] = {}
  for entry in shown:
    titles.setdefault(entry.section.text, {})[entry.section.title] = None
  return "".join(f"- {'; '.join(names)}: {text}\n" for text, names in titles.items())


def highlights() -> str:
  """README's table."""
  every = {(each.recipe.name, each.method): each for each in entries()}
  shown = [every[name] for name in sections.HIGHLIGHTS if name in every]
  return _table(OF_HIGHLIGHTS, [{**cells(entry), "budget": f"{entry.share:.0%}"} for entry in shown])


def why() -> str:
  """README's reasons."""
  memory, peers = (_of_machines(name)[0] for name in ("memory", "peers"))
  temporaries = {row[0]: row[-1] for row in memory["rows"]}
  rows = [row for name, case in peers["cases"].items() if name in MAML for row in case if row["method"] in MAML[name]]
  speedups = [row["speedup"] for row in rows]
  return sections.WHY.format(
    steps=memory["columns"][-1],
    ours=temporaries["`mixed_save_gradients`"],
    plain=temporaries["`reverse_save_all`"],
    low=min(speedups),
    high=max(speedups),
    machine=f"{peers['machine']['cpu']}, {peers['machine']['cores']} cores",
  ).strip()


def paper(prefix: str) -> str:
  """The table of a paper's page: the rows of its methods that have a number, the measured ones first."""
  rows = [row for recipe in _trained() for row in listing.rows(recipe, listing.PAPERS[prefix])]
  name = lambda row: f"`{row.experiment}.py:{row.method}`"
  shown = [row for row in rows if (row.published, row.measured) != (records.NOTHING, listing.NOT_RUN)]
  if not shown:
    return f"Not yet measured: {', '.join(map(name, rows))}."
  lines = [(name(row), row.published, row.measured) for row in shown]
  return markdown(("recipe", "published", "measured"), sorted(lines, key=lambda line: line[-1] == listing.NOT_RUN))


def benchmark(name: str) -> str:
  """The tables of a benchmark with a description and a command, the newest machine's first."""
  found = _of_machines(name)
  alone = len(found) == 1
  return "\n\n".join(_benchmark_table(record, heading=not alone) for record in found)


def _benchmark_table(record: records.Record, *, heading: bool) -> str:
  machine, versions = record["machine"], record.get("versions", {})
  cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
  more = [f"{machine[key]} {unit}" for key, unit in (("threads", "threads"), ("memory_gib", "GiB")) if key in machine]
  packages = [f"{package} {version}" for package, version in versions.items()]
  device = [] if machine.get("device", "cpu") == "cpu" else [machine["device"]]
  measured_on = ", ".join([*device, machine["cpu"], cores, *more, *packages])
  above = f"**{record['title']}: {machine['cpu']}, {cores}**\n\n" if heading else ""
  about = f"{above}{record['text']} Measured on: {measured_on}. Command: `{record['command']}`."
  return f"{about}\n\n{markdown(record['columns'], record['rows'])}"


def not_run() -> str:
  """The rows that nobody has run, once."""
  lines = []
  for recipe in _trained():
    measured = records.load(recipe.name)
    missing = [f"`{method}`" for method in recipe.methods if method not in measured]
    shown = ["every row"] if len(missing) == len(recipe.methods) else missing
    shown += [f"every `{suffix}`" for suffix in recipe.variants if not any(name.endswith(suffix) for name in measured)]
    lines += [f"- `{recipe.name}.py`: {', '.join(shown)}"] if missing else []
  return "\n".join(lines)


def _benchmarks() -> list[str]:
  """Names of the measured benchmarks: those of every machine, then those on a GPU."""
  measured = [name for name in sections.BENCHMARKS if _of_machines(name)]
  return [*measured, *sorted(path.stem for path in (records.FOLDER / "benchmark").glob("gpu_*.json"))]


def _of_machines(name: str) -> list[records.Record]:
  """The records `NAME.json` and `NAME_MACHINE.json`, the newest first."""
  folder = records.FOLDER / "benchmark"
  found = [workdir.read_json(path) for path in sorted([*folder.glob(f"{name}.json"), *folder.glob(f"{name}_*.json")])]
  return sorted(found, key=lambda record: record.get("date", ""), reverse=True)


def _trained() -> list[recipes.Recipe]:
  return [recipe for recipe in map(recipes.load, recipes.names()) if listing.is_trained(recipe)]
