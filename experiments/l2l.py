"""L2L: trains an LSTM to optimize, and compares it with tuned optimizers on functions held out.

python -m experiments.l2l --workdir=runs/l2l
python -m experiments.l2l --workdir=runs/l2l_images --method=l2l_lstm_images
"""

from __future__ import annotations

import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import warpjax as wj
from warpjax import evaluation, rules
from warpjax.runner import cli, run, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import recipes
from warpjax.runner.experiment import Experiment, build
from warpjax.runner.plots import canvas
from warpjax.types import PyTree, UpdateRule

_TUNING_KEY, _TEST_KEY = 2026, 2027  # seen by no training seed; tuning and test functions apart
AT_ONCE = 200  # functions under one `vmap`, where the row does not say


class Setting(NamedTuple):
  """A setting in which optimizers are compared: changes to the row, and numbers of functions to tune and to test on."""

  changes: recipes.Table
  tuning: int = 500
  test: int = 1000

  def __str__(self) -> str:
    """The changes in words."""
    changed = [f"{name} {value}" for table in self.changes.values() for name, value in table.items()]
    return ", ".join(changed) or "as trained"


# As trained, for longer, and on other sizes. A step of the learned rule takes 10 ms for a network's training.
SETTINGS: dict[str, tuple[Setting, ...]] = {
  "l2l_lstm": (
    Setting({}),
    Setting({"inner": {"num_steps": 200}}),
    Setting({"data": {"dim": 5}}),
    Setting({"data": {"dim": 20}}),
  ),
  "l2l_lstm_images": (
    Setting({}, tuning=40),
    Setting({"inner": {"num_steps": 200}}, tuning=40, test=200),
    Setting({"data": {"hidden": 40}}, tuning=40, test=200),
  ),
}

RATES = tuple(float(rate) for rate in np.geomspace(1e-4, 100, 25))
BASELINES: dict[str, tuple[Any, dict[str, Sequence[float]]]] = {
  "sgd": (optax.sgd, {"learning_rate": RATES}),
  "momentum": (optax.sgd, {"learning_rate": RATES, "momentum": (0.5, 0.9, 0.95, 0.99)}),
  "rmsprop": (optax.rmsprop, {"learning_rate": RATES}),
  "adam": (optax.adam, {"learning_rate": RATES}),
}


class Runs(NamedTuple):
  """A rule on the test functions: `losses [functions, num_steps + 1]`, and its tuned hyper-parameters."""

  losses: np.ndarray
  hyperparameters: dict[str, float]

  @property
  def final(self) -> np.ndarray:
    """The loss after the last step, `[functions]`."""
    return self.losses[:, -1]


def evaluator(rule: UpdateRule, built: Experiment) -> Callable[[PyTree, int, int], np.ndarray]:
  """`(rule_params, key, functions) -> losses [functions, num_steps + 1]`; a loss that is not finite is infinite."""
  inner = built.test_inner._replace(rule=rule, num_steps=built.inner.num_steps)
  measure = evaluation.evaluator(inner, metric="loss", task_chunk=built.run.task_chunk or AT_ONCE)
  start = jax.eval_shape(built.data.test_task, jax.random.key(0)).support.start

  def losses(rule_params: PyTree, key: int, functions: int) -> np.ndarray:
    meta_params = wj.MetaParams(jnp.zeros_like(start), rule=rule_params)
    per_task = measure(meta_params, built.data.test, jax.random.key(key), functions).per_task
    return np.where(np.isfinite(per_task), per_task, np.inf)

  return losses


def tuned(name: str, built: Experiment, setting: Setting) -> Runs:
  """A baseline with the hyper-parameters whose mean final loss on the tuning functions is the lowest."""
  factory, grid = BASELINES[name]
  points: list[dict[str, Any]] = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
  losses = evaluator(rules.learned(factory, **points[0]), built)
  as_params = functools.partial(jax.tree.map, jnp.asarray)
  finals = [np.mean(losses(as_params(point), _TUNING_KEY, setting.tuning)[:, -1]) for point in points]
  best = points[int(np.argmin(finals))]
  return Runs(losses(as_params(best), _TEST_KEY, setting.test), best)


def compare(rule_params: PyTree, built: Experiment, setting: Setting) -> tuple[dict[str, Runs], dict[str, Any]]:
  """The learned rule and every baseline, tuned for the setting that `built` is of, on the same functions.

  Returns:
    Runs by name, and the statement: final losses, and the learned rule less the best baseline, paired.
  """
  runs = {name: tuned(name, built, setting) for name in BASELINES}
  best = min(runs, key=lambda name: float(np.mean(runs[name].final)))
  learned = Runs(evaluator(built.inner.rule, built)(rule_params, _TEST_KEY, setting.test), {})
  runs["l2l_lstm"] = learned
  return runs, {
    "functions": setting.test,
    "final_loss": {name: _interval(each.final) for name, each in runs.items()},
    "final_log10_loss": {name: _interval(_log10(each.final)) for name, each in runs.items()},
    "hyperparameters": {name: each.hyperparameters for name, each in runs.items() if each.hyperparameters},
    "best_baseline": best,
    "less_best_baseline": _interval(learned.final - runs[best].final),
    "less_best_baseline_log10": _interval(_log10(learned.final) - _log10(runs[best].final)),
    "lower_than_best_baseline": float(np.mean(learned.final < runs[best].final)),
  }


def _log10(losses: np.ndarray) -> np.ndarray:
  # In single precision a solved quadratic ends at 1e-13 or at 0.
  return np.log10(np.maximum(losses, 1e-12))


def _interval(values: np.ndarray) -> dict[str, float]:
  return dict(zip(("mean", "ci95"), evaluation.mean_and_ci95(values), strict=True))


def draw(all_runs: Mapping[str, dict[str, Runs]], output: pathlib.Path) -> None:
  """Draws the mean loss by step, a panel for each setting."""
  size = (4 * len(all_runs), 3.8)
  figure, grid = canvas.subplots(1, len(all_runs), figsize=size, layout="constrained", sharey=True, squeeze=False)
  for axes, (label, runs) in zip(grid[0], all_runs.items(), strict=True):
    for name, each in runs.items():
      mean, ci95 = np.array([evaluation.mean_and_ci95(column) for column in each.losses.T]).T
      style: dict[str, Any] = {"color": "black", "linewidth": 2} if name == "l2l_lstm" else {"linewidth": 1}
      axes.plot(mean, label=name, **style)
      low = np.where(mean > ci95, mean - ci95, mean)  # a logarithmic axis has no negative values
      axes.fill_between(np.arange(len(mean)), low, mean + ci95, alpha=0.2, color="grey")
    axes.set(title=f"{label}, {len(each.losses)} functions", xlabel="step", yscale="log")
    axes.grid(alpha=0.3)
  starts = [each.losses[:, 0].mean() for runs in all_runs.values() for each in runs.values()]
  first = grid[0, 0]
  first.set_ylim(top=10 * max(starts))  # a baseline may diverge on a function that it was not tuned on
  first.set_ylabel("mean loss")
  first.legend(fontsize=8)
  canvas.save(figure, output)


def run_all(directory: pathlib.Path, method: str, **places: Any) -> list[dict[str, Any]]:
  """Trains, or resumes training, then compares and draws; returns the statements."""
  settings = recipes.settings(f"l2l:{method}")
  run.train_and_evaluate(settings, directory, **places)
  rule_params = run.restore(directory, **places).state.meta_params.rule
  pictures, statements = {}, []
  for setting in SETTINGS[method]:
    built = build(recipes.lay_over(settings, setting.changes), **places)
    pictures[str(setting)], statement = compare(rule_params, built, setting)
    statements.append({"setting": str(setting), **statement})
    print(f"{method}, {setting}: minus {statement['best_baseline']}: {json.dumps(statement['less_best_baseline'])}")
  draw(pictures, directory / "comparison.png")
  workdir.write_json(directory / "comparison.json", statements)
  return statements


def main() -> None:
  """Runs the command."""
  print(json.dumps(run_all(pathlib.Path(FLAGS.workdir), FLAGS.method, **cli.places()), indent=2))


if __name__ == "__main__":
  cli.define()
  flags.DEFINE_enum("method", "l2l_lstm", list(SETTINGS), "The row of configs/l2l.py.")
  flags.DEFINE_string("workdir", "runs/l2l", "Where the run, the comparison and its picture are kept.")
  cli.run(main)
