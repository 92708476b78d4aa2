"""Draws how learners forget: the loss on each wave of a sequence while they adapt to all of them, one after another.

python -m experiments.forgetting --workdirs=runs/continual/warp,runs/continual/maml
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import warpjax as wj
from warpjax.problem import with_step
from warpjax.runner import cli, run, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import settings
from warpjax.runner.plots import canvas, figures


def losses(directory: pathlib.Path, num_tasks: int) -> np.ndarray:
  """The loss on each wave after each step of adaptation to the sequence, `[num_tasks, steps + 1, waves]`."""
  experiment, state = run.restore(directory)
  inner, meta_params, data = experiment.test_inner, state.meta_params, experiment.settings["data"]
  query_loss_fn, waves = inner.query_loss_fn, range(data["subtasks"])
  assert query_loss_fn is not None

  def one(key: jax.Array) -> jax.Array:
    task = experiment.data.test_task(key)
    batch = with_step(inner.query_batch_fn)(key, task, meta_params.initial, meta_params.shared, 0)
    adapted = wj.adapt(inner, meta_params, task, key, num_steps=len(waves) * data["steps_each"], record=True)
    aux = jax.lax.map(lambda params: query_loss_fn(params, meta_params.shared, batch)[1], adapted.points())
    return jnp.stack([aux[f"mse_{wave}"] for wave in waves], axis=-1)

  return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), num_tasks)))


def means(runs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
  """Means of each run's `losses` over the sequences that no run diverged on, and how many sequences were left out.

  Raises:
    ValueError: If some run diverged on each sequence.
  """
  kept = np.all([np.isfinite(curves).all(axis=(1, 2)) for curves in runs], axis=0)
  if not kept.any():
    raise ValueError(f"--workdirs must be runs that learned; one of them diverged on each of {len(kept)} sequences.")
  return [curves[kept].mean(axis=0) for curves in runs], int(np.sum(~kept))


def summary(curves: np.ndarray, steps_each: int) -> dict[str, Any]:
  """For every wave but the last: the loss right after its own steps, after the next wave's, and at the end.

  Args:
    curves: `[steps + 1, waves]`, from `means`.
    steps_each: Adaptation steps on a wave.

  Returns:
    The three lists, and the geometric means of the ratios of the later two to the first.
  """
  waves = range(curves.shape[1] - 1)
  after, switched = ([float(curves[(wave + later) * steps_each, wave]) for wave in waves] for later in (1, 2))
  end = [float(value) for value in curves[-1, :-1]]
  ratio = lambda later: float(np.exp(np.mean(np.log(later) - np.log(after))))
  return {
    "after_own_steps": after,
    "after_the_switch": switched,
    "at_the_end": end,
    "ratio_after_the_switch": ratio(switched),
    "ratio_at_the_end": ratio(end),
  }


def draw(curves: Mapping[str, np.ndarray], steps_each: int, output: pathlib.Path) -> None:
  """A picture for each run: a line for each wave, the steps on it shaded in its colour."""
  size = len(curves)
  figure, row = canvas.subplots(1, size, figsize=(5.5 * size, 4), sharey=True, squeeze=False, layout="constrained")
  for axes, (name, values) in zip(row[0], curves.items(), strict=True):
    for i in range(values.shape[1]):
      axes.axvspan(i * steps_each, (i + 1) * steps_each, color=f"C{i}", alpha=0.12)
      axes.plot(values[:, i], color=f"C{i}", label=f"wave {i + 1}")
    axes.set(title=name, xlabel="adaptation step", yscale="log")
  row[0, 0].set_ylabel("mse on held-out points")
  row[0, 0].legend(fontsize=8)
  canvas.save(figure, output)


def _shared_data(paths: Sequence[pathlib.Path], configs: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any]:
  """The data of the runs, once they are known to be of the same sequences."""
  for path, config in zip(paths, configs, strict=True):
    if config is None or config["data"]["name"] != "continual":
      raise ValueError(f"--workdirs must be runs of configs/continual.py; {path} is not.")
  tests = [settings.of_the_test(config) for config in configs if config]
  if any(test != tests[0] for test in tests):
    raise ValueError(f"--workdirs must be tested on the same waves; got {', '.join(map(str, tests))}.")
  return tests[0]


def main() -> None:
  """Runs the command."""
  output, paths = pathlib.Path(FLAGS.output), [pathlib.Path(path) for path in FLAGS.workdirs]
  configs = [workdir.read_json(path / workdir.CONFIG) for path in paths]
  steps_each = _shared_data(paths, configs)["steps_each"]
  averages, left_out = means([losses(path, FLAGS.num_tasks) for path in paths])
  curves = dict(zip(figures.labels(paths, [config["method"] for config in configs]), averages, strict=True))
  draw(curves, steps_each, output)
  statement = {name: summary(values, steps_each) for name, values in curves.items()} | {"left_out": left_out}
  workdir.write_json(output.with_suffix(".json"), statement)
  print(json.dumps(statement, indent=2))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_list("workdirs", None, "Finished runs of configs/continual.py.", required=True)
  flags.DEFINE_string("output", "runs/continual/forgetting.png", "The PNG; numbers go beside it, as .json.")
  flags.DEFINE_integer("num_tasks", 200, "Test sequences.", lower_bound=1)
  cli.run(main)
