"""SAMA: the mixed derivative by a central difference of first-order gradients, along the optimizer's own direction."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import check_differentiable
from warpjax.meta_gradients.trajectory import Contribution, zeros
from warpjax.numerics import cast_like
from warpjax.problem import Problem, has_prox
from warpjax.types import AdaptState, Aux, InnerLoop, InnerStep, MetaParams, Params, PyTree
from warpjax.zero_gradient import check_at_zero


def sama(radius: float = 0.01) -> Contribution:
  """`d_phi L_query(theta) + (d_phi g(theta + e v) - d_phi g(theta - e v)) / (2 e)`, without a second derivative.

  theta is the end point, g the inner loss there, phi one of `initial` and `shared`, `v = (dU/dg)^T grad L_query(theta)`
  with U the update of the last step as a function of its gradient, and `e = radius / |v|`. The difference stands for
  `(d_phi grad_theta g)^T v`. The inverse Hessian is replaced by `-dU/dg`: the identity times the learning rate with
  SGD, and the optimizer's scales with Adam.

  Args:
    radius: How far the two points are from theta. The error is of order `radius^2`; rounding errors grow as
      `1 / radius`, so that single precision needs 1e-3 or more.

  Returns:
    A contribution to the `initial` block (by the proximal term) and the `shared` block. It stores the last inner step.

  Raises:
    ValueError: when `radius` is not a finite number above 0; (by `along_trajectory`) when the rule has no derivative;
      when traced, if both blocks would be zero, or the rule's derivative is not finite at a zero gradient.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - shared * batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=20)
    >>> grad_fn = wj.meta_gradients.along_trajectory(inner, sama())
    >>> meta_params = wj.MetaParams(jnp.array(0.0), shared=jnp.array(1.0))
    >>> _, grads = grad_fn(meta_params, wj.Task(2.0, 1.0), jax.random.key(0))
    >>> round(float(grads.shared), 2)  # direct: -(2 - 1) 1; by the adapted w: 0.5 2 (2 - 1)
    0.0

  Reference:
    Choe, Mehta, Ahn, Neiswanger, Xie, Strubell, Xing 2023, arXiv 2310.05674.
  """
  if not isinstance(radius, (int, float)) or not 0 < radius < float("inf"):
    raise ValueError(f"radius must be finite and above 0; got {radius!r}")

  def init(problem: Problem) -> InnerStep:
    if not has_prox(problem.inner) and not jax.tree.leaves(problem.meta_params.shared):
      raise ValueError(
        "sama() needs InnerLoop.prox > 0, or a shared block: without them the inner loss does not depend on the "
        "meta-parameters, and the gradient would be zero"
      )
    check_at_zero("sama", problem.inner.rule, problem.meta_params.initial)
    start = problem.start()
    shapes = jax.eval_shape(lambda: _kept(problem.step(start, 0)))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

  def finish(problem: Problem, last: Any, final: AdaptState) -> tuple[MetaParams, Aux]:
    num_steps = problem.inner.num_steps
    query = jax.grad(lambda theta, shared: problem.query_loss(theta, shared, num_steps)[0], argnums=(0, 1))
    query_params, direct = query(final.params, problem.meta_params.shared)
    along = _through_the_update(problem, last, query_params)
    size = optax.tree.norm(along)
    scale = radius / jnp.where(size > 0, size, 1.0)
    ahead, behind = (_inner_gradient(problem, _moved(final.params, sign * scale, along)) for sign in (1, -1))
    mixed = jax.tree.map(lambda one, other: ((one - other) / (2 * scale)).astype(one.dtype), ahead, behind)
    shared = jax.tree.map(lambda by, at: by + at, mixed.shared, direct)
    return zeros(problem, initial=mixed.initial, shared=shared), {}

  return Contribution(init, lambda problem, last, seen: _kept(seen), finish, _check)


def _kept(seen: InnerStep) -> tuple[Any, AdaptState, jax.Array, Params]:
  return seen.number, seen.state, seen.value, seen.grads


def _through_the_update(problem: Problem, last: Any, cotangent: Params) -> Params:
  """The pull-back of the last update onto its gradient."""
  number, state, value, grads = last
  batch = problem.batch(state.params, number)
  update = lambda gradient: problem.update(state, number, value, gradient, batch).params
  return jax.vjp(update, grads)[1](cast_like(cotangent, state.params))[0]


def _inner_gradient(problem: Problem, theta: Params) -> MetaParams:
  """The gradient of the inner loss at a fixed theta in the meta-parameters."""
  batch = problem.batch(theta, problem.inner.num_steps)

  def loss(meta_params: MetaParams) -> jax.Array:
    return problem._replace(meta_params=meta_params).inner_objective(theta, meta_params.shared, batch)

  return jax.grad(loss)(problem.meta_params)


def _moved(theta: Params, scale: Any, along: PyTree) -> Params:
  return jax.tree.map(lambda p, v: p + (scale * v).astype(p.dtype), theta, along)


def _check(inner: InnerLoop) -> None:
  check_differentiable("sama", inner.rule)
