"""Bootstrapped meta-gradients: match a target that the learner itself reaches some steps further on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax import padding
from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_choice, check_count, check_differentiable, check_learnable, is_number
from warpjax.differentiation import Derivative, Memory, constant
from warpjax.memory import check_memory, scan_of
from warpjax.mistakes import APPLY, check_takes
from warpjax.problem import Problem
from warpjax.types import AdaptState, Apply, Aux, Batch, InnerLoop, MetaGradFn, MetaParams, Params, PyTree, Task
from warpjax.zero_gradient import check_at_zero


class Match(NamedTuple):
  """What is matched between the learner and its target.

  Attributes:
    of: `(params, shared, query batch) -> outputs`; the outputs of the target are held constant.
    distance: `(outputs of the target, outputs) -> scalar`.
  """

  of: Callable[[Params, PyTree, PyTree], PyTree]
  distance: Callable[[PyTree, PyTree], jax.Array]


match_parameters = Match(
  lambda params, shared, batch: params,
  lambda target, params: 0.5 * optax.tree.norm(optax.tree.sub(target, params), squared=True),
)
"""`|target - theta|^2 / 2`."""


def bootstrapped(
  inner: InnerLoop,
  target_rate: float,
  target_steps: int = 1,
  match: Match = match_parameters,
  *,
  derivative: Derivative = "mixed",
  memory: Memory = "auto",
  snapshots: int | None = None,
) -> MetaGradFn:
  """`d mu(stop(target), theta_K) / d(initial, shared, rule)`, by unrolling K steps alone.

  The target is L = `target_steps` steps further on: L - 1 more inner steps, then `x - target_rate * grad L_query(x)`.
  With L = 1 and `match_parameters` the estimate is `target_rate` times that of `unrolled`, without the query loss's own
  derivative in `shared`.

  Args:
    inner: The inner loop; its rule must be differentiable.
    target_rate: Step size of the target's last step, on the query loss; a positive number.
    target_steps: L, from the end of the adaptation.
    match: mu: `match_parameters`, `match_predictions(apply)`, `match_probabilities(apply)` or your own.
    derivative: How the K steps are differentiated, as for `unrolled`.
    memory: As for `unrolled`.
    snapshots: As for `unrolled`.

  Returns:
    A `MetaGradFn`; its value is the query loss at theta_K, and its aux has mu as `bootstrapped/distance`.

  Raises:
    ValueError: when an argument is not allowed, or the rule cannot be unrolled; when traced, if the derivative of the
      rule is not finite at a zero gradient.

  Example:
    >>> import warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> grad_fn = bootstrapped(wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1), target_rate=0.5)
    >>> (value, aux), grads = grad_fn(wj.MetaParams(jnp.array(0.0)), wj.Task(4.0, 6.0), jax.random.key(0))
    >>> float(value), float(grads.initial)  # theta_1 = 2, the target is 4, and theta_1 moves by half of initial
    (8.0, -1.0)

  Reference:
    Flennerhag, Schroecker, Zahavy, van Hasselt, Silver, Singh 2022, arXiv 2109.04504, section 3.
  """
  check_memory(memory, snapshots)
  num_steps = _check(inner, target_rate, target_steps, match, derivative)

  def objective(meta_params: MetaParams, fixed: Problem) -> tuple[jax.Array, tuple[jax.Array, Aux]]:
    check_at_zero("bootstrapped", inner.rule, meta_params.initial, held=derivative == "first_order")
    problem, shared = fixed._replace(meta_params=meta_params), meta_params.shared
    take, scan = partial(problem.step, derivative=derivative), scan_of(derivative, memory, snapshots)
    final, _, _ = run_steps(take, problem.start(), last=num_steps, scan=scan)
    held = jax.lax.stop_gradient(final)
    target = _target(fixed, held, target_rate, target_steps)

    def mu(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, Aux]:
      wanted = match.of(target, fixed.meta_params.shared, batch)
      return match.distance(jax.lax.stop_gradient(wanted), match.of(params, shared, batch)), {}

    # As a query loss it sees the batch of the query loss.
    distance, _ = problem._replace(inner=inner._replace(query_loss_fn=mu)).query_loss(final.params, shared, num_steps)
    loss, aux = fixed.query_loss(held.params, fixed.meta_params.shared, num_steps)
    return distance, (loss, {**aux, "bootstrapped/distance": distance})

  differentiated = jax.grad(objective, has_aux=True)

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[tuple[jax.Array, Aux], MetaParams]:
    check_learnable(meta_params)
    grads, value = differentiated(meta_params, Problem(inner, meta_params, constant(task, "the task"), key))
    return value, grads

  return grad_fn


def match_predictions(apply: Apply) -> Match:
  """`E |y_target - y|^2 / 2` over the query examples and outputs: the KL divergence of normal distributions.

  Args:
    apply: `(params, shared, x [batch, ...]) -> predictions [batch, ...]`.

  Returns:
    A `Match`.

  Example:
    >>> match = match_predictions(lambda params, shared, x: params * x)
    >>> batch = jnp.ones((4, 1)), jnp.zeros((4, 1))
    >>> float(match.distance(match.of(3.0, (), batch), match.of(1.0, (), batch)))
    2.0
  """
  return _of_outputs(apply, lambda target, y: 0.5 * jnp.square(jnp.abs(target - y)))


def match_probabilities(apply: Apply) -> Match:
  """`E KL(softmax(z_target) || softmax(z))` over the query examples.

  Args:
    apply: `(params, shared, x [batch, ...]) -> logits [batch, classes]`.

  Returns:
    A `Match`.

  Example:
    >>> match = match_probabilities(lambda params, shared, x: x * params)
    >>> batch = jnp.array([[0.0, 1.0]]), jnp.zeros(1, jnp.int32)
    >>> float(match.distance(match.of(1.0, (), batch), match.of(1.0, (), batch)))
    0.0

  Reference:
    Flennerhag et al. 2022, arXiv 2109.04504, section 3.
  """

  def divergence(target: jax.Array, logits: jax.Array) -> jax.Array:
    wanted, got = jax.nn.log_softmax(target), jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(wanted) * (wanted - got), axis=-1)

  return _of_outputs(apply, divergence)


def _of_outputs(apply: Apply, each: Callable[[jax.Array, jax.Array], jax.Array]) -> Match:
  """The mean of `each` over the query examples that have a weight."""
  check_takes("apply", apply, APPLY)

  def of(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, Any]:
    if isinstance(batch, Task):
      raise ValueError("the match needs query batches (x, y); got a Task, as for losses that read the support set too")
    x, _, weights = padding.unpack(batch)
    return padding.apply_to(apply, params, shared, x), weights

  def distance(target: tuple[jax.Array, Any], outputs: tuple[jax.Array, Any]) -> jax.Array:
    return padding.mean(each(target[0], outputs[0]), outputs[1])

  return Match(of, distance)


def _target(problem: Problem, state: AdaptState, rate: float, steps: int) -> Params:
  """The point `steps` after the end of the adaptation, the last of them on the query loss."""
  shared, end = problem.meta_params.shared, problem.inner.num_steps + steps - 1
  if steps > 1:
    state, _, _ = run_steps(problem.step, state, first=problem.inner.num_steps, last=end)
  grads = jax.grad(lambda params: problem.query_loss(params, shared, end)[0])(state.params)
  return jax.tree.map(lambda p, g: p - (rate * jnp.conj(g)).astype(p.dtype), state.params, grads)


def _check(inner: InnerLoop, rate: Any, steps: Any, match: Any, derivative: str) -> int:
  num_steps = check_inner(inner)
  if isinstance(rate, bool) or not is_number(rate) or not 0 < rate < float("inf"):
    raise ValueError(f"target_rate must be a positive number; got {rate!r}")
  check_count("target_steps", steps)
  if not isinstance(match, Match):
    raise ValueError(f"match must be a Match such as match_parameters; got {type(match).__name__}")
  check_choice("derivative", derivative, Derivative)
  check_differentiable("bootstrapped", inner.rule)
  return num_steps
