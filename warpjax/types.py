"""The types of warpjax: what adapts, how it adapts, and how the meta-gradient is obtained.

Everything is written for one task. `jax.vmap` computes a task batch, and an axis name stands for many devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

PyTree = Any
Params = PyTree
Batch = PyTree
Aux = dict[str, jax.Array]

Scalar = float | jax.Array
"""A hyper-parameter: a number, or an array `()` if it is meta-learned."""

Rate = Scalar | optax.Schedule
"""A learning rate: a hyper-parameter, or a schedule over steps."""

LossFn = Callable[[Params, PyTree, Batch], tuple[jax.Array, Aux]]
"""`(params, shared, batch) -> (scalar, aux)`. A loss is pure; its randomness comes with the batch. `aux` is a dict of
scalars, or of arrays for an evaluation that asks for them. A loss may also return the scalar alone."""

Apply = Callable[[Params, PyTree, jax.Array], Any]
"""`(params, shared, x [batch, ...]) -> outputs`: a network."""

ApplyWithStats = Callable[[Params, PyTree, PyTree, jax.Array], tuple[Any, PyTree]]
"""`(params, shared, stats, x) -> (outputs, stats)`: a network under `stats`, or with None under those of the batch.

It returns the statistics that it used: nested dicts whose leaves are named `mean` and `var` (the biased variance), for
every batch norm, including those of warp-layers. They are `{}` for a network without batch norm.
"""

BatchFn = Callable[[jax.Array, PyTree, jax.Array, Params, PyTree], Batch]
"""`(key, support, step, params, shared) -> batch`: what inner step `step` sees; `key` is the task's at every step."""

LinearSolve = Callable[[Callable[[PyTree], PyTree], PyTree], tuple[PyTree, Aux]]
"""`(matvec, b) -> (x, info)` over pytrees; `info` holds `residual` (relative) and `iterations`."""


class MetaParams(NamedTuple):
  """Meta-learned parameters, in three blocks. Leaves are real or complex; estimators and `training.init` refuse others.

  Attributes:
    initial: Parameters that every task starts from and adapts.
    shared: Parameters that the loss reads and no task adapts (warp-layers, a frozen body).
    rule: Parameters of the update rule (step sizes, preconditioners).
  """

  initial: Params
  shared: PyTree = ()
  rule: PyTree = ()


class Task(NamedTuple):
  """One task, in two sets of examples.

  Attributes:
    support: The examples that a learner adapts to; `(x, y)` in supervised tasks.
    query: The examples that measure the result, likewise.
  """

  support: PyTree
  query: PyTree


QueryBatchFn = Callable[..., Batch]
"""`(key, task, params, shared) -> batch`: the batch of the meta-loss, from the whole task. A function may take a fifth
argument, `step`: the number of inner steps that led to `params`."""

TaskSampler = Callable[[jax.Array], Task]
"""`(key) -> Task`: draws one task. The arrays that it needs are in a `jax.tree_util.Partial`."""


class UpdateRule(NamedTuple):
  """How parameters adapt: a function from rule parameters to an optax transformation.

  Attributes:
    init: `(key, params) -> rule_params`, the meta-learned parameters of the rule; `()` for none.
    transform: `(rule_params) -> optax.GradientTransformation`. The inner loop passes `value`, `grad`,
      `value_fn` and `key` to its update as extra arguments.
    differentiable: False for rules that cannot be unrolled (line searches); `unrolled` refuses those by name.
    name: Shown in errors.
    finite_at_zero: Whether its derivative is finite at a zero gradient, which Adam's is not without an `eps_root`. With
      None, an estimator that differentiates the rule checks this when it is traced; True skips the check.
    values: `(rule_params) -> values`: the rule parameters in their own units, for reading only; `learned` keeps some of
      them as logarithms.
  """

  init: Callable[[jax.Array, Params], PyTree]
  transform: Callable[[PyTree], optax.GradientTransformation]
  differentiable: bool = True
  name: str = "rule"
  finite_at_zero: bool | None = None
  values: Callable[[PyTree], PyTree] = lambda rule_params: rule_params


def full_batch(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
  """The whole support set at every inner step."""
  del key, step, params, shared
  return support


def full_query(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Batch:
  """The whole query set."""
  del key, params, shared
  return task.query


class InnerLoop(NamedTuple):
  """The inner loop: how a learner adapts to one task, without its parameters.

  Attributes:
    loss_fn: The task's loss on a support batch (mean over the batch).
    rule: The update rule.
    num_steps: Inner steps, at least 1.
    batch_fn: The batch of each inner step; every meta-gradient treats it as a constant.
    prox: Weight of `prox / 2 * |params - initial|^2`, added to every inner loss (iMAML's lambda).
    query_batch_fn: The batch of the meta-loss; it may depend on the inner step.
    query_loss_fn: The meta-loss; `None` for `loss_fn`.
  """

  loss_fn: LossFn
  rule: UpdateRule
  num_steps: int
  batch_fn: BatchFn = full_batch
  prox: float = 0.0
  query_batch_fn: QueryBatchFn = full_query
  query_loss_fn: LossFn | None = None


class AdaptState(NamedTuple):
  """The state of an adaptation.

  Attributes:
    params: The task parameters.
    opt_state: The state of the rule's transformation.
  """

  params: Params
  opt_state: PyTree


class InnerStep(NamedTuple):
  """The inputs and the results of one inner step.

  Attributes:
    number: Which step, from 0; a scalar integer.
    state: The point it started from.
    value: The inner loss there, the prox term included.
    grads: The gradient there, the prox term included.
    next: The point it went to.
    pullback: `(cotangent of next.params) -> cotangents of (shared, rule)`, `state` held constant; None if not needed.
    shared_grads: The gradient of the loss in `shared`, held constant; None if not needed.
  """

  number: jax.Array
  state: AdaptState
  value: jax.Array
  grads: Params
  next: AdaptState
  pullback: Any = None
  shared_grads: PyTree = None


class Trajectory(NamedTuple):
  """An adaptation to one task.

  Attributes:
    final: The state after the last step.
    steps: The recorded `InnerStep`s, with leaves `[num_steps, ...]`; None if they were not recorded.
  """

  final: AdaptState
  steps: Any = None

  def points(self) -> Params:
    """The parameters after 0, 1, ... steps, if the steps were recorded: leaves `[num_steps + 1, ...]`."""
    append = lambda before, last: jnp.concatenate([before, last[None]])
    return jax.tree.map(append, self.steps.state.params, self.final.params)


class MetaGradFn(Protocol):
  """The signature of `jax.value_and_grad(has_aux=True)`.

  The value is the query loss at the end point, if the estimator computes it.
  """

  def __call__(
    self, meta_params: MetaParams, task: Task, key: jax.Array
  ) -> tuple[tuple[jax.Array, Aux], MetaParams]: ...


class CarriedMetaGrad(NamedTuple):
  """A meta-gradient that carries state from meta-step to meta-step.

  Attributes:
    init: `(meta_params) -> carry`, for one task slot.
    grad: `(meta_params, task, key, carry) -> (((loss, aux), MetaParams), carry)`.
    in_turn: False: every task of a meta-step has a slot of its own, and they are computed together. True: there is one
      slot. The tasks of a meta-step update it in sequence, and the next meta-step continues from it.
  """

  init: Callable[[MetaParams], PyTree]
  grad: Callable[[MetaParams, Task, jax.Array, PyTree], tuple[tuple[tuple[jax.Array, Aux], MetaParams], PyTree]]
  in_turn: bool = False
