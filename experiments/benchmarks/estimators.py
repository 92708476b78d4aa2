"""The estimators under test, as a table `name -> (inner) -> meta-gradient`; your own is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from warpjax.runner.components import outer_step
from warpjax.runner.config import registry, schema
from warpjax.types import CarriedMetaGrad, InnerLoop, MetaGradFn, MetaParams, PyTree, Task

Table = Mapping[str, Any]
Estimator = Callable[[InnerLoop], MetaGradFn | CarriedMetaGrad]


def chosen(tables: Mapping[str, Any], only: Sequence[str]) -> Mapping[str, Any]:
  """The entries that `--only` names; all of them where it names none."""
  return {name: schema.choose("--only", name, tables) for name in only} or tables


def from_tables(tables: Mapping[str, Table], example: PyTree) -> dict[str, Estimator]:
  """The estimators of a config: each table is what `config.meta_gradient` is in an experiment; `example` is a task."""
  return {name: partial(_estimator, table, example) for name, table in tables.items()}


def _estimator(table: Table, example: PyTree, inner: InnerLoop) -> MetaGradFn | CarriedMetaGrad:
  made = registry.meta_gradient({"meta_gradient": table}, inner)
  estimate: Any = outer_step.resolve(made, example).meta_grad
  return over_a_lifetime(estimate, inner.num_steps // table["window"]) if table.get("window") else estimate


def for_one_task(estimate: MetaGradFn | CarriedMetaGrad) -> MetaGradFn:
  """The estimator as a function of one task; a state that it carries starts afresh."""
  return over_a_lifetime(estimate, 1) if isinstance(estimate, CarriedMetaGrad) else estimate


def over_a_lifetime(estimate: CarriedMetaGrad, num_calls: int) -> MetaGradFn:
  """The last of `num_calls` results on one task, the state carried from call to call."""

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array) -> Any:
    def call(carry: PyTree, index: jax.Array) -> tuple[PyTree, Any]:
      result, carry = estimate.grad(meta_params, task, jax.random.fold_in(key, index), carry)
      return carry, result

    _, results = jax.lax.scan(call, estimate.init(meta_params), jax.numpy.arange(num_calls))
    return jax.tree.map(lambda leaf: leaf[-1], results)

  return grad_fn
