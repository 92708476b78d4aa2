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
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import recipes
from warpjax.runner.experiment import Experiment
from warpjax.runner.plots import canvas
from warpjax.tasks import surfaces
from warpjax.types import PyTree

SURFACES, SHOWN = 100, 3
COLOURS = {"plain": "white", "warped": "red"}
GAP = 0.1  # in height; such a difference is visible in a picture


class Descents(NamedTuple):
  """Descents from the starts of one surface, `[steps + 1, starts, 2]`, all in the plane of the surface but `theta`.

  Attributes:
    surface: Its numbers.
    theta: The learner's own points under the warp.
    warped: The warp of these points.
    plain: Plain descent from the same points of the surface, `warped[0]`.
  """

  surface: surfaces.Surface
  theta: jax.Array
  warped: jax.Array
  plain: jax.Array

  def ends(self) -> tuple[np.ndarray, np.ndarray]:
    """The heights at which the warped and the plain descents of many surfaces end, `[surfaces, starts]`."""
    heights = jax.vmap(lambda surface, points: surfaces.height(surface, points[-1]))
    return np.asarray(heights(self.surface, self.warped)), np.asarray(heights(self.surface, self.plain))


def descend(experiment: Experiment, warp: PyTree, key: jax.Array) -> Descents:
  """Descends the surface of a test task with the parameters of a warp and, from the same points of it, without."""
  task = experiment.data.test_task(key)

  def path(inner: wj.InnerLoop, shared: PyTree, task: wj.Task) -> jax.Array:
    start = task.support.start
    adapted = wj.adapt(inner, wj.MetaParams(jnp.zeros_like(start), shared), task, key, record=True)
    return start + adapted.points()

  theta = path(experiment.inner, warp, task)
  warped = surfaces.residual_warp(warp, theta)
  without = experiment.inner._replace(loss_fn=surfaces.loss(surfaces.plain))
  plain = path(without, (), wj.Task(task.support._replace(start=warped[0]), task.query))
  return Descents(task.support.surface, theta, warped, plain)


def statement(descents: Descents) -> dict[str, Any]:
  """How often warped descent ends lower and higher than plain descent from the same point, by more than `GAP`."""
  warped, plain = descents.ends()
  difference = (warped - plain).ravel()
  return {
    "starts": difference.size,
    "gap": GAP,
    "lower": int(np.sum(difference < -GAP)),
    "higher": int(np.sum(difference > GAP)),
    "mean_height_warped": float(np.mean(warped)),
    "mean_height_plain": float(np.mean(plain)),
  }


def draw(descents: Descents, warp: PyTree, output: pathlib.Path) -> None:
  """Draws the starts where the warp gained most, a row each: on the surface, and in the learner's own space."""
  warped, plain = descents.ends()
  best = np.argmax(plain - warped, axis=1)  # the start of each surface
  gains = np.max(plain - warped, axis=1)
  figure, grid = canvas.subplots(SHOWN, 2, figsize=(9, 4.2 * SHOWN), squeeze=False, layout="constrained")
  axis = jnp.linspace(-3.5, 3.5, 141)
  plane = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)
  for (left, right), index in zip(grid, np.argsort(-gains)[:SHOWN], strict=True):
    one, start = jax.tree.map(lambda leaf, i=index: leaf[i], descents), best[index]
    left.contourf(axis, axis, surfaces.height(one.surface, plane), levels=30, cmap="viridis")
    right.contourf(axis, axis, surfaces.height(one.surface, surfaces.residual_warp(warp, plane)), levels=30)
    ends = {"plain": plain[index, start], "warped": warped[index, start]}
    for axes, points, name in ((left, one.plain, "plain"), (left, one.warped, "warped"), (right, one.theta, "warped")):
      x, y = np.asarray(points[:, start]).T
      label = f"{name}: ends at {ends[name]:.2f}"
      axes.plot(x, y, color=COLOURS[name], marker=".", markersize=3, linewidth=1, label=label)
      axes.plot(x[0], y[0], "o", color="black", markersize=6)
      axes.plot(x[-1], y[-1], "*", color=COLOURS[name], markersize=12, markeredgecolor="black")
    left.set_title("the surface f")
    right.set_title("what the learner sees, f(Omega)")
    left.legend(loc="upper right", fontsize=8)
  canvas.save(figure, output)


def run_all(directory: pathlib.Path, method: str = "warp") -> dict[str, Any]:
  """Trains, or resumes training, then draws and counts; returns the statement."""
  run.train_and_evaluate(recipes.settings(f"surfaces:{method}"), directory)
  experiment, state = run.restore(directory)
  warp = state.meta_params.shared
  keys = jax.random.split(jax.random.key(2026), SURFACES)  # seen by no choice of settings
  descents = jax.jit(jax.vmap(lambda key: descend(experiment, warp, key)))(keys)
  draw(descents, warp, directory / "surfaces.png")
  workdir.write_json(directory / "statement.json", statement(descents))
  return statement(descents)


def main() -> None:
  """Runs the command."""
  print(json.dumps(run_all(pathlib.Path(FLAGS.workdir), FLAGS.method), indent=2))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_string("workdir", "runs/surfaces", "Where the run, picture and statement are kept.")
  flags.DEFINE_enum("method", "warp", ["warp", "warp_first_order"], "Which warp.")
  cli.run(main)
