"""What a config meta-trains with: a meta-gradient of one task, or a step that is more than one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from warpjax import training


class OuterStep(NamedTuple):
  """An outer update, and the meta-gradient in it.

  Attributes:
    make_step: `(optimizer, axis_name=..., task_chunk=...) -> step`, as `training.meta_step` makes it.
    meta_grad: Of one task; its state, if it has any, the run carries. None for a step that has none.
  """

  make_step: Callable[..., training.StepFn]
  meta_grad: Any = None

  @property
  def in_turn(self) -> bool:
    """Whether one state passes through the tasks of a meta-step, which cannot be spread over devices then."""
    return bool(getattr(self.meta_grad, "in_turn", False))


class NeedsTask(NamedTuple):
  """A meta-gradient that is made once the shapes of a task are known: `make(task)`."""

  make: Callable[[Any], Any]


def resolve(made: Any, task: Any) -> OuterStep:
  """The outer step of whatever a table `meta_gradient` makes.

  Args:
    made: A meta-gradient of one task, a `NeedsTask` of one, or an `OuterStep`.
    task: A task, or its shapes.

  Returns:
    An `OuterStep`.
  """
  meta_grad = made.make(task) if isinstance(made, NeedsTask) else made
  return meta_grad if isinstance(meta_grad, OuterStep) else OuterStep(partial(training.meta_step, meta_grad), meta_grad)
