"""Outer steps: a meta-gradient of one task, or a step with more than one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from warpjax import training

Tables = Mapping[str, Mapping[str, Any]]
Check = Callable[[Tables, int], None]
"""`(tables of the config, tasks_per_step) -> None`; raises a ValueError for an invalid combination."""


class OuterStep(NamedTuple):
  """An outer update and its meta-gradient.

  Attributes:
    make_step: `(optimizer, axis_name=..., task_chunk=...) -> step`, as `training.meta_step` returns it.
    meta_grad: The meta-gradient of one task, whose state the run carries; None for a step without one.
    checks: The method's constraints on other tables of the config.
    num_updates: Outer updates of one meta-step.
  """

  make_step: Callable[..., training.StepFn]
  meta_grad: Any = None
  checks: tuple[Check, ...] = ()
  num_updates: int = 1

  @property
  def in_turn(self) -> bool:
    """Whether one state passes through the tasks of a meta-step, which therefore share a device."""
    return bool(getattr(self.meta_grad, "in_turn", False))


class NeedsTask(NamedTuple):
  """A meta-gradient that is made once the shapes of a task are known: `make(task)`."""

  make: Callable[[Any], Any]


def of(meta_grad: Any, *checks: Check) -> OuterStep:
  """The outer step of a meta-gradient of one task."""
  return OuterStep(partial(training.meta_step, meta_grad), meta_grad, checks)


def resolve(made: Any, task: Any) -> OuterStep:
  """The outer step of the result of a table `meta_gradient`.

  Args:
    made: A meta-gradient of one task, a `NeedsTask` of one, or an `OuterStep`.
    task: A task, or its shapes.

  Returns:
    An `OuterStep`.
  """
  meta_grad = made.make(task) if isinstance(made, NeedsTask) else made
  return meta_grad if isinstance(meta_grad, OuterStep) else of(meta_grad)


def check(made: Any, tables: Tables, tasks_per_step: int) -> None:
  """Raises a ValueError for a method that does not fit the other tables of a config."""
  step = made if isinstance(made, OuterStep) else of(made)
  updates = tables["optimizer"].get("updates_per_step", step.num_updates)
  if updates != step.num_updates:
    raise ValueError(
      f"config.optimizer.updates_per_step must be {step.num_updates}, the outer updates of a meta-step "
      f"(inner.num_steps over meta_gradient.length for truncated_unroll); got {updates}."
    )
  for each in step.checks:
    each(tables, tasks_per_step)


def constant_schedule(why: str) -> Check:
  """Refuses a schedule of the outer learning rate, which counts meta-steps."""

  def check(tables: Tables, tasks_per_step: int) -> None:
    del tasks_per_step
    if tables["optimizer"].get("schedule", "constant") != "constant":
      raise ValueError(f"config.optimizer.schedule must be 'constant' for {tables['meta_gradient']['name']}, {why}.")

  return check
