"""What a training run says of itself: its cost, meta-parameters that stand still, and what is not finite."""

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
  """Says what one of the `count` meta-steps in a dispatch costs; the call that follows does not compile again."""
  found = cost.compiled_cost(dispatch, state, sampler)
  each = found._replace(flops=found.flops / count)
  say(f"A meta-step of {name}, data and state included: {each} on each device.")


def warn_of_still_leaves(before: Any, after: Any, count: int, say: Say) -> None:
  """Warns of meta-parameters that `count` meta-steps have not moved."""
  still = diagnostics.zero_leaves(jax.tree.map(lambda old, new: np.asarray(old) != np.asarray(new), before, after))
  if still:
    say(
      f"Warning: {', '.join(still)} did not move in {count} meta-steps: the meta-gradient there is exactly zero, as it "
      "is for what each task draws for itself, or its outer learning rate is. `warpjax check` tells more."
    )


@contextlib.contextmanager
def full_disk_told(directory: pathlib.Path) -> Iterator[None]:
  """An error of a full disk becomes an `OSError` that says what the run in a workdir has saved."""
  try:
    yield
  except Exception as error:
    if (full := workdir.disk_full(error)) is None:
      raise
    there = checkpoints.steps(directory / workdir.CHECKPOINTS)
    kept = (
      f"It goes on from the checkpoint of meta-step {max(there)}, which is whole." if there else "Nothing is saved."
    )
    raise OSError(f"{full} {kept}") from error


def row(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Means over a dispatch, of the meta-steps that were not skipped; how many were is a sum."""
  taken = metrics["finite"]
  means = {name: float(np.mean(values[taken])) for name, values in metrics.items()} if np.any(taken) else {}
  counts = {"skipped": int(np.sum(metrics["skipped"]))} if "skipped" in metrics else {}
  return {name: mean for name, mean in means.items() if name != "finite" and np.isfinite(mean)} | counts


def count_skipped(
  metrics: Mapping[str, np.ndarray], first: int, skip: bool, saved: Callable[[], list[int]], say: Say
) -> int:
  """How many meta-steps of a dispatch were skipped.

  Args:
    metrics: Of its meta-steps.
    first: Meta-steps before it.
    skip: Whether they may be.
    saved: Lists the steps of the checkpoints there are.
    say: Called with a message for the user.

  Returns:
    The number.

  Raises:
    FloatingPointError: where they may not be; it says what was not finite and where.
  """
  bad = np.flatnonzero(~metrics["finite"])
  if not len(bad):
    return 0
  index, count = int(bad[0]), len(metrics["finite"])
  found = f"meta-step {first + index + 1}: {_what(metrics, index)} not finite (meta-loss {metrics['loss'][index]:.4g})."
  if skip:
    say(f"{found} Skipped, as were {len(bad)} of these {count} meta-steps in all.")
    return len(bad)
  there = saved()
  kept = f"The checkpoint of meta-step {max(there)} is kept" if there else "No checkpoint was saved before it"
  raise FloatingPointError(
    f"{found} Try a smaller inner.learning_rate, a smaller optimizer.learning_rate, optimizer.clip_norm=10, or "
    f"--on_nonfinite=skip to leave such updates out. {kept}."
  )


def _what(metrics: Mapping[str, np.ndarray], index: int) -> str:
  for prefix, words in (("grad_norm/", "the meta-gradient"), ("param_norm/", "the parameters")):
    blocks = [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]
    bad = [f"{words} of block {block!r}" for block in blocks if not np.isfinite(metrics[prefix + block][index])]
    if bad:
      return " and ".join(bad) + (" are" if len(bad) > 1 or prefix == "param_norm/" else " is")
  return "the meta-loss is"
