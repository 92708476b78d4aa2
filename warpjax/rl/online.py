"""Learning along one life: `initial` adapts at every step, and `shared` is trained more slowly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from warpjax.adaptation import check_inner
from warpjax.checks import check_learnable
from warpjax.numerics import add_to, cast_like, sums_like
from warpjax.problem import Problem, loss_of
from warpjax.types import AdaptState, Aux, CarriedMetaGrad, InnerLoop, MetaParams, PyTree, Task


def online(inner: InnerLoop) -> CarriedMetaGrad:
  """Takes `num_steps` steps on fresh batches, and sums the gradients of the loss in `shared` along the way.

  A task is one lifetime. Use one task for each meta-step: the final parameters of several tasks would be averaged, but
  not their optimizer states. The lifetime continues in the next meta-step: the gradient of `initial` is
  `initial - final`, so that the optimizer `sgd(1)` replaces the start by the end, and the state of the rule's
  transformation is carried. With `optimizers.per_block(initial=optax.sgd(1.0), shared=optax.adam(1e-3))` it is
  WarpGrad's reinforcement learning: the RNN learns at every episode, its warp every `num_steps` episodes.

  Args:
    inner: The inner loop; `batch_fn` draws the episodes.

  Returns:
    A `CarriedMetaGrad`; its value and aux are means over the steps. The rule's parameters get zeros.

  Raises:
    ValueError: when a field of `inner` is not allowed, or `inner.prox` is not 0.

  Example:
    >>> import warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (shared * w - batch) ** 2, {})
    >>> life = online(wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=2))
    >>> here, task = wj.MetaParams(jnp.array(0.0), jnp.array(1.0)), wj.Task(jnp.array(4.0), ())
    >>> (_, grads), carry = life.grad(here, task, jax.random.key(0), life.init(here))
    >>> float(grads.initial), float(grads.shared)  # w is 0, 2, 3
    (-3.0, -4.0)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, section 4.3, released code.
  """
  num_steps = check_inner(inner)
  if not (isinstance(inner.prox, (int, float)) and inner.prox == 0):
    raise ValueError(f"online needs InnerLoop.prox to be 0; got {inner.prox!r}")

  def init(meta_params: MetaParams) -> PyTree:
    return inner.rule.transform(meta_params.rule).init(meta_params.initial)

  def grad(meta_params: MetaParams, task: Task, key: jax.Array, carry: PyTree) -> tuple:
    check_learnable(meta_params)
    problem = Problem(inner, meta_params, task, key)
    loss = jax.value_and_grad(loss_of(inner), argnums=(0, 1), has_aux=True)

    def step(state: tuple[AdaptState, PyTree], index: jax.Array) -> tuple[tuple[AdaptState, PyTree], tuple]:
      here, total = state
      batch = problem.batch(here.params, index)
      (value, aux), (grads, shared_grads) = loss(here.params, meta_params.shared, batch)
      after = problem.update(here, index, value, grads, batch)
      return (after, add_to(total, shared_grads)), (value, aux)

    start = (AdaptState(meta_params.initial, carry), sums_like(meta_params.shared))
    (final, total), seen = jax.lax.scan(step, start, jnp.arange(num_steps))
    result: tuple[jax.Array, Aux] = jax.tree.map(jnp.mean, seen)
    moved, summed = (
      optax.tree.conj(optax.tree.sub(meta_params.initial, final.params)),
      cast_like(total, meta_params.shared),
    )
    grads = MetaParams(moved, summed, optax.tree.zeros_like(meta_params.rule))
    return (result, grads), final.opt_state

  return CarriedMetaGrad(init, grad)
