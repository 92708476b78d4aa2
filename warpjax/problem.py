"""A task bound to the inner loop that adapts to it; every estimator computes with it."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name

from warpjax import mistakes
from warpjax.checks import check_key
from warpjax.differentiation import INNER_GRADIENT, Gradient, Mode, differentiable_value, value_and_grad
from warpjax.types import (
  AdaptState,
  Aux,
  Batch,
  InnerLoop,
  InnerStep,
  LossFn,
  MetaParams,
  Params,
  PyTree,
  QueryBatchFn,
  Task,
)

# Streams of the task's key that differ from the step indices that a batch_fn folds in, so that all draws are distinct.
_QUERY_STREAM = 0x51E5
_RULE_STREAM = 0x701E


class _Fields(NamedTuple):
  inner: InnerLoop
  meta_params: MetaParams
  task: Task
  key: jax.Array


class Problem(_Fields):
  """A task and the inner loop that adapts to it; every estimator computes with it.

  Attributes:
    inner: The inner loop.
    meta_params: The meta-parameters.
    task: The task.
    key: The key of the task.

  Raises:
    ValueError: if an argument is not a `MetaParams`, `Task` or key, or parameters of the rule are missing.
  """

  __slots__ = ()

  def __new__(cls, inner: InnerLoop, meta_params: MetaParams, task: Task, key: jax.Array) -> Self:
    """Checks the arguments that are easily confused."""
    mistakes.check_meta_params(meta_params)
    mistakes.check_task(task)
    check_key(key)
    mistakes.check_rule_params(inner.rule, meta_params)
    return super().__new__(cls, inner, meta_params, task, key)

  def start(self) -> AdaptState:
    """The initial parameters and a fresh state of the rule's transformation."""
    initial = self.meta_params.initial
    return AdaptState(initial, self.inner.rule.transform(self.meta_params.rule).init(initial))

  def batch(self, params: Params, index: Any) -> Batch:
    """The support batch of step `index`, held constant."""
    batch = self.inner.batch_fn(self.key, self.task.support, index, params, self.meta_params.shared)
    return jax.lax.stop_gradient(batch)

  def with_batch(self, params: Params, index: Any) -> Self:
    """The problem with the support batch of step `index` drawn once, for all its readers.

    XLA merges equal operations, but not the loops that draw random numbers, nor what depends on them.
    """
    batch = self.batch(params, index)
    return self._replace(inner=self.inner._replace(batch_fn=lambda *arguments: batch))

  def inner_objective(self, params: Params, shared: PyTree, batch: Batch) -> jax.Array:
    """`loss(params, shared, batch) + prox / 2 * |params - initial|^2`, a scalar."""
    return self._add_prox(params, loss_of(self.inner)(params, shared, batch)[0])

  def query_loss(self, params: Params, shared: PyTree, index: Any) -> tuple[jax.Array, Aux]:
    """The meta-loss at `params`, the point after `index` steps; each point draws its own query batch."""
    key = jax.random.fold_in(jax.random.fold_in(self.key, _QUERY_STREAM), index)
    batch = jax.lax.stop_gradient(with_step(self.inner.query_batch_fn)(key, self.task, params, shared, index))
    return query_loss_of(self.inner)(params, shared, batch)

  def step(
    self, state: AdaptState, index: Any, derivative: Mode = "reverse", known: Gradient | None = None
  ) -> InnerStep:
    """One inner step from `state`.

    Args:
      state: Task parameters and optimizer state.
      index: Which step.
      derivative: How the gradient is differentiated. With "value" it is constant, and the value is differentiable.
      known: `(value, grads)` of the same step, if it was taken before: only their derivative is computed.

    Returns:
      An `InnerStep`.
    """
    params, shared, batch = state.params, self.meta_params.shared, self.batch(state.params, index)
    held = jax.lax.stop_gradient if derivative in ("first_order", "value") else lambda tree: tree
    # Stopped already at this point, so that no second derivative is traced and then dropped.
    at = held((params, shared)) if derivative == "first_order" else (params, shared)
    bare = (self._add_prox(params, known[0], -1), self._add_prox_gradient(params, known[1], -1)) if known else None
    shared_grads = None
    if derivative == "value":
      value, (grads, shared_grads) = differentiable_value(loss_of(self.inner))(*at, batch)
    else:
      value, grads = value_and_grad(loss_of(self.inner), derivative)(*at, batch, bare)
    # The prox term stays outside the mixed-mode rule, which would lose its derivative in `initial`.
    value, grads = self._add_prox(params, value), self._add_prox_gradient(params, grads)
    value, grads = jax.tree.map(_named, (value if derivative == "value" else held(value), held(grads)))
    after = self.update(state, index, held(value), grads, batch)
    return InnerStep(index, state, value, grads, after, shared_grads=held(shared_grads))

  def differentiated_step(self, state: AdaptState, index: Any) -> InnerStep:
    """One inner step with its `pullback`, which reuses its passes; `state` is held constant."""

    def after(shared: PyTree, rule: PyTree) -> tuple[Params, InnerStep]:
      # Constant in `initial`: the prox term, if any, pulls towards a fixed point.
      learned = self.meta_params._replace(shared=shared, rule=rule)
      seen = self._replace(meta_params=learned).step(state, index, "linearized")
      return seen.next.params, seen

    _, pullback, seen = jax.vjp(after, self.meta_params.shared, self.meta_params.rule, has_aux=True)
    return seen._replace(pullback=pullback)

  def update(self, state: AdaptState, index: Any, value: jax.Array, grads: Params, batch: Batch) -> AdaptState:
    """The rule's update from the gradient of step `index`; rules that ask get the loss, its function and a key."""
    transform = optax.with_extra_args_support(self.inner.rule.transform(self.meta_params.rule))

    # optax's line searches insist that value_fn consumes every extra argument, `key` among them.
    def value_fn(params: Params, key: jax.Array | None = None) -> jax.Array:
      del key
      return self.inner_objective(params, self.meta_params.shared, batch)

    updates, opt_state = transform.update(
      grads,
      state.opt_state,
      state.params,
      value=value,
      grad=grads,
      value_fn=value_fn,
      key=jax.random.fold_in(jax.random.fold_in(self.key, _RULE_STREAM), index),
    )
    return AdaptState(optax.apply_updates(state.params, updates), opt_state)

  def _add_prox(self, params: Params, value: jax.Array, sign: int = 1) -> jax.Array:
    if not has_prox(self.inner):
      return value
    distance = optax.tree.norm(optax.tree.sub(params, self.meta_params.initial), squared=True)
    return value + (0.5 * sign * self.inner.prox * distance).astype(value.dtype)

  def _add_prox_gradient(self, params: Params, grads: Params, sign: int = 1) -> Params:
    if not has_prox(self.inner):
      return grads
    prox = sign * self.inner.prox

    def add(g: jax.Array, p: jax.Array, p0: jax.Array) -> jax.Array:
      return g + (prox * jnp.conj(p - p0)).astype(g.dtype)  # JAX's gradient of |z|^2 / 2 is the conjugate of z

    return jax.tree.map(add, grads, params, self.meta_params.initial)


def _named(leaf: jax.Array) -> jax.Array:
  """The leaf under the name by which a backward sweep saves it; JAX only saves real numbers."""
  if jnp.iscomplexobj(leaf):
    return jax.lax.complex(*checkpoint_name((jnp.real(leaf), jnp.imag(leaf)), INNER_GRADIENT))
  return checkpoint_name(leaf, INNER_GRADIENT)


def loss_of(inner: InnerLoop) -> LossFn:
  """The task's loss with aux, `{}` if it only returns a scalar."""
  return mistakes.with_aux(inner.loss_fn, "InnerLoop.loss_fn")


def query_loss_of(inner: InnerLoop) -> LossFn:
  """The meta-loss with aux; the task's loss if there is no other."""
  return mistakes.with_aux(inner.query_loss_fn, "InnerLoop.query_loss_fn") if inner.query_loss_fn else loss_of(inner)


def takes_step(query_batch_fn: QueryBatchFn) -> bool:
  """Whether a query_batch_fn has a fifth argument, the step: one that is required, or that has this name.

  Raises:
    ValueError: if it only takes `step` by keyword.
  """
  try:
    parameters = inspect.signature(query_batch_fn).parameters.values()
  except (TypeError, ValueError):  # not every builtin has a signature
    return False
  bound = getattr(query_batch_fn, "keywords", {})  # of a partial, whose arguments become keyword-only
  if any(each.name == "step" and each.kind is each.KEYWORD_ONLY for each in parameters) and "step" not in bound:
    raise ValueError("query_batch_fn must take step as its fifth argument by position; it takes it by keyword")
  by_position = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
  return len(by_position) > 4 and (by_position[4].name == "step" or by_position[4].default is inspect.Parameter.empty)


def with_step(query_batch_fn: QueryBatchFn) -> QueryBatchFn:
  """The query_batch_fn as a function of five arguments, the last one the step."""
  if takes_step(query_batch_fn):
    return query_batch_fn
  return lambda key, task, params, shared, step: query_batch_fn(key, task, params, shared)


def check_examples(problem: Problem) -> None:
  """Traces the loss of a task that is not traced itself, whose labels have known values."""
  if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((problem.task, problem.key))):
    return
  inner, task, key = problem.inner, problem.task, problem.key

  def loss(params: Params, shared: PyTree) -> Any:
    return loss_of(inner)(params, shared, inner.batch_fn(key, task.support, jnp.zeros((), jnp.int32), params, shared))

  jax.eval_shape(loss, problem.meta_params.initial, problem.meta_params.shared)


def has_prox(inner: InnerLoop) -> bool:
  """Whether the inner loss has a proximal term; a traced weight counts as one."""
  return not (isinstance(inner.prox, (int, float)) and inner.prox == 0)
