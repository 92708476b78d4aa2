"""Differentiation of the query loss through the inner loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_choice, check_count, check_differentiable, check_learnable, is_number
from warpjax.differentiation import Derivative, Gradient, Memory, Mode, constant
from warpjax.memory import check_memory, is_below_linear, scan_of
from warpjax.meta_gradients.path_loss import PathLoss, check_no_query, online_path, weighted_path
from warpjax.meta_gradients.trajectory import Guests, OneAdaptation, Result, follow
from warpjax.problem import Problem
from warpjax.types import AdaptState, Aux, CarriedMetaGrad, InnerLoop, InnerStep, MetaGradFn, MetaParams, Task
from warpjax.zero_gradient import check_at_zero

WeightsByMetaStep = Callable[[jax.Array], jax.Array]


@overload
def unrolled(
  inner: InnerLoop,
  derivative: Derivative = "mixed",
  *,
  truncate: int | None = None,
  memory: Memory = "auto",
  snapshots: int | None = None,
  step_weights: Sequence[float] | None = None,
  start_weight: float = 0.0,
  online: bool | Sequence[float] = False,
) -> MetaGradFn: ...


@overload
def unrolled(
  inner: InnerLoop,
  derivative: Derivative = "mixed",
  *,
  truncate: int | None = None,
  memory: Memory = "auto",
  snapshots: int | None = None,
  step_weights: WeightsByMetaStep,
  start_weight: float = 0.0,
) -> CarriedMetaGrad: ...


def unrolled(
  inner: InnerLoop,
  derivative: Derivative = "mixed",
  *,
  truncate: int | None = None,
  memory: Memory = "auto",
  snapshots: int | None = None,
  step_weights: Sequence[float] | WeightsByMetaStep | None = None,
  start_weight: float = 0.0,
  online: bool | Sequence[float] = False,
) -> MetaGradFn | CarriedMetaGrad:
  """`d L_query(theta_K) / d(initial, shared, rule)` through the K inner steps, or `d sum_k w_k L_query(theta_k)`.

  With `online`, `d sum_k w_k L(theta_k; batch_k)`, k from 0 to K - 1: the inner losses before each step.

  Args:
    inner: The inner loop; its rule must be differentiable.
    derivative: "mixed" (exact, forward over reverse, no activations kept per step), "reverse" (exact, reverse over
      reverse) or "first_order" (the inner gradient and value are held constant; the update is still differentiated
      through parameters, optimizer state and rule parameters).
    truncate: Inner gradients are differentiated only in the last `truncate` steps, and held constant before; None
      for all of them. 0 is "first_order".
    memory: What the backward sweep stores. Three policies store the carry of each step, plus all residuals
      ("save_all"), the inner gradient ("save_gradients") or nothing ("recompute"). "auto" is "save_gradients" in mixed
      mode, "recompute" in reverse mode and "save_all" in first order. Three policies store fewer carries: "nested" only
      those at the boundaries of segments, "offload" the same in host memory, and "treeverse" only `snapshots` carries.
    snapshots: The most carries that the last three policies keep (plus those of one segment). None takes about the
      square root of the number of steps, and for "treeverse" twice its logarithm to base 2.
    step_weights: Weights `w_1..w_K` of the query losses after each step (MAML++'s multi-step loss), or a function from
      the number of meta-steps done to the weights, such as `annealed_step_weights`; under `compose.repeated` it
      counts outer updates. None takes only the last loss. The value is always the query loss at the end point.
    start_weight: The weight `w_0` of the query loss at `initial`, which is added to the others.
    online: The meta-loss is the mean of the inner losses before each step (True), or their sum with the weights
      `w_0..w_{K-1}`. These are the inner loop's own values and cost no further forward pass. There is no query loss
      then: the value is the meta-loss, and aux holds `online/last`, the loss before the last step.

  Returns:
    A `MetaGradFn`; where `step_weights` is a function, a `CarriedMetaGrad` that counts meta-steps.

  Raises:
    ValueError: when an argument is not allowed, or the rule cannot be unrolled; when traced, if the derivative of the
      rule is not finite at a zero gradient.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> grad_fn = unrolled(wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=2))
    >>> (value, aux), grads = grad_fn(wj.MetaParams(jnp.array(0.0)), wj.Task(4.0, 4.0), jax.random.key(0))
    >>> float(value), float(grads.initial)
    (0.5, -0.25)

  Reference:
    Finn, Abbeel, Levine 2017, arXiv 1703.03400, equation 1; mixed mode: Kemaev et al. 2025, arXiv 2505.00793;
    truncation: Shaban et al. 2019, arXiv 1810.10667; multi-step loss: Antoniou et al. 2019, arXiv 1810.09502, eq. 5;
    online: arXiv 2512.23675.
  """
  check_memory(memory, snapshots)
  num_steps = _check(inner, derivative, truncate, step_weights)
  losses_before = _check_online(online, start_weight, step_weights, num_steps)
  check_no_query(inner, losses_before is not None)
  middle = 0 if truncate is None else num_steps - min(truncate, num_steps)
  parts: list[tuple[int, int, Derivative]] = [(0, middle, "first_order"), (middle, num_steps, derivative)]

  def objective(
    meta_params: MetaParams, fixed: Problem, known: Gradient | None, weights: Any
  ) -> tuple[jax.Array, tuple[jax.Array, Aux]]:
    check_at_zero("unrolled", inner.rule, meta_params.initial, held=derivative == "first_order" or middle == num_steps)
    problem = fixed._replace(meta_params=meta_params)

    def step(state: AdaptState, index: jax.Array, mode: Derivative) -> InnerStep:
      of_value: Mode = "value" if mode == "first_order" and losses_before is not None else mode
      return problem.step(state, index, of_value, jax.tree.map(lambda leaf: leaf[index], known))

    if losses_before is not None:
      held = any(mode == "first_order" for first, last, mode in parts if first < last)
      path: Any = online_path(problem, jnp.asarray(losses_before, float), held)
    else:
      path = None if weights is None else weighted_path(problem, jnp.asarray(weights, float))
    state = problem.start()
    carry: Any = () if path is None else path.start
    for first, last, mode in parts:
      if first < last:
        fold = None if path is None else (path.step, carry)
        scan = scan_of(mode, memory, snapshots)
        state, carry, _ = run_steps(partial(step, mode=mode), state, fold, first=first, last=last, scan=scan)
    if path is None:
      loss, aux = problem.query_loss(state.params, meta_params.shared, num_steps)
      carry, total = PathLoss(loss, loss, aux), loss
    else:
      total = path.total(carry)
    if start_weight:
      total += start_weight * problem.query_loss(meta_params.initial, meta_params.shared, 0)[0]
    return total, (carry.loss, carry.aux)

  differentiated = jax.value_and_grad(objective, has_aux=True)

  def run(
    meta_params: MetaParams, task: Task, key: jax.Array, guests: Guests = (), weights: Any = None
  ) -> tuple[Result, list[MetaParams]]:
    check_learnable(meta_params)
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    known, others = None, []
    if guests:  # the guests' adaptation is used; its gradients are only differentiated here
      observe = None if is_below_linear(memory) else lambda seen: (seen.value, seen.grads)
      followed = follow(problem, problem.start(), guests, observe)
      known, others = followed.seen, [grads for grads, _ in followed.results]
    (_, value), grads = differentiated(meta_params, problem, known, weights)
    return (value, grads), others

  if not callable(step_weights):
    weights = None if step_weights is None else np.asarray(step_weights, float)
    return OneAdaptation(inner, partial(run, weights=weights))

  def counted(meta_params: MetaParams, task: Task, key: jax.Array, count: jax.Array) -> tuple[Result, jax.Array]:
    return run(meta_params, task, key, (), step_weights(count))[0], count + 1

  return CarriedMetaGrad(lambda meta_params: jnp.zeros((), jnp.int32), counted)


def _check(inner: InnerLoop, derivative: str, truncate: int | None, step_weights: Any) -> int:
  num_steps = check_inner(inner)
  check_choice("derivative", derivative, Derivative)
  check_count("truncate", truncate, least=0, optional=True)
  if truncate is not None and derivative == "first_order":
    raise ValueError(
      f"truncate must be None with 'first_order', which holds all inner gradients constant; got {truncate}"
    )
  if step_weights is not None:
    seen = np.shape(step_weights(jnp.zeros((), jnp.int32)) if callable(step_weights) else step_weights)
    if seen != (num_steps,):
      raise ValueError(f"step_weights must be {num_steps} numbers, one after each step; got shape {seen}")
  check_differentiable("unrolled", inner.rule, "along_trajectory(inner, implicit(solve)) with prox > 0")
  return num_steps


def _check_online(online: Any, start_weight: Any, step_weights: Any, num_steps: int) -> np.ndarray | None:
  """The weights of the losses before each step; None if the meta-loss is made of query losses."""
  if not is_number(start_weight):
    raise ValueError(f"start_weight must be a number, the weight of the query loss at initial; got {start_weight!r}")
  if isinstance(online, bool):
    weights = np.full(num_steps, 1 / num_steps) if online else None
  else:
    weights = np.asarray(online, float)
    if weights.shape != (num_steps,):
      allowed = f"True, False or {num_steps} weights, one of the loss before each step"
      raise ValueError(f"online must be {allowed}; got {online!r}")
  if weights is not None and (start_weight or step_weights is not None):
    given = "start_weight" if start_weight else "step_weights"
    raise ValueError(f"online must be False with {given}, which weighs query losses: online has none; got {online!r}")
  return weights
