"""Records: what was measured, one JSON for each row of a recipe, in `results/` of a checkout.

`python -m experiments.record` writes them; `experiments.report` and `warpjax list` print from them.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from warpjax.runner import workdir
from warpjax.runner.config import recipes

Record = Mapping[str, Any]

FOLDER = pathlib.Path(__file__).parents[3] / "results"
NOTHING = "-"

_ACCURACY = ("omniglot", "multi_shot_omniglot", "mini_imagenet", "tiered_imagenet", "cifar_fs", "fc100")
_RETURN = ("navigation", "maze")
_DECIMALS = {"accuracy": 2, "return": 2}


def load(experiment: str, folder: pathlib.Path = FOLDER) -> dict[str, Record]:
  """The records of an experiment by the row's name; empty where nothing was measured, or outside of a checkout."""
  return {path.stem: workdir.read_json(path) for path in sorted((folder / experiment).glob("*.json"))}


def number(mean: float | None, ci95: float | None, metric: str) -> str:
  """A number with its interval as people read it: accuracies in percent, no digits beyond those that are known.

  Example:
    >>> number(0.9868, 0.0018, "accuracy"), number(0.628, 0.017, "accuracy"), number(0.97812, 0.08745, "mse")
    ('98.68 +/- 0.18', '62.8 +/- 1.7', '0.978 +/- 0.087')
  """
  if mean is None:
    return NOTHING
  scale = 100 if metric == "accuracy" else 1
  values = [scale * value for value in (mean, ci95) if value]
  most = _DECIMALS.get(metric, 3)
  if metric not in _DECIMALS and ci95 and ci95 < 0.01:
    most = 1 - math.floor(math.log10(ci95))
  needed = next((n for n in range(1, most) if all(math.isclose(value, round(value, n)) for value in values)), most)
  return " +/- ".join(f"{value:.{needed}f}" for value in values or [0.0])


def measured(record: Record, *, per_step: bool = False) -> str:
  """What a record says in a table; `per_step` puts the means after the steps before the last in front."""
  if "statement" in record:
    return record["statement"]
  text = number(record["mean"], record["ci95"], record["metric"])
  steps = record.get("per_step", []) if per_step else []
  return " ".join([*(f"{mean:.1f}" for mean in steps[:-1]), text])


def published(recipe: recipes.Recipe, method: str, *, alone: bool = False) -> str:
  """What the paper says of a row: its number, that without transduction (`alone`), or what a figure shows."""
  settings, also = recipe.settings(method), recipe.also(method)
  metric = metric_of(settings)
  if alone:
    mean, ci95 = also.get("support_plus_one", (None, None))
    return number(mean, ci95, metric)
  if "published" in settings:
    said = settings["published"]
    steps = [f"{mean:.1f}" for mean in also.get("per_step", ())]
    return " ".join([*steps, number(said["number"], said["interval"], metric)])
  return also.get("figure", NOTHING)


def metric_of(settings: Mapping[str, Any]) -> str:
  """The metric of a row's published number, as far as printing it needs to know."""
  name = settings["data"]["name"]
  return "accuracy" if name in _ACCURACY else "return" if name in _RETURN else name
