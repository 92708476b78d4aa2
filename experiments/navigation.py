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
from warpjax.rl.navigation import MAX_MOVE
from warpjax.runner import cli, workdir
from warpjax.runner import experiment as experiments
from warpjax.runner import run as runs
from warpjax.runner.cli import FLAGS
from warpjax.runner.plots import canvas
from warpjax.types import MetaParams, Task

GOALS, SHOWN = 6, 3  # goals, and episodes drawn of each


def trajectories(experiment: experiments.Experiment, meta_params: MetaParams, task: Task, key: jax.Array) -> Any:
  """Episodes of one test task after 0, 1, ... steps: a `Batch` of leaves `[steps + 1, horizon, episodes, ...]`."""
  inner, steps = experiment.test_inner, experiment.evaluation.num_steps
  adapted = wj.adapt(inner, meta_params, task, key, num_steps=steps, record=True)
  play = lambda params: inner.query_batch_fn(jax.random.fold_in(key, steps), task, params, meta_params.shared)
  return jax.lax.map(play, adapted.points())


def paths(observations: np.ndarray, actions: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Every position of episodes, the arrival that no observation shows included, and where there is one.

  Args:
    observations: Before each move, `[..., horizon, episodes, 2]`.
    actions: Likewise.
    mask: `[..., horizon, episodes]`.

  Returns:
    Positions `[..., horizon + 1, episodes, 2]`, the first of them the start, and their mask.
  """
  moved = observations + np.clip(MAX_MOVE * actions, -MAX_MOVE, MAX_MOVE)
  positions = np.concatenate([observations[..., :1, :, :], moved], axis=-3)
  return positions, np.concatenate([mask[..., :1, :], mask], axis=-2)


def draw(goals: np.ndarray, positions: np.ndarray, mask: np.ndarray, returns: np.ndarray, output: pathlib.Path) -> None:
  """Draws a panel for each goal, a colour for each number of steps.

  Args:
    goals: `[goals, 2]`.
    positions: `[goals, steps + 1, horizon + 1, episodes, 2]`, of `paths`.
    mask: `[goals, steps + 1, horizon + 1, episodes]`.
    returns: `[goals, steps + 1]`.
    output: The PNG to write.
  """
  from matplotlib import colormaps

  figure, grid = canvas.subplots(2, -(-len(goals) // 2), figsize=(13, 8.5), layout="constrained")
  colours = colormaps["viridis"](np.linspace(0, 0.9, positions.shape[1]))
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


def steps_per_second(experiment: experiments.Experiment, meta_params: MetaParams, tasks: Task) -> float:
  """Environment steps a second of the initial policy in these tasks, by the clock, the best of three."""
  run = experiment.run
  play = lambda task: (
    experiment.inner.batch_fn(jax.random.key(0), task.support, jnp.zeros((), int), meta_params.initial, ()).episodes
  )
  many = jax.jit(lambda tasks: jax.lax.map(play, tasks, batch_size=run.task_chunk or None).rewards)
  return jax.eval_shape(many, tasks).size / min(timing.seconds_of(lambda: many(tasks), 3))


def report(directory: pathlib.Path) -> dict[str, Any]:
  """Draws `trajectories.png` in a workdir, and returns what it shows with the speed of the environment.

  Raises:
    ValueError: If the directory is no workdir of point navigation, or holds no checkpoint.
  """
  config = workdir.read_json(directory / workdir.CONFIG)
  if config is None or config["data"]["name"] != "navigation":
    raise ValueError(f"--workdir must be a run of configs/navigation.py; {directory} is not.")
  experiment, (meta_params, *_) = runs.restore(directory)
  tasks = jax.vmap(experiment.data.test_task)(jax.random.split(jax.random.key(2026), GOALS))
  keys = jax.random.split(jax.random.key(2027), GOALS)
  run = jax.jit(
    lambda tasks, keys: jax.lax.map(lambda args: trajectories(experiment, meta_params, *args), (tasks, keys))
  )
  episodes = jax.device_get(run(tasks, keys)).episodes
  returns = episodes.rewards.sum(axis=2).mean(axis=-1)
  goals = np.asarray(tasks.query.goal)
  draw(goals, *paths(episodes.observations, episodes.actions, episodes.mask), returns, directory / "trajectories.png")
  timed = jax.vmap(experiment.data.test_task)(jax.random.split(jax.random.key(0), 40))
  return {
    "goals": goals.tolist(),
    "returns": returns.tolist(),
    "environment_steps_per_second": round(steps_per_second(experiment, meta_params, timed)),
    "device": jax.devices()[0].device_kind,
  }


def main() -> None:
  """Runs the command."""
  print(json.dumps(report(pathlib.Path(FLAGS.workdir)), indent=2))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_string("workdir", None, "A workdir of configs/navigation.py.", required=True)
  cli.run(main)
