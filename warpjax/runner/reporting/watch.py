"""Messages of a training run: its cost, meta-parameters that do not move, and values that are not finite."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from warpjax import diagnostics
from warpjax.diagnostics import cost
from warpjax.runner import workdir
from warpjax.training import TrainState, checkpoints
from warpjax.types import TaskSampler

Say = Callable[[str], object]


def say_cost(name: str, dispatch: Any, state: TrainState, sampler: TaskSampler, count: int, say: Say) -> None:
  """Reports the cost of one of the `count` meta-steps in a dispatch; the next call reuses the compilation."""
  whole = cost.compiled_cost(dispatch, state, sampler)
  each = whole._replace(flops=whole.flops / count)
  say(f"A meta-step of {name}, data and state included: {each} on each device.")


def warn_of_still_leaves(before: Any, after: Any, count: int, say: Say) -> None:
  """Warns of meta-parameters that did not change in `count` meta-steps."""
  still = diagnostics.zero_leaves(jax.tree.map(lambda old, new: np.asarray(old) != np.asarray(new), before, after))
  if still:
    say(
      f"Warning: {', '.join(still)} did not move in {count} meta-steps: their meta-gradient or their outer learning "
      "rate is zero. Parameters that each task draws for itself have a zero meta-gradient. See `warpjax check`."
    )


@contextlib.contextmanager
def full_disk_told(directory: pathlib.Path) -> Iterator[None]:
  """Turns an error of a full disk into an `OSError` that names the last checkpoint of the workdir."""
  try:
    yield
  except Exception as error:
    if (full := workdir.disk_full(error)) is None:
      raise
    saved = checkpoints.steps(directory / workdir.CHECKPOINTS)
    kept = f"It resumes from the checkpoint of meta-step {max(saved)}." if saved else "Nothing is saved."
    raise OSError(f"{full} {kept}") from error


def row(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The means of a dispatch over the meta-steps that were not skipped, and the number of skipped ones."""
  taken = metrics["finite"]
  means = {name: float(np.mean(values[taken])) for name, values in metrics.items()} if np.any(taken) else {}
  counts = {"skipped": int(np.sum(metrics["skipped"]))} if "skipped" in metrics else {}
  return {name: mean for name, mean in means.items() if name != "finite" and np.isfinite(mean)} | counts


def count_skipped(
  metrics: Mapping[str, np.ndarray], first: int, skip: bool, saved: Callable[[], list[int]], say: Say
) -> int:
  """How many meta-steps of a dispatch were skipped.

  Args:
    metrics: Metrics of its meta-steps.
    first: Number of meta-steps before it.
    skip: Whether skipping is allowed.
    saved: Lists the steps of the existing checkpoints.
    say: Called with a message for the user.

  Returns:
    The number.

  Raises:
    FloatingPointError: If skipping is not allowed; the message names the value that was not finite.
  """
  bad = np.flatnonzero(~metrics["finite"])
  if not len(bad):
    return 0
  index, count = int(bad[0]), len(metrics["finite"])
  where = f"meta-step {first + index + 1}: {_what(metrics, index)} not finite (meta-loss {metrics['loss'][index]:.4g})."
  if skip:
    say(f"{where} Skipped, as were {len(bad)} of these {count} meta-steps in all.")
    return len(bad)
  steps = saved()
  kept = f"The checkpoint of meta-step {max(steps)} is kept" if steps else "No checkpoint was saved before it"
  raise FloatingPointError(
    f"{where} Try a smaller inner.learning_rate, a smaller optimizer.learning_rate, optimizer.clip_norm=10, or "
    f"--on_nonfinite=skip to leave such updates out. {kept}."
  )


def _what(metrics: Mapping[str, np.ndarray], index: int) -> str:
  for prefix, words in (("grad_norm/", "the meta-gradient"), ("param_norm/", "the parameters")):
    blocks = [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]
    bad = [f"{words} of block {block!r}" for block in blocks if not np.isfinite(metrics[prefix + block][index])]
    if bad:
      return " and ".join(bad) + (" are" if len(bad) > 1 or prefix == "param_norm/" else " is")
  return "the meta-loss is"
