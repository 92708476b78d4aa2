"""`check_learner`: every check on one learner."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from warpjax.adaptation import check_inner
from warpjax.checks import check_count
from warpjax.diagnostics import data, derivatives
from warpjax.diagnostics.report import Report
from warpjax.mistakes import check_meta_params
from warpjax.training.task_batch import as_argument, sample_tasks
from warpjax.types import CarriedMetaGrad, InnerLoop, MetaGradFn, MetaParams, PyTree, Task, TaskSampler

# Tasks whose gradients are taken; the others are only looked at for leaks.
_DIFFERENTIATED = 3


def check_learner(
  inner: InnerLoop,
  meta_params: MetaParams,
  sampler: TaskSampler | Task,
  key: jax.Array,
  *,
  meta_grad: MetaGradFn | CarriedMetaGrad | None = None,
  held_out: TaskSampler | Task | None = None,
  num_tasks: int = 64,
) -> Report:
  """Checks a learner of your own, in double precision: is its meta-gradient right, and are its tasks sound?

  - `finite differences`: the unrolled meta-gradient against differences of the query loss, in three directions.
  - `order`: how far first order is from second order, and whether `meta_grad` is one of the two, or an estimate.
  - `zero leaves`: meta-parameters whose gradient is exactly zero, or only round-off.
  - `rule at zero`: whether the rule's derivative is finite at a zero inner gradient (Adam's needs `eps_root`).
  - `query batch`: whether the loss of a query example depends on the others (batch norm: a transductive result).
  - `keys`: whether keys give tasks that differ; NumPy's random numbers in a sampler are drawn once, when JAX traces it.
  - `examples`: examples that are in a task's support and in its query set.
  - `classes`: query classes that the support set lacks.
  - `held out`: examples of training tasks that are in held-out tasks, for images also rotated: leaked classes.

  Args:
    inner: The inner loop.
    meta_params: The point at which it is checked.
    sampler: Draws a training task; or training tasks, leaves `[num_tasks, ...]`.
    key: The key of tasks and directions.
    meta_grad: The estimator that is trained with; None for the exact one, `unrolled(inner)`.
    held_out: Draws an evaluation task, or is a batch of them; None skips that check.
    num_tasks: Tasks that are searched for leaks; gradients are computed on the first three.

  Returns:
    A `Report`: `print(report)`, `report.ok`, `report["order"]`.

  Raises:
    ValueError: when a field of `inner` is not allowed, or `num_tasks` is below 1.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> network = wj.networks.from_linen(wj.networks.MLP((8,), activation=jnp.tanh))
    >>> params, _ = network.init(jax.random.key(0), jnp.ones((5, 1)))
    >>> inner = wj.InnerLoop(wj.losses.regression(network.apply), wj.rules.sgd(0.1), num_steps=2)
    >>> sampler = wj.tasks.sinusoid.sampler("maml", shots=5, queries=5)
    >>> report = check_learner(inner, wj.MetaParams(params), sampler, jax.random.key(1))
    >>> report.ok, report["finite differences"].status, report["query batch"].status
    (True, 'passed', 'passed')
  """
  check_inner(inner)
  check_meta_params(meta_params)
  check_count("num_tasks", num_tasks)
  task_key, direction_key = jax.random.split(key)
  tasks = _draw(sampler, jax.random.fold_in(task_key, 0), num_tasks)
  others = None if held_out is None else _draw(held_out, jax.random.fold_in(task_key, 1), num_tasks)
  with jax.enable_x64(True):
    point = _in_double_precision(meta_params)
    some = _in_double_precision(jax.tree.map(lambda leaf: leaf[:_DIFFERENTIATED], tasks))
    first = jax.tree.map(lambda leaf: leaf[0], some)
    checks = (
      *derivatives.check(inner, point, some, direction_key, _for_one_task(meta_grad)),
      derivatives.rule_at_zero(inner, point),
      data.query_batch(inner, point, first, direction_key),
    )
  return Report((*checks, data.keys(tasks), data.examples(tasks), data.classes(tasks), data.held_out(tasks, others)))


def _for_one_task(meta_grad: MetaGradFn | CarriedMetaGrad | None) -> MetaGradFn | None:
  if not isinstance(meta_grad, CarriedMetaGrad):
    return meta_grad
  carried = meta_grad
  return lambda meta_params, task, key: carried.grad(meta_params, task, key, carried.init(meta_params))[0]


def _draw(tasks: TaskSampler | Task, key: jax.Array, num_tasks: int) -> Task:
  if isinstance(tasks, Task):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[:num_tasks], tasks)
  return jax.jit(lambda draw, key: sample_tasks(draw, key, num_tasks))(as_argument(tasks), key)


def _in_double_precision(tree: PyTree) -> PyTree:
  is_float = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if is_float(leaf) else jnp.asarray(leaf), tree)
