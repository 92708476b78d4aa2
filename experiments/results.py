"""Writes RESULTS.md: the papers' numbers beside those measured here, their recipes, budgets and gaps.

  python -m experiments.results

Numbers come from the tables of the configs' docstrings, budgets from the rows themselves.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from warpjax.runner import cli, listing, recipes, workdir

PATH = pathlib.Path(__file__).parents[1] / "RESULTS.md"
HEAD = """# Results

The papers' numbers beside those measured here. `python -m experiments.results` writes this file from the docstrings of
`configs/`, where the settings are. A recipe is run by `python -m experiments.train --config=configs/RECIPE
--workdir=DIR`, with the flags that its section names. A budget is meta-steps by tasks in each: here, and in the row of
full size, which is the paper's where the paper states it (Meta-SGD's and WarpGrad's few-shot tasks a meta-step it does
not). `_cpu` recipes have other step sizes and schedules besides: the config lists them. The gap is measured minus
published; for errors below 0 is better.

Published intervals: MAML, FOMAML and iMAML 95% over 600 tasks; Reptile from three seeds; WarpGrad the deviation over
runs; Meta-SGD does not say. Measured ones are 95%, as each section says. Batch norm sees the query examples of a few-
shot task together, as in the papers, but not in the rows that have no transduction. Times are of one core of an Intel
Xeon, where the row names no other machine. No accelerator was at hand; a row that is not yet run has its recipe for a
CPU, where there is one.
"""
TAIL = """## iMAML's figure: error against compute, memory and time against steps

`python -m experiments.benchmark --config=configs/benchmark.py:MODE --workdir=DIR` draws each in a picture besides.
"""
FIGURE = "iMAML's figure, on one core:\n"  # What follows it in the docstring of the benchmark.


class Section(NamedTuple):
  """Rows of one config that belong together.

  Attributes:
    title: Its heading.
    config: The file's name.
    methods: The papers' rows.
    text: What holds for all of them.
    on_test_tasks: Whether the numbers are of test tasks.
    suffix: What ends the name of a row that was run in place of a paper's.
  """

  title: str
  config: str
  methods: Sequence[str]
  text: str
  on_test_tasks: bool = True
  suffix: str = "_cpu"


OMNIGLOT = ("maml", "fomaml", "meta_sgd", "reptile", "imaml", "imaml_hf")
MINI = (
  "maml",
  "fomaml",
  "anil",
  "meta_sgd",
  "reptile",
  "imaml",
  "imaml_hf",
  "warp_maml",
  "meta_lstm",
  "meta_curvature",
  "mamlpp",
)
LADDER = [
  name.removesuffix("_ladder_cpu")
  for name in recipes.load("multi_shot_omniglot").methods
  if name.endswith("_ladder_cpu")
]
STUDIES = list(recipes.load("reptile_studies").methods)
CURVE = (1, 3, 5, 10, 15, 20)
# As many of them as were run of that many alphabets: below 10 Warp-Leap is not claimed to be ahead of any.
MULTI_SHOT_ROWS = {10: 7, 15: 6, 20: 6, 25: 7}
MULTI_SHOT = ("warp_leap_offline", "leap", "fine_tuning", "reptile", "maml", "fomaml", "scratch")
ONE_SPLIT = (
  "On one split of the alphabets; the paper's interval is the standard deviation over runs, each with a split of its "
  "own. Accuracy is under running statistics, MAML's under those of the batch, as in the released code."
)
PAIRED = " The config has the paired differences."
SEEDS_OF_TEN = (
  "Warp-Leap and fine-tuning: five seeds (`--seeds=0,1,2,3,4`), the interval over seeds. The others: one seed, the "
  "interval over the 10 test alphabets. "
)
ONE_SEED_OF_ALPHABETS = "One seed, the interval over the 10 test alphabets. "
ONE_SEED = "One seed, the interval over test tasks."
SECTIONS = (
  Section("Omniglot, 5 ways, 1 shot", "omniglot", [*OMNIGLOT, "mamlpp"], ONE_SEED),
  Section("Omniglot, 5 ways, 5 shots", "omniglot", [f"{m}_5shot" for m in (*OMNIGLOT, "mamlpp")], ONE_SEED),
  Section(
    "Omniglot, 20 ways, 1 shot",
    "omniglot",
    [f"{m}_20way" for m in (*OMNIGLOT, "anil")],
    ONE_SEED
    + " MAML with 1,000 meta-steps of 4 tasks, 16 filters: 57.6 +/- 10.5 over three seeds (`maml_20way_small_cpu`).",
  ),
  Section("Omniglot, 20 ways, 5 shots", "omniglot", [f"{m}_20way_5shot" for m in (*OMNIGLOT, "anil")], ONE_SEED),
  *(
    Section(
      f"Multi-shot Omniglot, {alphabets} alphabet{'s' * (alphabets > 1)}",
      "multi_shot_omniglot",
      MULTI_SHOT[: MULTI_SHOT_ROWS.get(alphabets, 4)],
      (SEEDS_OF_TEN if alphabets == 10 else ONE_SEED_OF_ALPHABETS) + ONE_SPLIT + PAIRED,
      suffix="_cpu" if alphabets == 10 else f"_{alphabets}_cpu",
    )
    for alphabets in (*CURVE, 25)
  ),
  Section(
    "Multi-shot Omniglot, 25 alphabets, the ablation ladder",
    "multi_shot_omniglot",
    LADDER,
    "From no warp-layers to two layers of them, at a quarter of the meta-steps. " + ONE_SEED_OF_ALPHABETS + ONE_SPLIT,
    suffix="_ladder_cpu",
  ),
  Section(
    "Sine regression, 5 shots, mean squared error",
    "sinusoid",
    ("maml", "meta_sgd", "reptile_demo"),
    ONE_SEED + " `reptile_demo` has 10 shots and waves of its own. The config has the paired difference. With 20 shots "
    "at test, by `experiments.evaluate --workdir=DIR --set=data.shots=20`: MAML 0.506 +/- 0.043, published 0.71; "
    "Meta-SGD 0.365 +/- 0.034, published 0.50.",
  ),
  Section("Continual sines, mean squared error", "continual", ("warp", "maml"), ONE_SEED),
  Section(
    "Reptile's studies of inner gradients",
    "reptile_studies",
    STUDIES,
    ONE_SEED + " Without transduction, as in the released commands: with `--config.eval.norm_stats=support_plus_one`.",
  ),
  Section(
    "Point navigation, return",
    "navigation",
    ("random", "maml", "maml_one_step", "meta_sgd", "maml_one_step_varying", "meta_sgd_varying"),
    ONE_SEED + " `random`: five seeds, the interval over seeds. Of `maml` and `random` after 0, 1, 2, 3 and 4 steps.",
  ),
  Section(
    "The maze, reward of an episode",
    "maze",
    ("rnn", "hebbian", "warp_rnn"),
    "Over the last 1000 episodes of the life, in training. Three seeds (`--seeds=0,1,2`), the interval over seeds. A "
    "meta-step is 30 episodes: 10,020 of the paper's 60,000. The config has the paired difference.",
    on_test_tasks=False,
  ),
  Section("mini-ImageNet, 5 ways, 1 shot", "mini_imagenet", MINI, ONE_SEED),
  # Of iMAML the paper has no number here; the cheaper inner solver stands for both.
  Section("mini-ImageNet, 5 ways, 5 shots", "mini_imagenet", [f"{m}_5shot" for m in MINI if m != "imaml_hf"], ONE_SEED),
)
# Why a number is short of its paper's, as far as it is known, by config and recipe.
_ANNEALED = "of the meta-steps, over which the outer step is annealed to 0"
_SMALLER = "a 20th of the tasks, a quarter of the filters"
_NARROWER = "of the meta-steps, half the filters, a third of the query examples"
_NARROW = "of the meta-steps, a quarter of the filters, a third of the query examples"
_LADDER = "an 80th of the tasks, a quarter of the filters"
_UNTRAINED = "a quarter of the filters (full size 24.0, if transductive 39.8); there is nothing to meta-train"
_OF_25_ALPHABETS = [f"{m}_25_cpu" for m in ("warp_leap_offline", "leap", "fine_tuning", "reptile", "maml")]
_CURVE = [f"warp_leap_offline_{alphabets}_cpu" for alphabets in (3, 5, 15, 20)]
_REASONS: dict[str, dict[str, str]] = {
  "omniglot": {
    "meta_sgd_cpu": "a quarter of the meta-steps, of half the tasks; the paper's network is not MAML's",
    "maml_5shot_cpu": "half the meta-steps, of an eighth of the tasks",
    "fomaml_5shot_cpu": "a ninth of the meta-steps, of a quarter of the tasks",
    "meta_sgd_5shot_cpu": "a sixth of the meta-steps, of a quarter of the tasks; MAML's network",
    **dict.fromkeys(("reptile_cpu", "reptile_5shot_cpu"), f"40% {_ANNEALED}"),
    "imaml_cpu": "lambda 0.5 where the paper has 2; a fifth of the meta-steps, of a quarter of the tasks; "
    "73% of the released test's characters were trained on",
    "imaml_hf_cpu": "lambda 0.5 where the paper has 2; a fifth of the meta-steps, of a quarter of the tasks; the "
    "solver's steps and damping are ours",
    "imaml_hf_5shot_cpu": "as with 1 shot, with which it was trained",
    "imaml_5shot_cpu": "lambda 0.5 where the paper has 2; a 20th of the meta-steps, of a quarter of the tasks",
    "maml_20way_cpu": "a twelfth of the meta-steps; one inner step in training where the paper has five",
    **dict.fromkeys(
      ("fomaml_20way_cpu", "anil_20way_cpu"),
      "a twelfth of the meta-steps; three inner steps in training where the paper has five",
    ),
    "meta_sgd_20way_cpu": "a twelfth of the meta-steps, of half the tasks; MAML's network",
    **dict.fromkeys(("reptile_20way_cpu", "reptile_20way_5shot_cpu"), f"4% {_ANNEALED}"),
    **dict.fromkeys(
      ("maml_20way_5shot_cpu", "fomaml_20way_5shot_cpu", "anil_20way_5shot_cpu"),
      "a 20th of the meta-steps, of a quarter of the tasks; fewer inner steps in training",
    ),
    "meta_sgd_20way_5shot_cpu": "a 20th of the meta-steps, of an eighth of the tasks; MAML's network",
    "imaml_hf_20way_5shot_cpu": "as with 1 shot, with which it was trained; 0.4% of the tasks",
    "imaml_20way_5shot_cpu": "as with 1 shot, with which it was trained; 2% of the tasks",
    "imaml_hf_20way_cpu": "lambda 0.5 where the paper has 2; 0.4% of the tasks; the solver's steps and "
    "damping are ours",
    "imaml_20way_cpu": "lambda 0.5 where the paper has 2; 16 inner steps in training where it has 25; 2% of the tasks",
  },
  "multi_shot_omniglot": {
    **dict.fromkeys(("warp_leap_offline_cpu", *_CURVE, *_OF_25_ALPHABETS), _SMALLER),
    "warp_leap_offline_1_cpu": f"{_SMALLER}; the warp-layers fit the one alphabet",
    **dict.fromkeys(("scratch_cpu", "scratch_25_cpu"), _UNTRAINED),
    **{f"{rung}_ladder_cpu": _LADDER for rung in LADDER},
  },
  "navigation": {
    "maml": "a second step carries the policies of some far goals past them; seed 1 has -5.02 +/- 0.94",
    "random": "of one initial policy there, of five here",
    **dict.fromkeys(
      ("maml_one_step", "maml_one_step_varying"), "MAML's step size, the horizon and the discount are not given"
    ),
    **dict.fromkeys(("meta_sgd", "meta_sgd_varying"), "the horizon and the discount are not given"),
  },
  "mini_imagenet": {
    "maml_cpu": f"a 30th {_NARROWER}",
    **dict.fromkeys(("fomaml_cpu", "meta_sgd_cpu", "meta_sgd_5shot_cpu"), f"a 20th {_NARROWER}"),
    **dict.fromkeys(("reptile_cpu", "reptile_5shot_cpu"), f"1.5% {_ANNEALED}; half the filters"),
    "imaml_cpu": f"a 40th {_NARROWER}",
    "imaml_5shot_cpu": f"a 120th {_NARROWER}",
    "imaml_hf_cpu": "a 120th of the meta-steps, half the filters; the inner problem stays unsolved",
    "warp_maml_cpu": f"a 60th {_NARROW}",
    "warp_maml_5shot_cpu": f"a 100th {_NARROW}",
    "fomaml_5shot_cpu": f"a 30th {_NARROWER}",
    "maml_5shot_cpu": f"a twentieth {_NARROWER}",
  },
}
WHY = {(config, recipe): reason for config, reasons in _REASONS.items() for recipe, reason in reasons.items()}


class Row(NamedTuple):
  """A target: what was published, what was measured by which recipe, on what budget."""

  method: str
  published: str
  measured: str
  recipe: str
  budget: str
  test_tasks: str
  time: str
  why: str

  @property
  def gap(self) -> str:
    """Measured minus published, of the numbers that have the intervals; "" where one is missing."""
    measured, published = _number(self.measured), _number(self.published)
    return "" if measured is None or published is None else f"{measured - published:+.2f}"


def rows(section: Section) -> Iterator[Row]:
  """The targets of a section."""
  recipe_file = recipes.load(section.config)
  cells = listing.tables(recipe_file.doc)
  told = lambda method, column: cells.get((method, column), "")
  for method in section.methods:
    sizes = [name for name in (method, f"{method}{section.suffix}") if recipe_file.has(name)]
    recipe = next((name for name in sizes if told(name, "measured") not in ("", listing.NOT_RUN)), sizes[-1])
    row = Row(
      method,
      told(f"{method}{section.suffix}", "published") or told(method, "published") or listing.NOTHING,
      told(recipe, "measured") or listing.NOT_RUN,
      f"{section.config}.py:{recipe}",
      _budget(recipe_file, recipe, method),
      f"{recipe_file.settings(recipe)['eval']['num_tasks']:,}" if section.on_test_tasks else listing.NOTHING,
      told(recipe, "time"),
      WHY.get((section.config, recipe), ""),
    )
    yield row
    published, measured = (told(f"{recipe}{listing.ALONE}", column) for column in ("published", "measured"))
    if published:
      yield row._replace(method=f"{method}, no transduction", published=published, measured=measured)


def _budget(file: recipes.Recipe, recipe: str, method: str) -> str:
  rows = map(file.settings, (recipe, method))
  here, paper = (f"{row['num_meta_steps']:,} x {row['tasks_per_step']}" for row in rows)
  return here if recipe == method else f"{here} of {paper}"


def _number(text: str) -> float | None:
  found = re.search(r"-?\d+(\.\d+)?(?= \+/-)|^-?\d+(\.\d+)?$", text)
  return float(found.group()) if found else None


def markdown() -> str:
  """The whole file."""
  figure = recipes.load("benchmark").doc.split(FIGURE)[1]
  return "\n".join([HEAD, *map(_section, SECTIONS), TAIL + figure])


def _section(section: Section) -> str:
  lines = [f"## {section.title}", "", section.text, ""]
  lines += [
    "| method | published | measured | gap | recipe | budget | test tasks | time | what is known of the gap |",
    "|---|" + 8 * "---|",
  ]
  for row in rows(section):
    cells = (
      row.method,
      row.published,
      row.measured,
      row.gap,
      f"`{row.recipe}`",
      row.budget,
      row.test_tasks,
      row.time,
      row.why,
    )
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join([*lines, ""])


def main(argv: Sequence[str]) -> None:
  """Writes the file."""
  del argv
  workdir.write_text(PATH, markdown())


if __name__ == "__main__":
  cli.run(main)
