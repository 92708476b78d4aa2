"""Problems whose exact meta-gradient is known: ill-conditioned regression, the quadratic family, a small network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from warpjax import losses, networks, rules
from warpjax.meta_gradients import unrolled
from warpjax.tasks import quadratic, sinusoid
from warpjax.training.task_batch import adapt_keys, sample_tasks
from warpjax.types import InnerLoop, MetaParams, Task, UpdateRule

Dtype = Literal["float32", "float64"]
Exact = Callable[[Task, jax.Array, int], jax.Array]


class Case(NamedTuple):
  """A problem with its answers.

  Attributes:
    name: Shown in tables.
    inner: The inner loop; a benchmark sets its number of steps.
    meta_params: Where the meta-gradient is taken.
    tasks: Leaves `[num_tasks, ...]`.
    keys: A key for each task.
    exact: `(num_steps) -> MetaParams`, leaves `[num_tasks, ...]`, in double precision.
    dtype: Dtype of the estimators.
  """

  name: str
  inner: InnerLoop
  meta_params: MetaParams
  tasks: Task
  keys: jax.Array
  exact: Callable[[int], MetaParams]
  dtype: Dtype


def linear_regression(
  num_tasks: int = 10,
  dim: int = 50,
  condition_number: float = 100.0,
  prox: float = 0.01,
  momentum: float = 0.0,
  dtype: Dtype = "float64",
  seed: int = 0,
) -> Case:
  """Ill-conditioned regression: the exact meta-gradient is that of the solved proximal problem, in closed form."""
  # Curvatures lie between 1 / condition_number + prox and 1 + prox: the best step size of gradient descent.
  rate = 2 / (1 + 1 / condition_number + 2 * prox)
  inner = InnerLoop(quadratic.loss, rules.sgd(rate, momentum or None), 1, prox=prox)
  exact = lambda task, initial, num_steps: quadratic.implicit_meta_gradient(task, initial, prox=prox)
  return _quadratic("linear_regression", inner, exact, num_tasks, dim, condition_number, dtype, seed)


def quadratic_family(
  num_tasks: int = 10,
  dim: int = 20,
  condition_number: float = 10.0,
  learning_rate: float = 0.1,
  dtype: Dtype = "float64",
  seed: int = 0,
) -> Case:
  """The quadratic family: the exact meta-gradient is that of the same number of steps of descent, in closed form."""
  inner = InnerLoop(quadratic.loss, rules.sgd(learning_rate), 1)
  exact = lambda task, initial, num_steps: quadratic.unrolled_meta_gradient(
    task, initial, learning_rate=learning_rate, num_steps=num_steps
  )
  return _quadratic("quadratic", inner, exact, num_tasks, dim, condition_number, dtype, seed)


def _quadratic(
  name: str, inner: InnerLoop, exact: Exact, num_tasks: int, dim: int, condition: float, dtype: Dtype, seed: int
) -> Case:
  with jax.enable_x64(True):
    key = jax.random.key(seed)
    tasks = sample_tasks(quadratic.sampler(dim, condition_number=condition), key, num_tasks)
    initial, keys = jax.random.normal(jax.random.fold_in(key, num_tasks), (dim,)), adapt_keys(key, 0, 0, num_tasks)

  def known(num_steps: int) -> MetaParams:
    with jax.enable_x64(True):
      return MetaParams(jax.vmap(lambda task: exact(task, initial, num_steps))(tasks))

  point, cast_tasks = _cast((MetaParams(initial), tasks), dtype)
  return Case(name, inner, point, cast_tasks, keys, known, dtype)


def small_network(
  num_tasks: int = 4,
  features: int = 16,
  shots: int = 10,
  learning_rate: float = 0.05,
  prox: float = 1.0,
  reference_steps: int = 400,
  dtype: Dtype = "float32",
  seed: int = 0,
) -> Case:
  """A warped network on sines: the exact meta-gradient is a long unroll in reverse mode and double precision."""
  with jax.enable_x64(True):
    key = jax.random.key(seed)
    tasks = sample_tasks(sinusoid.sampler("maml", shots=shots, queries=shots), key, num_tasks)
    module = networks.MLP(
      features=(features, features), num_outputs=1, activation=jnp.tanh, warp=networks.WarpSpec("linear")
    )
    network = networks.from_linen(module)
    params, shared = network.init(jax.random.fold_in(key, num_tasks), tasks.support[0][0])
    keys = adapt_keys(key, 0, 0, num_tasks)
  inner = InnerLoop(losses.regression(network.apply), rules.sgd(learning_rate), 1, prox=prox)
  point, long = MetaParams(params, shared), inner._replace(num_steps=reference_steps)

  @functools.cache
  def known() -> MetaParams:
    return _reverse(long, point, tasks, keys)

  cast_point, cast_tasks = _cast((point, tasks), dtype)
  return Case("network", inner, cast_point, cast_tasks, keys, lambda num_steps: known(), dtype)


def with_rule(case: Case, rule: UpdateRule) -> Case:
  """The case under another, differentiable rule, whose own parameters are a block of the answer.

  The exact meta-gradient is then an unroll in reverse mode and double precision.
  """
  with jax.enable_x64(True):
    initial = jax.tree.map(lambda leaf: leaf.astype(float), case.meta_params.initial)
    point = MetaParams(initial, case.meta_params.shared, rule.init(jax.random.key(0), initial))
    inner = case.inner._replace(rule=rule)

  def known(num_steps: int) -> MetaParams:
    return _reverse(inner._replace(num_steps=num_steps), point, case.tasks, case.keys)

  return case._replace(inner=inner, meta_params=_cast(point, case.dtype), exact=known)


def _reverse(inner: InnerLoop, point: MetaParams, tasks: Task, keys: jax.Array) -> MetaParams:
  """The exact meta-gradient of each task by plain reverse mode, in double precision."""
  with jax.enable_x64(True):
    return jax.jit(jax.vmap(lambda task, key: unrolled(inner, "reverse")(point, task, key)[1]))(tasks, keys)


def _cast(tree: Any, dtype: Dtype) -> Any:
  with jax.enable_x64(dtype == "float64"):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, tree)


CASES: dict[str, Callable[..., Case]] = {
  "linear_regression": linear_regression,
  "quadratic": quadratic_family,
  "network": small_network,
}
