"""The estimators under test, as a table `name -> (inner) -> meta-gradient`; one's own is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from warpjax.runner.components import outer_step
from warpjax.runner.config import recipes, registry
from warpjax.types import CarriedMetaGrad, InnerLoop, MetaGradFn, MetaParams, Task

Estimator = Callable[[InnerLoop], Any]


def from_tables(tables: Mapping[str, Mapping[str, Any]], example: Any) -> dict[str, Estimator]:
  """The estimators of a config: each table is what `config.meta_gradient` is in an experiment.

  Args:
    tables: By the name shown.
    example: A task, or its shapes.

  Returns:
    `name -> (inner) -> MetaGradFn`.
  """
  return {name: _estimator(recipes.without_none(table), example) for name, table in tables.items()}


def _estimator(table: Mapping[str, Any], example: Any) -> Estimator:
  def make(inner: InnerLoop) -> Any:
    made = registry.named("meta_gradient", {"meta_gradient": table}, inner=inner)
    estimate = outer_step.resolve(made, example).meta_grad
    return over_a_lifetime(estimate, inner.num_steps // table["window"]) if table.get("window") else estimate

  return make


def for_one_task(estimate: Any) -> MetaGradFn:
  """The estimator as a function of one task; a state that it carries starts afresh."""
  return over_a_lifetime(estimate, 1) if isinstance(estimate, CarriedMetaGrad) else estimate


def over_a_lifetime(estimate: CarriedMetaGrad, num_calls: int) -> MetaGradFn:
  """The last of `num_calls` results on one task, the state carried from call to call."""

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array) -> Any:
    def call(carry: Any, index: jax.Array) -> tuple[Any, Any]:
      result, carry = estimate.grad(meta_params, task, jax.random.fold_in(key, index), carry)
      return carry, result

    _, results = jax.lax.scan(call, estimate.init(meta_params), jax.numpy.arange(num_calls))
    return jax.tree.map(lambda leaf: leaf[-1], results)

  return grad_fn
