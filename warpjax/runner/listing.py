"""What there is to run: every config's methods, with their papers and the numbers published and measured.

The numbers are read from the tables of the configs' docstrings, which are the one place where they are written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from warpjax.runner import recipes

# By how a method is named up to an underscore: imaml_hf is iMAML, warp_meta_sgd WarpGrad.
PAPERS = {
  "anil": "Raghu et al. 2020, arXiv 1909.09157",
  "fomaml": "Finn et al. 2017, arXiv 1703.03400",
  **dict.fromkeys(("g", "mean", "separate_tail", "shared_tail", "sum"), "Nichol et al. 2018, arXiv 1803.02999"),
  "forward_gradient": "Baydin et al. 2022, arXiv 2202.08587",
  "imaml": "Rajeswaran et al. 2019, arXiv 1909.04630",
  "imaml_nystrom": "Hataya and Yamada 2023, arXiv 2302.09726",
  "l2l": "Andrychowicz et al. 2016, arXiv 1606.04474",
  "leap": "Flennerhag et al. 2019, arXiv 1812.01054",
  "maml": "Finn et al. 2017, arXiv 1703.03400",
  "mamlpp": "Antoniou et al. 2019, arXiv 1810.09502",
  "meta_curvature": "Park and Oliva 2019, arXiv 1902.03356",
  "meta_lstm": "Ravi and Larochelle 2017",
  "meta_sgd": "Li et al. 2017, arXiv 1707.09835",
  "one_step": "Bolte et al. 2023, arXiv 2305.13768",
  "pes": "Vicol et al. 2021, arXiv 2112.13835",
  "reptile": "Nichol et al. 2018, arXiv 1803.02999",
  "t_net": "Lee and Choi 2018, arXiv 1801.05558",
  "warp": "Flennerhag et al. 2020, arXiv 1909.00025",
}
NOTHING, NOT_RUN, ALONE = "-", "not yet run", "_alone"


class Row(NamedTuple):
  """One method of one experiment; numbers are text, "-" where there is none.

  Attributes:
    experiment: The config file's name.
    method: After the colon of `--config=configs/NAME.py:METHOD`.
    paper: Where the method comes from.
    published: The number of a paper for this experiment.
    measured: What this repository measured, or "not yet run".
  """

  experiment: str
  method: str
  paper: str
  published: str
  measured: str


def experiments() -> dict[str, str]:
  """The name of each config file that can be trained, and the first line of its docstring."""
  return {name: recipes.load(name).doc.split("\n")[0] for name in recipes.names()}


def rows(experiment: str) -> list[Row]:
  """The methods of one config file."""
  recipe = recipes.load(experiment)
  found, unsaid = tables(recipe.doc), NOT_RUN if is_trained(experiment) else NOTHING
  return [
    Row(experiment, m, paper(m), found.get((m, "published"), NOTHING), found.get((m, "measured"), unsaid))
    for m in recipe.names()
  ]


def is_trained(experiment: str) -> bool:
  """Whether `experiments.train` takes the config file; the benchmark has a script of its own."""
  return bool(recipes.load(experiment).common)


def tables(text: str) -> dict[tuple[str, str], str]:
  """The cells of a docstring's tables, by the row's first cell and the first word of the column's head.

  A column of "5 shots" belongs to the row's `_5shot`, one that is "strict" to its `_strict`; one that begins with
  "alone" has the row's numbers without transduction, as `_alone`.

  Example:
    >>> tables('''
    ... | method | published mse | measured |
    ... |--------|---------------|----------|
    ... | maml   | 1.13 +/- 0.18 | 0.98     |
    ... ''')
    {('maml', 'published'): '1.13 +/- 0.18', ('maml', 'measured'): '0.98'}
  """
  cells: dict[tuple[str, str], str] = {}
  head: list[str] | None = None
  for line in text.splitlines():
    if not line.startswith("|"):
      head = None
    elif head is None:
      head = _cells(line)
    elif not set(line) <= set("|-: "):
      name, *values = _cells(line)
      cells |= {_place(name, title): value for title, value in zip(head[1:], values, strict=False) if value}
  return cells


def _place(name: str, title: str) -> tuple[str, str]:
  suffix = "_5shot" * ("5 shots" in title) + "_strict" * title.startswith("strict") + ALONE * title.startswith("alone")
  kind = next((kind for kind in ("measured", "published") if kind in title), re.split(r"\W", title)[0])
  return name + suffix, kind


def paper(method: str) -> str:
  """The paper that a method comes from, by its name.

  Example:
    >>> paper("imaml_hf"), paper("warp_leap_offline"), paper("scratch")
    ('Rajeswaran et al. 2019, arXiv 1909.04630', 'Flennerhag et al. 2020, arXiv 1909.00025', '-')
  """
  return next((PAPERS[name] for name in sorted(PAPERS, reverse=True) if f"{method}_".startswith(f"{name}_")), NOTHING)


def text() -> str:
  """Every experiment and method, for a terminal."""
  parts = ["python -m experiments.train --config=configs/EXPERIMENT.py:METHOD --workdir=DIR"]
  for name, title in experiments().items():
    if not is_trained(name):
      modes = "|".join(row.method for row in rows(name))
      parts.append(f"{name}: {title}\n  python -m experiments.{name} --config=configs/{name}.py:{modes} --workdir=DIR")
      continue
    lines = [
      ("method", "published", "measured", "paper"),
      *((r.method, r.published, r.measured, r.paper) for r in rows(name)),
    ]
    parts.append(f"{name}: {title}\n" + _aligned(lines))
  return "\n\n".join(parts)


def markdown(found: Sequence[Row]) -> str:
  """A Markdown table of rows."""
  lines = [f"| `{r.experiment}.py:{r.method}` | {r.published} | {r.measured} |" for r in found]
  return "\n".join(["| config | published | measured |", "|---|---|---|", *lines])


def _cells(line: str) -> list[str]:
  return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
  )
