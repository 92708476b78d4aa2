"""The value-function penalty: the meta-gradient by first-order gradients at the solutions of two inner problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_count, check_learnable, is_number
from warpjax.differentiation import constant
from warpjax.meta_gradients.trajectory import Result, zeros
from warpjax.numerics import is_finite
from warpjax.problem import Problem, has_prox, loss_of
from warpjax.types import AdaptState, Aux, CarriedMetaGrad, InnerLoop, MetaGradFn, MetaParams, Params, PyTree, Task

Weight = float | Callable[[jax.Array], Any]


class Solutions(NamedTuple):
  """The states of the two inner problems, None if each meta-step starts again, and the number of meta-steps so far."""

  meta_steps: jax.Array
  lower: AdaptState | None
  penalised: AdaptState | None


def penalty(
  inner: InnerLoop, weight: Weight, *, num_steps: int | None = None, carried: bool = False
) -> MetaGradFn | CarriedMetaGrad:
  """`d_phi [f(y) + w (g(y) - g(z))]`, z after descent on g, y after descent on f + w g, both held constant.

  f is the query loss, g the inner loss with its proximal term, w the weight, phi one of `initial` and `shared`. At the
  minima, with `v(phi) = min g`, it is the derivative of `min_y f + w (g - v)`, which tends to the implicit gradient
  with an error of order `1 / w`. Only first-order gradients are evaluated, and memory does not grow with the steps.

  y descends on `min(1, 1 / w) (f + w g)`, whose curvature stays that of the inner loss, so that the rule of the inner
  loop suits both problems. V-PBGD: a constant weight, or one that grows to it, with `carried` and 1 step for y.
  F2SA: a weight that grows without a bound, with `carried` and as many steps for each of the two.

  Args:
    inner: The inner loop, any rule; its steps are those for z.
    weight: w, above 0: a number, or a function of the meta-steps done.
    num_steps: Inner steps for y; None for as many as for z.
    carried: Whether y and z start from those of the last meta-step. Otherwise z starts from `initial`, and y from z.

  Returns:
    A `MetaGradFn`; a `CarriedMetaGrad` if something is carried or the weight is a function. Its value is the query
    loss at z, and aux holds `penalty/gap`, g(y) - g(z).

  Raises:
    ValueError: when an argument is not allowed; when traced, if both blocks would be zero.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.4), num_steps=60, prox=1.0)
    >>> task, meta_params, key = wj.Task(4.0, 4.0), wj.MetaParams(jnp.array(0.0)), jax.random.key(0)
    >>> for weight in (1.0, 10.0, 1000.0):  # the implicit gradient is -2 / (1 + 1)
    ...   print(round(float(penalty(inner, weight)(meta_params, task, key)[1].initial), 3))
    -0.667
    -0.952
    -1.0

  Reference:
    Shen and Chen 2023, arXiv 2302.05185, algorithm 1 (V-PBGD); Kwon, Kwon, Wright, Nowak 2023, arXiv 2301.10945,
    algorithm 1 (F2SA).
  """
  lower_steps = check_inner(inner)
  check_count("num_steps", num_steps, optional=True)
  if not callable(weight) and not (is_number(weight) and 0 < weight < float("inf")):
    raise ValueError(f"weight must be finite and above 0, or a function of the meta-steps done; got {weight!r}")

  def run(meta_params: MetaParams, task: Task, key: jax.Array, last: Solutions) -> tuple[Result, Solutions]:
    check_learnable(meta_params)
    if not has_prox(inner) and not jax.tree.leaves(meta_params.shared):
      raise ValueError(
        "penalty() needs InnerLoop.prox > 0, or a shared block: without them the inner loss does not depend on the "
        "meta-parameters, and the gradient would be zero"
      )
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    w = weight(last.meta_steps) if callable(weight) else weight
    both = _penalised(problem, w)
    lower, _, _ = run_steps(problem.step, last.lower or problem.start(), last=lower_steps)
    start = last.penalised or both.start()._replace(params=lower.params)
    penalised, _, _ = run_steps(both.step, start, last=num_steps or lower_steps)
    grads, info = _difference(problem, w, penalised.params, lower.params)
    loss, aux = problem.query_loss(lower.params, meta_params.shared, lower_steps)
    states = (lower, penalised) if carried else (None, None)
    return ((loss, {**aux, **info}), grads), Solutions(last.meta_steps + 1, *states)

  def init(meta_params: MetaParams) -> Solutions:
    opt_state = inner.rule.transform(meta_params.rule).init(meta_params.initial)
    state = AdaptState(meta_params.initial, opt_state) if carried else None
    return Solutions(jnp.zeros((), jnp.int32), state, state)

  def with_carry(meta_params: MetaParams, task: Task, key: jax.Array, last: Solutions) -> tuple[Result, Solutions]:
    result, now = run(meta_params, task, key, last)
    again = init(meta_params)._replace(meta_steps=now.meta_steps)
    return result, optax.tree.where(is_finite(now), now, again)  # solutions that ran away start again

  if carried or callable(weight):
    return CarriedMetaGrad(init, with_carry)
  return lambda meta_params, task, key: run(meta_params, task, key, init(meta_params))[0]


def _penalised(problem: Problem, weight: Any) -> Problem:
  """The problem whose inner loss is `min(1, 1 / w) (f + w g)`."""
  inner = problem.inner
  own = jnp.minimum(1.0, 1 / jnp.asarray(weight))
  of_inner = own * weight

  def loss(params: Params, shared: PyTree, batch: Any) -> tuple[jax.Array, Aux]:
    support, index = batch
    below, above = loss_of(inner)(params, shared, support)[0], problem.query_loss(params, shared, index)[0]
    return (own * above + of_inner * below).astype(below.dtype), {}

  def batches(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Any:
    return inner.batch_fn(key, support, step, params, shared), step

  prox: Any = of_inner * inner.prox if has_prox(inner) else 0.0
  return problem._replace(inner=inner._replace(loss_fn=loss, batch_fn=batches, prox=prox))


def _difference(problem: Problem, weight: Any, y: Params, z: Params) -> tuple[MetaParams, Aux]:
  """The gradient of `f(y) + w (g(y) - g(z))` in the meta-parameters, and the gap."""
  num_steps = problem.inner.num_steps
  batch = problem.batch(z, num_steps)

  def objective(meta_params: MetaParams) -> tuple[jax.Array, jax.Array]:
    moved = problem._replace(meta_params=meta_params)
    gap = moved.inner_objective(y, meta_params.shared, batch) - moved.inner_objective(z, meta_params.shared, batch)
    query = moved.query_loss(y, meta_params.shared, num_steps)[0]
    return (query + weight * gap).astype(query.dtype), gap

  grads, gap = jax.grad(objective, has_aux=True)(problem.meta_params)
  return zeros(problem, initial=grads.initial, shared=grads.shared), {"penalty/gap": gap}
