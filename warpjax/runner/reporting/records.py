"""Records: what was measured, one JSON for each row of a recipe, in `results/` of a checkout.

`warpjax record` writes them. `warpjax report` and `warpjax list` print from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from warpjax.runner import workdir
from warpjax.runner.config import recipes, registry
from warpjax.runner.machine import provenance

Record = Mapping[str, Any]

FOLDER = provenance.ROOT / "results"
NOTHING = "-"
_DECIMALS = {"accuracy": 2, "return": 2}


def check_checkout() -> None:
  """Raises a ValueError outside of a checkout, which has no records."""
  if recipes.CHECKOUT is None:
    raise ValueError("records are written in a checkout of warpjax; this warpjax is installed from a package.")


def load(experiment: str) -> dict[str, Record]:
  """The records of an experiment by the row's name; empty where nothing was measured, or outside of a checkout."""
  return {path.stem: workdir.read_json(path) for path in sorted((FOLDER / experiment).glob("*.json"))}


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


def further(other: Mapping[str, Any]) -> str:
  """A further number of a record: a mean, with its interval where it has one, a range, or a value for each name.

  Example:
    >>> further({"mean": 0.07, "ci95": 0.039, "metric": "accuracy", "difference": True}), further({"low": 3})
    ('+7.0 +/- 3.9', 'above 3')
    >>> further({"values": {"SGD": None, "Adam": 0.36}})
    'SGD: diverges, Adam: 0.36'
  """
  if "values" in other:
    return ", ".join(f"{name}: {_plain(value, other)}" for name, value in other["values"].items())
  if "mean" in other:
    sign = "+" if other.get("difference") and other["mean"] > 0 else ""
    if "ci95" in other:
      return sign + number(other["mean"], other["ci95"], other.get("metric", ""))
    return sign + _plain(other["mean"], other)
  low, high = (_plain(other[key], other) if key in other else "" for key in ("low", "high"))
  return f"{low} to {high}" if low and high else f"above {low}" if low else f"below {high}"


def _plain(value: float | None, other: Mapping[str, Any]) -> str:
  if value is None:
    return "diverges"
  return number(value, None, other["metric"]) if "metric" in other else f"{value:,}"


def measured(record: Record, *, per_step: bool = False) -> str:
  """The measured cell of a table; `per_step` puts the means after the steps before the last in front."""
  if "statement" in record:
    return record["statement"]
  text = number(record["mean"], record["ci95"], record["metric"])
  steps = record.get("per_step", []) if per_step else []
  return " ".join([*(f"{mean:.1f}" for mean in steps[:-1]), text])


def published(recipe: recipes.Recipe, method: str, *, alone: bool = False) -> str:
  """The published cell of a table: the number, the number without transduction (`alone`), or a figure."""
  settings, also = recipe.settings(method), recipe.also(method)
  if alone:
    mean, ci95 = also.get("support_plus_one", (None, None))
    return number(mean, ci95, metric_of(settings))
  if "published" in settings:
    said = settings["published"]
    steps = [f"{mean:.1f}" for mean in also.get("per_step", ())]
    return " ".join([*steps, number(said["number"], said["interval"], metric_of(settings))])
  return also.get("figure", NOTHING)


def metric_of(settings: Mapping[str, Any]) -> str:
  """The metric that the row's data declare; "" for a row that is not whole."""
  try:
    return registry.named("data", settings, data_dir=None, cache_dir=None).metric
  except ValueError:
    return ""
