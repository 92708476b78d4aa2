"""Draws how learners forget: the loss on each wave of a sequence while they adapt to all of them, one after another.

python -m experiments.forgetting --workdirs=runs/continual/warp,runs/continual/maml
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

import warpjax as wj
from warpjax.runner import cli, run, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import settings
from warpjax.runner.plots import canvas, figures


def losses(directory: pathlib.Path, num_tasks: int) -> np.ndarray:
  """The loss of each wave after each step of adaptation to the sequence.

  Args:
    directory: The workdir of a run.
    num_tasks: Test sequences; the same for every run.

  Returns:
    `[num_tasks, steps + 1, waves]`.
  """
  experiment, (meta_params, *_) = run.restore(directory)
  inner, query_loss_fn = experiment.test_inner, experiment.test_inner.query_loss_fn
  assert query_loss_fn is not None
  num_waves = experiment.settings["data"]["subtasks"]
  num_steps = num_waves * experiment.settings["data"]["steps_each"]

  def one(key: jax.Array) -> jax.Array:
    task = experiment.data.test_task(key)
    batch = inner.query_batch_fn(key, task, meta_params.initial, meta_params.shared)
    adapted = wj.adapt(inner, meta_params, task, key, num_steps=num_steps, record=True)
    aux = jax.lax.map(lambda params: query_loss_fn(params, meta_params.shared, batch)[1], adapted.points())
    return jax.numpy.stack([aux[f"mse_{i}"] for i in range(num_waves)], axis=-1)

  return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), num_tasks)))


def means(found: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
  """Means over the sequences that no run diverged on, and how many were left out.

  Args:
    found: From `losses`, one for each run, of the same sequences.

  Returns:
    `[steps + 1, waves]` for each run, and the number.

  Raises:
    ValueError: where some run diverged on each sequence.
  """
  kept = np.all([np.isfinite(curves).all(axis=(1, 2)) for curves in found], axis=0)
  if not kept.any():
    raise ValueError(f"--workdirs must be runs that learned; one of them diverged on each of {len(kept)} sequences.")
  return [curves[kept].mean(axis=0) for curves in found], int(np.sum(~kept))


def summary(curves: np.ndarray, steps_each: int) -> dict[str, Any]:
  """For every wave but the last: the loss right after its own steps, after the next wave's, and at the end.

  Args:
    curves: `[steps + 1, waves]`, from `means`.
    steps_each: Adaptation steps on a wave.

  Returns:
    The three lists, and the geometric means of the ratios of the later two to the first.
  """
  waves = range(curves.shape[1] - 1)
  after, switched = ([float(curves[(i + later) * steps_each, i]) for i in waves] for later in (1, 2))
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
  output = pathlib.Path(FLAGS.output)
  paths = [pathlib.Path(path) for path in FLAGS.workdirs]
  configs = [workdir.read_json(path / workdir.CONFIG) for path in paths]
  data = _shared_data(paths, configs)
  names = figures.labels(paths, [config["method"] for config in configs])
  averages, left_out = means([losses(path, FLAGS.num_tasks) for path in paths])
  curves = dict(zip(names, averages, strict=True))
  draw(curves, data["steps_each"], output)
  found = {name: summary(values, data["steps_each"]) for name, values in curves.items()} | {"left_out": left_out}
  workdir.write_json(output.with_suffix(".json"), found)
  print(json.dumps(found, indent=2))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_list("workdirs", None, "Finished runs of configs/continual.py.", required=True)
  flags.DEFINE_string("output", "runs/continual/forgetting.png", "The PNG; numbers go beside it, as .json.")
  flags.DEFINE_integer("num_tasks", 200, "Test sequences.", lower_bound=1)
  cli.run(main)
