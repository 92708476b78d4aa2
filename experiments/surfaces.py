"""Surfaces: trains the warp of the plane, draws descents with and without it, and counts how often it ends lower.

python -m experiments.surfaces --workdir=runs/surfaces
"""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import warpjax as wj
from warpjax.runner import cli, run, workdir
from warpjax.runner import experiment as experiments
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import recipes
from warpjax.runner.plots import canvas
from warpjax.tasks import surfaces
from warpjax.types import PyTree

SURFACES, SHOWN = 100, 3
# A gap in height that no picture could hide.
GAP = 0.1
COLOURS = {"plain": "white", "warped": "red"}


class Descents(NamedTuple):
  """Descents from the starts of one surface, all in the plane of the surface but `theta`.

  Attributes:
    surface: Its numbers.
    theta: The learner's own points under the warp, `[steps + 1, starts, 2]`.
    warped: What the warp makes of them, `[steps + 1, starts, 2]`.
    plain: Plain descent from the same points of the surface, `warped[0]`, `[steps + 1, starts, 2]`.
  """

  surface: surfaces.Surface
  theta: jax.Array
  warped: jax.Array
  plain: jax.Array

  def heights(self, points: jax.Array) -> jax.Array:
    """The surface at `[steps + 1, starts, 2]`."""
    return surfaces.height(self.surface, points)


def descend(experiment: experiments.Experiment, warp: PyTree, key: jax.Array) -> Descents:
  """Descends the surface of a test task, with the warp and, from the same points of the surface, without.

  Args:
    experiment: Its inner loop is used.
    warp: The parameters of `residual_warp`.
    key: The task's.

  Returns:
    The descents.
  """
  task = experiment.data.test_task(key)
  start = task.support.start

  def path(inner: wj.InnerLoop, shared: PyTree, task: wj.Task) -> jax.Array:
    params = jnp.zeros_like(start)
    adapted = wj.adapt(inner, wj.MetaParams(params, shared), task, key, record=True)
    return task.support.start + adapted.points()

  theta = path(experiment.inner, warp, task)
  warped = surfaces.residual_warp(warp, theta)
  without = experiment.inner._replace(loss_fn=surfaces.loss(surfaces.plain))
  plain = path(without, (), wj.Task(task.support._replace(start=warped[0]), task.query))
  return Descents(task.support.surface, theta, warped, plain)


def statement(all_descents: Descents) -> dict[str, Any]:
  """How often warped descent ends lower and higher than plain descent from the same point, by more than `GAP`."""
  ends = lambda points: jax.vmap(lambda d, p: surfaces.height(d, p[-1]))(all_descents.surface, points)
  difference = np.asarray(ends(all_descents.warped) - ends(all_descents.plain)).ravel()
  return {
    "starts": difference.size,
    "gap": GAP,
    "lower": int(np.sum(difference < -GAP)),
    "higher": int(np.sum(difference > GAP)),
    "mean_height_warped": float(np.mean(ends(all_descents.warped))),
    "mean_height_plain": float(np.mean(ends(all_descents.plain))),
  }


def draw(all_descents: Descents, warp: PyTree, output: pathlib.Path) -> None:
  """Draws the starts where the warp gained most, a row each: on the surface, and in the learner's own space."""
  ends = lambda points: jax.vmap(lambda d, p: surfaces.height(d, p[-1]))(all_descents.surface, points)
  gain = np.asarray(ends(all_descents.plain) - ends(all_descents.warped))
  chosen = sorted(((float(row.max()), i, int(row.argmax())) for i, row in enumerate(gain)), reverse=True)[:SHOWN]
  figure, grid = canvas.subplots(SHOWN, 2, figsize=(9, 4.2 * SHOWN), squeeze=False, layout="constrained")
  axis = jnp.linspace(-3.5, 3.5, 141)
  plane = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)
  for (left, right), (_, index, start) in zip(grid, chosen, strict=True):
    one = jax.tree.map(lambda leaf, i=index: leaf[i], all_descents)
    left.contourf(axis, axis, surfaces.height(one.surface, plane), levels=30, cmap="viridis")
    right.contourf(axis, axis, surfaces.height(one.surface, surfaces.residual_warp(warp, plane)), levels=30)
    lines = [
      (left, one.plain, "plain", "white"),
      (left, one.warped, "warped", "red"),
      (right, one.theta, "warped", "red"),
    ]
    for axes, points, name, colour in lines:
      x, y = np.asarray(points[:, start]).T
      height = float(one.heights(one.plain if name == "plain" else one.warped)[-1, start])
      axes.plot(x, y, color=colour, marker=".", markersize=3, linewidth=1, label=f"{name}: ends at {height:.2f}")
      axes.plot(x[0], y[0], "o", color="black", markersize=6)
      axes.plot(x[-1], y[-1], "*", color=colour, markersize=12, markeredgecolor="black")
    left.set_title("the surface f")
    right.set_title("what the learner sees, f(Omega)")
    left.legend(loc="upper right", fontsize=8)
  canvas.save(figure, output)


def run_all(directory: pathlib.Path, method: str = "warp") -> dict[str, Any]:
  """Trains (or goes on), draws and counts; returns the statement."""
  run.train_and_evaluate(recipes.settings(f"surfaces:{method}"), directory)
  experiment, state = run.restore(directory)
  warp = state.meta_params.shared
  keys = jax.random.split(jax.random.key(2026), SURFACES)  # seen by no choice of settings
  found = jax.jit(jax.vmap(lambda key: descend(experiment, warp, key)))(keys)
  draw(found, warp, directory / "surfaces.png")
  workdir.write_json(directory / "statement.json", statement(found))
  return statement(found)


def main() -> None:
  """Runs the command."""
  result = run_all(pathlib.Path(FLAGS.workdir), FLAGS.method)
  print(json.dumps(result, indent=2))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_string("workdir", "runs/surfaces", "Where the run, picture and statement are kept.")
  flags.DEFINE_enum("method", "warp", ["warp", "warp_first_order"], "Which warp.")
  cli.run(main)
