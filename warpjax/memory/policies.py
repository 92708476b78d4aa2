"""Memory policies: scans whose backward sweep stores only some steps and computes the others again.

| policy | states kept | forward passes of a step |
|---|---|---|
| "save_all", "save_gradients", "recompute" | all N | 1, 1, 2 |
| "nested", "offload" | one for each segment, and those of one segment | 2 |
| "treeverse" | S | r + 2 at most, where the binomial of S + r over S is at least N |

Reference: Griewank, Walther 2000, "Algorithm 799: revolve" (binomial schedules).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from warpjax.checks import check_choice, check_count
from warpjax.differentiation import INNER_GRADIENT, Derivative, Memory
from warpjax.memory.treeverse import treeverse
from warpjax.types import PyTree

Scan = Callable[[Callable[[PyTree, PyTree], tuple[PyTree, None]], PyTree, jax.Array], tuple[PyTree, None]]
"""`(body, carry, indices) -> (carry, None)`, as `jax.lax.scan` has it, of a body that stacks nothing."""

_BOUNDARY = "warpjax_boundary"
_PER_STEP: dict[Derivative, Memory] = {"mixed": "save_gradients", "reverse": "recompute", "first_order": "save_all"}


class Plan(NamedTuple):
  """The states that a policy stores in an unroll.

  Attributes:
    boundaries: States kept for the whole backward sweep (for "offload", in the memory of the host).
    segment: Steps whose residuals are stored at once.
  """

  boundaries: int
  segment: int


def is_below_linear(memory: Memory) -> bool:
  """Whether the memory of the policy grows slower than the number of steps."""
  return memory in ("nested", "treeverse", "offload")


def check_memory(memory: Any, snapshots: Any) -> None:
  """Raises a ValueError for an unknown policy, or for snapshots with a policy that keeps none."""
  check_choice("memory", memory, Memory)
  check_count("snapshots", snapshots, optional=True)
  if snapshots is not None and not is_below_linear(memory):
    raise ValueError(f"snapshots must be None unless memory is 'nested', 'treeverse' or 'offload'; got {snapshots}")


def plan(memory: Memory, num_steps: int, snapshots: int | None = None) -> Plan:
  """The states that a policy stores in an unroll of `num_steps` steps.

  Args:
    memory: The policy.
    num_steps: N.
    snapshots: The states to keep at most; None for about the square root of N, for "treeverse" about `2 log2 N`.

  Returns:
    A `Plan`.

  Example:
    >>> plan("nested", 1024), plan("treeverse", 1024)
    (Plan(boundaries=32, segment=32), Plan(boundaries=22, segment=1))
  """
  if not is_below_linear(memory):
    return Plan(0, num_steps)
  if memory == "treeverse":
    return Plan(min(snapshots or 2 * math.ceil(math.log2(num_steps + 1)), num_steps), 1)
  length = -(-num_steps // snapshots) if snapshots else _segment_length(num_steps)
  return Plan(num_steps // length, length)


def _segment_length(num_steps: int) -> int:
  """Steps in a segment, so that few states are kept; a divisor if there is a good one, as the rest is a second loop."""
  kept = lambda length: num_steps // length + length
  lengths = range(1, 2 * math.isqrt(num_steps) + 1)
  divisor = min((length for length in lengths if num_steps % length == 0), key=kept)
  return divisor if kept(divisor) <= 1.25 * min(map(kept, lengths)) else min(lengths, key=kept)


def scan_of(derivative: Derivative, memory: Memory = "auto", snapshots: int | None = None) -> Scan:
  """The scan of inner steps under a memory policy; its derivative is that of `jax.lax.scan`.

  Args:
    derivative: How the gradient of a step is differentiated, for "auto" and for the steps of a segment.
    memory: "save_all" stores every residual of a step, "save_gradients" the inner gradient and the carry, "recompute"
      only the carry; "auto" is "save_gradients" for mixed mode, "recompute" for reverse mode, "save_all" for first
      order. "nested" stores the carry at the boundaries of segments, runs each segment again, and stores meanwhile what
      "auto" does. "offload" is "nested" with the boundaries in the memory of the host; on a CPU the two are the same.
      "treeverse" stores `snapshots` carries, and runs steps again from the nearest.
    snapshots: As for `plan`.

  Returns:
    A scan; that of "treeverse" can be differentiated once.
  """
  by_mode = memory == "auto" or is_below_linear(memory)
  per_step = partial(_each_step, policy=_PER_STEP[derivative] if by_mode else memory)
  if not is_below_linear(memory):
    return lambda body, carry, indices: jax.lax.scan(per_step(body), carry, indices)

  def scan(body: Callable, carry: PyTree, indices: jax.Array) -> tuple[PyTree, None]:
    kept = plan(memory, indices.shape[0], snapshots)
    if memory == "treeverse":
      return treeverse(lambda carry, index: body(carry, index)[0], carry, indices, kept.boundaries), None
    return _nested(per_step(body), carry, indices, kept, offload=memory == "offload")

  return scan


def _each_step(body: Callable, policy: Memory) -> Callable:
  if policy == "save_all":
    return body
  names = jax.checkpoint_policies.save_only_these_names(INNER_GRADIENT) if policy == "save_gradients" else None
  # Inside a scan the loop itself already keeps XLA from merging the recomputation with the forward pass.
  return jax.checkpoint(body, policy=names, prevent_cse=False)


def _nested(body: Callable, carry: PyTree, indices: jax.Array, kept: Plan, offload: bool) -> tuple[PyTree, None]:
  """A scan over checkpointed scans. Steps that do not fill a segment come last, in a scan that is not checkpointed."""
  policy = jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[_BOUNDARY],
    offload_src="device",
    offload_dst="pinned_host",
  )

  def segment(carry: PyTree, indices: jax.Array) -> tuple[PyTree, None]:
    return jax.lax.scan(body, jax.tree.map(_boundary, carry) if offload else carry, indices)

  whole = kept.boundaries * kept.segment
  again = jax.checkpoint(segment, policy=policy if offload else None, prevent_cse=False)
  carry, _ = jax.lax.scan(again, carry, indices[:whole].reshape(kept.boundaries, kept.segment))
  return jax.lax.scan(body, carry, indices[whole:]) if whole < indices.shape[0] else (carry, None)


def _boundary(leaf: jax.Array) -> jax.Array:
  """The leaf under the name by which it is offloaded; JAX names only real numbers."""
  if jnp.iscomplexobj(leaf):
    return jax.lax.complex(*checkpoint_name((jnp.real(leaf), jnp.imag(leaf)), _BOUNDARY))
  return checkpoint_name(leaf, _BOUNDARY) if jnp.issubdtype(leaf.dtype, jnp.number) else leaf
