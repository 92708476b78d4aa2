"""Lists the rows of recipes, with their papers and the published and measured numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from warpjax.runner.config import recipes
from warpjax.runner.reporting import records, tables

# By the beginning of a method's name, up to an underscore: imaml_hf is iMAML, warp_meta_sgd WarpGrad.
PAPERS = {
  "alfa": "Baik et al. 2020, arXiv 2011.00209",
  "anil": "Raghu et al. 2020, arXiv 1909.09157",
  "bootstrapped": "Flennerhag et al. 2022, arXiv 2109.04504",
  "cavia": "Zintgraf et al. 2019, arXiv 1810.03642",
  **dict.fromkeys(("end_to_end", "in_the_test", "no_adaptation"), "Tandon et al. 2025, arXiv 2512.23675"),
  "evolution_strategies": "Vicol et al. 2021, arXiv 2112.13835",
  "f2sa": "Kwon et al. 2023, arXiv 2301.10945",
  "fomaml": "Finn et al. 2017, arXiv 1703.03400",
  **dict.fromkeys(("g", "mean", "separate_tail", "shared_tail", "sum"), "Nichol et al. 2018, arXiv 1803.02999"),
  "forward_gradient": "Baydin et al. 2022, arXiv 2202.08587",
  "hebbian": "Miconi et al. 2019, arXiv 2002.10585",
  "imaml": "Rajeswaran et al. 2019, arXiv 1909.04630",
  "imaml_nystrom": "Hataya and Yamada 2023, arXiv 2302.09726",
  "implicit": "Lorraine et al. 2020, arXiv 1911.02590",
  "implicit_nystrom": "Hataya and Yamada 2023, arXiv 2302.09726",
  "l2l": "Andrychowicz et al. 2016, arXiv 1606.04474",
  "leap": "Flennerhag et al. 2019, arXiv 1812.01054",
  "learning_rate": "Greydanus and Kobak 2024, arXiv 2011.14439",
  "maml": "Finn et al. 2017, arXiv 1703.03400",
  "mamlpp": "Antoniou et al. 2019, arXiv 1810.09502",
  "meta_curvature": "Park and Oliva 2019, arXiv 1902.03356",
  "meta_lstm": "Ravi and Larochelle 2017",
  "meta_sgd": "Li et al. 2017, arXiv 1707.09835",
  "one_step": "Bolte et al. 2023, arXiv 2305.13768",
  **dict.fromkeys(("penalty", "v_pbgd"), "Shen and Chen 2023, arXiv 2302.05185"),
  "pes": "Vicol et al. 2021, arXiv 2112.13835",
  "proto_maml": "Triantafillou et al. 2020, arXiv 1903.03096",
  "reptile": "Nichol et al. 2018, arXiv 1803.02999",
  "sama": "Choe et al. 2023, arXiv 2310.05674",
  "soba": "Dagreou et al. 2022, arXiv 2201.13409",
  "t1_t2": "Luketina et al. 2016, arXiv 1511.06727",
  "t_net": "Lee and Choi 2018, arXiv 1801.05558",
  "truncated": "Shaban et al. 2019, arXiv 1810.10667",
  "unrolled": "Franceschi et al. 2017, arXiv 1703.01785",
  "warm_implicit": "Arbel and Mairal 2022, arXiv 2111.14580",
  "warp": "Flennerhag et al. 2020, arXiv 1909.00025",
}
NOT_RUN = "not yet run"
USAGE = "warpjax train --config=EXPERIMENT:METHOD --workdir=DIR"


class Row(NamedTuple):
  """One method of one experiment; numbers are text, "-" where there is none.

  Attributes:
    experiment: The recipe file's name.
    method: After the colon of `--config=NAME:METHOD`.
    paper: The paper of the method.
    published: The paper's number for this experiment.
    measured: The number of the record, or "not yet run".
  """

  experiment: str
  method: str
  paper: str
  published: str
  measured: str


def rows(recipe: recipes.Recipe, of_paper: str = "") -> list[Row]:
  """The methods of a recipe file and their variants, all or those of one paper, the measured ones first."""
  made = records.load(recipe.name) if recipe.path.parent in recipes.FOLDERS else {}
  listed, missing = [], NOT_RUN if recipes.CHECKOUT else records.NOTHING  # records are not installed
  for method in recipe.names():
    source = paper(recipe, method)
    if of_paper not in ("", source):
      continue
    per_step = "per_step" in recipe.also(method)
    measured = records.measured(made[method], per_step=per_step) if method in made else missing
    listed.append(Row(recipe.name, method, source, records.published(recipe, method), measured))
  return sorted(listed, key=lambda row: row.measured in (NOT_RUN, records.NOTHING))


def paper(recipe: recipes.Recipe, method: str) -> str:
  """The paper of a method: by its name, else the source of its published number.

  Example:
    >>> [paper(recipes.load("multi_shot_omniglot"), method) for method in ("warp_leap_offline", "scratch")]
    ['Flennerhag et al. 2020, arXiv 1909.00025', 'Flennerhag et al. 2020, arXiv 1909.00025, 25 alphabets']
  """
  if prefix := prefix_of(method):
    return PAPERS[prefix]
  also = recipe.also(method)
  return recipe.settings(method).get("published", also).get("source", records.NOTHING)


def prefix_of(method: str) -> str:
  """The key of `PAPERS` that a method belongs to, "" for none.

  Example:
    >>> prefix_of("imaml_hf_cpu"), prefix_of("imaml_nystrom"), prefix_of("scratch")
    ('imaml', 'imaml_nystrom', '')
  """
  return next((name for name in sorted(PAPERS, reverse=True) if f"{method}_".startswith(f"{name}_")), "")


def is_trained(recipe: recipes.Recipe) -> bool:
  """Whether `warpjax train` takes the recipe; the benchmark has a command of its own."""
  return bool(recipe.common)


def select(every: Iterable[Row], *, paper: str = "", method: str = "", measured: bool = False) -> list[Row]:
  """The rows whose paper and method contain these texts, ignoring case; with `measured`, only measured rows."""
  return [
    row
    for row in every
    if paper.lower() in row.paper.lower()
    and method.lower() in row.method.lower()
    and not (measured and row.measured in (NOT_RUN, records.NOTHING))
  ]


def text(sources: Sequence[str] = (), *, paper: str = "", method: str = "", measured: bool = False) -> str:
  """Recipes and their rows, for a terminal.

  Args:
    sources: Names or paths of recipes; empty for all installed ones.
    paper: As for `select`.
    method: As for `select`.
    measured: As for `select`.

  Returns:
    A table for each recipe with selected rows.

  Raises:
    ValueError: For an unknown recipe, or if no row is selected.
  """
  parts = []
  for recipe in map(recipes.load, sources or recipes.names()):
    title = f"{recipe.name}: {recipe.doc.strip().splitlines()[0] if recipe.doc.strip() else recipe.path}"
    if not is_trained(recipe):
      modes = "|".join(recipe.methods)
      command = f"python -m experiments.{recipe.name} --config=configs/{recipe.name}.py:{modes} --workdir=DIR"
      parts += [] if paper or method or measured or recipes.CHECKOUT is None else [f"{title}\n  {command}"]
    elif chosen := select(rows(recipe), paper=paper, method=method, measured=measured):
      shown = [Row("", "method", "paper", "published", "measured"), *chosen]
      cells = tables.aligned([(row.method, row.published, row.measured, row.paper) for row in shown])
      parts.append(f"{title}\n{textwrap.indent(cells, '  ')}")
  if not parts:
    wanted = " and was measured" if measured else ""
    raise ValueError(f"no row has paper {paper!r} and method {method!r}{wanted}.")
  return "\n\n".join([USAGE, *parts])
