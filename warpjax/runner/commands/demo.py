"""The demo: meta-trains MAML, Meta-SGD, Reptile and iMAML on sine waves, prints one table and draws the results.

warpjax demo --workdir=runs/demo
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

import warpjax as wj
from warpjax.runner import cli, measure, run
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import recipes
from warpjax.runner.experiment import Experiment
from warpjax.runner.plots import canvas, figures
from warpjax.tasks import sinusoid

SHOWN_STEPS = (0, 1, 10)
NUM_WAVES = 3
IMAML = """iMAML is behind since it sees a fifth of the tasks of the others. With as many, MAML is about as good.
With more meta-steps at this outer step size, iMAML diverges."""


def run_methods(directory: pathlib.Path, methods: Sequence[str], **overrides: Any) -> list[measure.Result]:
  """Trains and evaluates each method in `directory/METHOD`, and draws `curves.png` and `adapted.png` in `directory`.

  Args:
    directory: The folder of the results.
    methods: Rows of `configs/demo.py`.
    **overrides: Settings in place of the config's.

  Returns:
    The results.
  """
  configs = [{**recipes.settings(f"demo:{method}"), **overrides} for method in methods]
  places = [directory / method for method in methods]
  results = [run.train_and_evaluate(config, place) for config, place in zip(configs, places, strict=True)]
  names = [f"{c['method']}, trained on {c['num_meta_steps'] * c['tasks_per_step']:,} tasks" for c in configs]
  figures.draw(places, directory / "curves.png", results=results, names=names)
  draw_adapted(configs, places, directory / "adapted.png")
  return results


def draw_adapted(configs: Sequence[Mapping[str, Any]], places: Sequence[pathlib.Path], output: pathlib.Path) -> None:
  """Draws waves, the points a learner saw of them, and its curve after 0, 1 and 10 steps; a row for each method."""
  shape = (len(configs), NUM_WAVES)
  figure, grid = canvas.subplots(*shape, figsize=(12, 2.6 * shape[0]), sharex=True, squeeze=False, layout="constrained")
  x = jnp.linspace(*sinusoid.DOMAIN, 200)[:, None]
  for row, config, place in zip(grid, configs, places, strict=True):
    experiment, state = run.restore(place)
    for axes, key in zip(row, jax.random.split(jax.random.key(12), NUM_WAVES), strict=True):
      task = experiment.data.test_task(key)
      axes.plot(x, sinusoid.wave(key, config["data"]["variant"])(x), color="black", linewidth=1, label="wave")
      axes.plot(*task.support, "^", color="purple", label="seen")
      for step, curve in zip(SHOWN_STEPS, _curves(experiment, state, task, x), strict=True):
        axes.plot(
          x, curve, label=f"{step} step{'' if step == 1 else 's'}", linestyle=":" if step == 0 else "-", alpha=0.9
        )
    row[0].set_ylabel(config["method"])
  grid[0, 0].legend(fontsize=7)
  canvas.save(figure, output)


def _curves(experiment: Experiment, state: Any, task: wj.Task, x: jax.Array) -> list[jax.Array]:
  inner, key, (*_, last) = experiment.test_inner, jax.random.key(0), SHOWN_STEPS
  points = wj.adapt(inner, state.meta_params, task, key, num_steps=last, record=True).points()
  after = [jax.tree.map(lambda leaf, step=step: leaf[step], points) for step in SHOWN_STEPS]
  return [experiment.network.apply(params, state.meta_params.shared, x) for params in after]


def main() -> None:
  """Runs the command."""
  started, directory = time.monotonic(), pathlib.Path(FLAGS.workdir)
  results = run_methods(directory, FLAGS.methods)
  print(f"\nMean squared error on {results[0]['num_tasks']} new waves, by steps of adaptation to 10 points of each:\n")
  print(figures.table(results))
  if {"imaml", "maml"} <= {*FLAGS.methods}:
    print(f"\n{IMAML}")
  print(f"\n{time.monotonic() - started:.0f} s. Look at {directory}/adapted.png and {directory}/curves.png")


def command() -> None:
  """Defines the flags and runs."""
  cli.define(places=False)
  flags.DEFINE_string("workdir", "runs/demo", "Where the runs and pictures are kept.")
  flags.DEFINE_list("methods", list(recipes.load("demo").methods), "Which to run.")
  cli.run(main)
