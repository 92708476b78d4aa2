"""Differentiation of the query loss through the inner loop."""

from __future__ import annotations

from functools import partial

import jax

from warpjax.adaptation import check_inner, run_steps
from warpjax.differentiation import Derivative, Memory, check_choice, checkpoint_step, constant
from warpjax.problem import Problem
from warpjax.types import AdaptState, Aux, InnerLoop, MetaGradFn, MetaParams, Task


def unrolled(
  inner: InnerLoop, derivative: Derivative = "mixed", *, truncate: int | None = None, memory: Memory = "auto"
) -> MetaGradFn:
  """`d L_query(theta_K) / d(initial, shared, rule)` through the K inner steps.

  Args:
    inner: The inner loop; its rule must be differentiable.
    derivative: "mixed" (exact, forward over reverse, no activations kept per step), "reverse" (exact, reverse over
      reverse) or "first_order" (the inner gradient and value are held constant; the update is still differentiated
      through parameters, optimizer state and rule parameters).
    truncate: Inner gradients are differentiated in the last `truncate` steps alone, and held constant before; None
      for all of them. 0 is "first_order".
    memory: What the backward sweep stores of each step besides the carry: "save_all" residuals, "save_gradients",
      nothing ("recompute"), or "auto": "save_gradients" for mixed mode, "recompute" for reverse mode.

  Returns:
    A `MetaGradFn`.

  Raises:
    ValueError: when an argument is not allowed, or the rule cannot be unrolled.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> grad_fn = unrolled(wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=2))
    >>> (value, aux), grads = grad_fn(wj.MetaParams(jnp.array(0.0)), wj.Task(4.0, 4.0), jax.random.key(0))
    >>> float(value), float(grads.initial)
    (0.5, -0.25)

  Reference:
    Finn, Abbeel, Levine 2017, arXiv 1703.03400, equation 1; mixed mode: Kemaev et al. 2025, arXiv 2505.00793;
    truncation: Shaban et al. 2019, arXiv 1810.10667.
  """
  num_steps = _check(inner, derivative, truncate, memory)
  differentiated = num_steps if truncate is None else min(truncate, num_steps)

  def run(problem: Problem, state: AdaptState, first: int, last: int, mode: Derivative) -> AdaptState:
    if first == last:
      return state
    wrap = partial(checkpoint_step, derivative=mode, memory=memory)
    return run_steps(problem, state, first=first, last=last, derivative=mode, wrap=wrap)[0]

  def objective(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[jax.Array, Aux]:
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    middle = num_steps - differentiated
    state = run(problem, problem.start(), 0, middle, "first_order")
    state = run(problem, state, middle, num_steps, derivative)
    return problem.query_loss(state.params, meta_params.shared, num_steps)

  return jax.value_and_grad(objective, has_aux=True)


def _check(inner: InnerLoop, derivative: str, truncate: int | None, memory: str) -> int:
  num_steps = check_inner(inner)
  check_choice("derivative", derivative, Derivative)
  check_choice("memory", memory, Memory)
  if truncate is not None and (isinstance(truncate, bool) or not isinstance(truncate, int) or truncate < 0):
    raise ValueError(f"truncate must be None or an integer of at least 0; got {truncate!r}")
  if not inner.rule.differentiable:
    raise ValueError(
      f"unrolled cannot differentiate the rule {inner.rule.name!r} (a line search or the like); "
      "use along_trajectory(inner, implicit(solve)) with prox > 0"
    )
  return num_steps
