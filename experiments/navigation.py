"""Draws the trajectories of a trained point before and after adaptation, and times its environment.

python -m experiments.navigation --workdir=runs/navigation/maml
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import warpjax as wj
from warpjax.diagnostics import timing
from warpjax.problem import with_step
from warpjax.rl.navigation import MAX_MOVE
from warpjax.runner import cli, run, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.plots import canvas

GOALS, SHOWN = 6, 3  # goals, and episodes drawn of each


def trajectories(restored: run.Restored, tasks: wj.Task, keys: jax.Array) -> Any:
  """Episodes of each test task after 0, 1, ... steps: leaves `[tasks, steps + 1, horizon, episodes, ...]`."""
  experiment, meta_params = restored.experiment, restored.state.meta_params
  inner, steps = experiment.test_inner, experiment.evaluation.num_steps

  def one(task: wj.Task, key: jax.Array) -> Any:
    adapted = wj.adapt(inner, meta_params, task, key, num_steps=steps, record=True)
    query_fn, query_key = with_step(inner.query_batch_fn), jax.random.fold_in(key, steps)
    play = lambda params: query_fn(query_key, task, params, meta_params.shared, steps)
    return jax.lax.map(play, adapted.points()).episodes

  return jax.device_get(jax.jit(lambda *args: jax.lax.map(lambda each: one(*each), args))(tasks, keys))


def paths(observations: np.ndarray, actions: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Every position of episodes, with the arrival that no observation shows.

  Args:
    observations: Before each move, `[..., horizon, episodes, 2]`.
    actions: The actions, likewise.
    mask: `[..., horizon, episodes]`.

  Returns:
    Positions `[..., horizon + 1, episodes, 2]`, the first of them the start, and their mask.
  """
  moved = observations + np.clip(MAX_MOVE * actions, -MAX_MOVE, MAX_MOVE)
  positions = np.concatenate([observations[..., :1, :, :], moved], axis=-3)
  return positions, np.concatenate([mask[..., :1, :], mask], axis=-2)


def draw(goals: np.ndarray, episodes: Any, returns: np.ndarray, output: pathlib.Path) -> None:
  """Draws a panel for each goal `[goals, 2]` with episodes of `trajectories`, a colour for each number of steps."""
  from matplotlib import colormaps

  figure, grid = canvas.subplots(2, -(-len(goals) // 2), figsize=(13, 8.5), layout="constrained")
  colours = colormaps["viridis"](np.linspace(0, 0.9, returns.shape[1]))
  positions, mask = paths(episodes.observations, episodes.actions, episodes.mask)
  for axes, goal, walks, present, means in zip(grid.flat, goals, positions, mask, returns, strict=False):
    for steps, colour in enumerate(colours):
      for episode in range(min(SHOWN, walks.shape[2])):
        x, y = walks[steps, present[steps, :, episode] > 0, episode].T
        label = f"{steps} steps: {means[steps]:.1f}" if episode == 0 else None
        axes.plot(x, y, color=colour, marker=".", markersize=3, linewidth=0.8, label=label)
        axes.plot(x[0], y[0], "o", color="black", markersize=4)
    axes.plot(*goal, "*", color="red", markersize=14)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    axes.legend(loc="upper right", fontsize=7, title="return")
  canvas.save(figure, output)


def steps_per_second(restored: run.Restored, tasks: wj.Task) -> float:
  """Environment steps a second of the initial policy in these tasks, by the clock, the best of three."""
  experiment, initial = restored.experiment, restored.state.meta_params.initial
  batch_fn, step = experiment.inner.batch_fn, jnp.zeros((), int)
  play = lambda task: batch_fn(jax.random.key(0), task.support, step, initial, ()).episodes.rewards
  many = jax.jit(lambda tasks: jax.lax.map(play, tasks, batch_size=experiment.run.task_chunk or None))
  return jax.eval_shape(many, tasks).size / min(timing.seconds_of(lambda: many(tasks), 3))


def report(directory: pathlib.Path) -> dict[str, Any]:
  """Draws `trajectories.png` in a workdir, and returns its data with the speed of the environment.

  Raises:
    ValueError: If the directory is no workdir of point navigation, or holds no checkpoint.
  """
  config = workdir.read_json(directory / workdir.CONFIG)
  if config is None or config["data"]["name"] != "navigation":
    raise ValueError(f"--workdir must be a run of configs/navigation.py; {directory} is not.")
  restored = run.restore(directory)
  draw_tasks = jax.vmap(restored.experiment.data.test_task)
  tasks = draw_tasks(jax.random.split(jax.random.key(2026), GOALS))
  episodes = trajectories(restored, tasks, jax.random.split(jax.random.key(2027), GOALS))
  returns, goals = episodes.rewards.sum(axis=2).mean(axis=-1), np.asarray(tasks.query.goal)
  draw(goals, episodes, returns, directory / "trajectories.png")
  speed = steps_per_second(restored, draw_tasks(jax.random.split(jax.random.key(0), 40)))
  return {
    "goals": goals.tolist(),
    "returns": returns.tolist(),
    "environment_steps_per_second": round(speed),
    "device": jax.devices()[0].device_kind,
  }


def main() -> None:
  """Runs the command."""
  print(json.dumps(report(pathlib.Path(FLAGS.workdir)), indent=2))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_string("workdir", None, "A workdir of configs/navigation.py.", required=True)
  cli.run(main)
