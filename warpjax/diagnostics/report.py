"""The findings of a check, and their report."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from warpjax.checks import check_choice
from warpjax.numerics import named_leaves
from warpjax.types import PyTree

Status = Literal["passed", "note", "warning", "failed", "skipped"]


class Check(NamedTuple):
  """The outcome of a check.

  Attributes:
    name: The name of the check.
    status: Whether it passed.
    finding: What it found, in a sentence.
  """

  name: str
  status: Status
  finding: str


@dataclasses.dataclass(frozen=True)
class Report:
  """The findings on a learner; printing it gives a table."""

  checks: tuple[Check, ...]

  @property
  def ok(self) -> bool:
    """Whether no check failed or warned."""
    return not any(check.status in ("failed", "warning") for check in self.checks)

  def __getitem__(self, name: str) -> Check:
    """The finding of the check with that name."""
    by_name = {check.name: check for check in self.checks}
    check_choice("name", name, by_name)
    return by_name[name]

  def __str__(self) -> str:
    """A table, one line for each check."""
    width = max(len(check.name) for check in self.checks)
    return "\n".join(f"{check.name:<{width}}  {check.status:<7}  {check.finding}" for check in self.checks)


def zero_leaves(tree: PyTree) -> list[str]:
  """The paths of the leaves that are exactly zero, as "initial/conv_0/bias".

  Example:
    >>> import jax.numpy as jnp
    >>> zero_leaves({"w": jnp.ones(2), "b": jnp.zeros(3)})
    ['b']
  """
  return [path for path, leaf in named_leaves(tree) if not np.any(np.asarray(leaf))]
