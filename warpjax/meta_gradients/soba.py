"""SOBA: the inner variable, the linear system and the meta-parameters move at once, all from the same point."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.adaptation import check_inner
from warpjax.checks import check_learnable, is_number
from warpjax.differentiation import constant
from warpjax.meta_gradients.trajectory import zeros
from warpjax.numerics import is_finite
from warpjax.problem import Problem, has_prox
from warpjax.types import AdaptState, CarriedMetaGrad, InnerLoop, MetaParams, Params, PyTree, Task


class Joint(NamedTuple):
  """The variables that move with the meta-parameters: the adapted state, and the solution v of the linear system."""

  state: AdaptState
  solution: Params


def soba(inner: InnerLoop, step_size: float) -> CarriedMetaGrad:
  """`d_phi L_query(theta) - (d_phi g)^T v`, g the inner gradient with its prox term, theta and v of the last meta-step.

  The meta-step also moves `theta <- theta + U(g)` by the rule, and `v <- v - step_size (H v - d_theta L_query(theta))`,
  H the Hessian of the inner loss. All three are at the same point, so that an inner step costs one gradient, one
  Hessian-vector product and one query gradient. phi is `initial` (by the prox term) and `shared`.

  Args:
    inner: The inner loop. Each of its `num_steps` moves theta and v. The gradient is taken before the last of them.
    step_size: The step size of v, which converges if it is below 2 over the largest eigenvalue of H.

  Returns:
    A `CarriedMetaGrad`; each position in a meta-step has a theta and a v of its own. They start from `initial` and 0,
    and do so again after a meta-step that was not finite. The value is the query loss at theta; aux also holds
    `soba/residual`, `|b - H v| / |b|`.

  Raises:
    ValueError: when `inner` or `step_size` is not allowed; when traced, if every block would be zero.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - shared * batch) ** 2, {})
    >>> estimate = soba(wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1), step_size=0.5)
    >>> meta_params, task = wj.MetaParams(jnp.array(0.0), jnp.array(1.0)), wj.Task(2.0, 3.0)
    >>> carry, call, found = estimate.init(meta_params), jax.jit(estimate.grad), []
    >>> for _ in range(20):
    ...   (_, grads), carry = call(meta_params, task, jax.random.key(0), carry)
    ...   found.append(round(float(grads.shared), 2))
    >>> found[0], found[1], found[-1]  # direct -(0 - 3) 3 = 9; at the end w = 2 and v = w - 3: 3 + 2 v = 1
    (9.0, 3.0, 1.0)

  Reference:
    Dagreou, Ablin, Vaiter, Moreau 2022, arXiv 2201.13409, algorithm 1.
  """
  num_steps = check_inner(inner)
  if is_number(step_size) and step_size <= 0:
    raise ValueError(f"step_size must be above 0; got {step_size!r}")

  def init(meta_params: MetaParams) -> Joint:
    opt_state = inner.rule.transform(meta_params.rule).init(meta_params.initial)
    return Joint(AdaptState(meta_params.initial, opt_state), optax.tree.zeros_like(meta_params.initial))

  def moved(problem: Problem, at: Joint, index: Any) -> tuple[Joint, Any]:
    """One step of theta and of v, and what the gradient of the meta-parameters needs of the point before it."""
    theta, shared = at.state.params, problem.meta_params.shared
    batch = problem.batch(theta, index)
    gradient = jax.grad(lambda params, other: problem.inner_objective(params, other, batch), argnums=(0, 1))
    # JAX's gradient is conjugate, so v meets H behind a conjugate, as in `implicit`.
    along = (optax.tree.conj(at.solution),)
    (inner_gradient, _), (product, mixed) = jax.jvp(lambda params: gradient(params, shared), (theta,), along)
    query = jax.value_and_grad(problem.query_loss, argnums=(0, 1), has_aux=True)
    (loss, aux), (b, direct) = query(theta, shared, index)
    off = optax.tree.sub(product, b)
    solution = jax.tree.map(lambda v, r: v - (step_size * r).astype(v.dtype), at.solution, off)
    value = problem.inner_objective(theta, shared, batch)
    state = problem.update(at.state, index, value, inner_gradient, batch)
    size = optax.tree.norm(b)
    aux = {**aux, "soba/residual": optax.tree.norm(off) / jnp.where(size > 0, size, 1.0)}
    return Joint(state, solution), ((loss, aux), optax.tree.sub(direct, mixed))

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array, at: Joint) -> tuple[Any, Joint]:
    check_learnable(meta_params)
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    _check_blocks(problem)
    before, _ = jax.lax.scan(lambda joint, k: (moved(problem, joint, k)[0], None), at, jnp.arange(num_steps - 1))
    after, (value, block) = moved(problem, before, num_steps - 1)
    pulled = optax.tree.scale(inner.prox, before.solution) if has_prox(inner) else optax.tree.zeros_like(at.solution)
    kept = optax.tree.where(is_finite((value[0], after)), after, init(meta_params))
    return (value, zeros(problem, initial=pulled, shared=block)), kept

  return CarriedMetaGrad(init, grad_fn)


def _check_blocks(problem: Problem) -> None:
  shared: PyTree = problem.meta_params.shared
  if not has_prox(problem.inner) and not jax.tree.leaves(shared):
    raise ValueError(
      "soba needs InnerLoop.prox > 0, or a shared block: without them the inner loss does not depend on the "
      "meta-parameters, and the gradient would be zero"
    )
