"""Antithetic evolution strategies, and their persistent form over the windows of a long adaptation."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.adaptation import check_inner
from warpjax.checks import check_choice, check_count, check_key, check_learnable
from warpjax.differentiation import constant
from warpjax.meta_gradients.directions import Distribution, directions
from warpjax.numerics import is_finite
from warpjax.problem import Problem, has_prox
from warpjax.types import AdaptState, Aux, CarriedMetaGrad, InnerLoop, MetaGradFn, MetaParams, PyTree, Task

_STREAM = 0xE5E5


class Lifetime(NamedTuple):
  """The state that is passed from window to window.

  Attributes:
    steps_done: Inner steps, 0 before the first window.
    states: The particles' points and optimizer states, leaves `[num_pairs, 2, ...]`.
    total: Each pair's perturbations so far, summed, leaves `[num_pairs, ...]`.
    task: The task that the lifetime began with.
    key: Its key's data.
  """

  steps_done: jax.Array
  states: AdaptState
  total: MetaParams
  task: Task
  key: jax.Array


def evolution_strategies(
  inner: InnerLoop,
  std: float = 0.01,
  num_pairs: int = 1,
  *,
  window: int | None = None,
  task: Task | None = None,
  distribution: Distribution = "normal",
) -> MetaGradFn | CarriedMetaGrad:
  """`sum_i xi_i (L(+)_i - L(-)_i) / (2 std^2 num_pairs)`: differences of losses, no derivative of the inner loop.

  Pair i adapts under `meta_params + e_i` and under `meta_params - e_i`, `e_i ~ N(0, std^2 I)`; xi_i is e_i. With a
  `window` the adaptation continues over several calls, each of which draws a new e_i; xi_i is then their sum over the
  lifetime (PES), which removes the bias of truncation. Unbiased for the meta-loss smoothed by `std`, hence exact in
  expectation if the meta-loss is linear or quadratic in the meta-parameters.

  Args:
    inner: The inner loop, any rule.
    std: Standard deviation of the perturbation of each meta-parameter.
    num_pairs: Antithetic pairs, vmapped.
    window: Inner steps in a call, a divisor of `num_steps`; None for all of them. The loss of a call is the query loss
      at its window's end.
    task: An example of a task, for shapes and dtypes; with a window, a lifetime keeps its first task.
    distribution: The distribution of the perturbations, as for `directions`.

  Returns:
    A `MetaGradFn`; with a `window` a `CarriedMetaGrad`, whose lifetime restarts after `num_steps`. The value is the
    mean over the particles.

  Raises:
    ValueError: when an argument is not allowed.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=2)
    >>> grad_fn = evolution_strategies(inner, 0.5, distribution="rademacher")
    >>> _, grads = grad_fn(wj.MetaParams(jnp.array(0.0)), wj.Task(4.0, 4.0), jax.random.key(0))
    >>> float(grads.initial)
    -0.25

  Reference:
    Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835, algorithm 2.
  """
  num_steps = check_inner(inner)
  _check(num_steps, std, num_pairs, window, task, distribution)
  advance = partial(_window, inner, std, num_pairs, window or num_steps, distribution)
  start = partial(_start, inner, num_pairs)
  if window is not None:
    return CarriedMetaGrad(
      lambda meta_params: start(meta_params, task, jax.random.key(0, impl="threefry2x32")), advance
    )
  return lambda meta_params, task, key: advance(meta_params, task, key, start(meta_params, task, key))[0]


def _start(inner: InnerLoop, num_pairs: int, meta_params: MetaParams, task: Any, key: jax.Array) -> Lifetime:
  """A lifetime that has not begun; only the shapes matter."""
  check_learnable(meta_params)

  def empty(function: Any, tree: PyTree, *axes: int) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros((*axes, *leaf.shape), leaf.dtype), jax.eval_shape(function, tree))

  states = empty(lambda point: Problem(inner, point, task, key).start(), meta_params, num_pairs, 2)
  total, kept_task = empty(lambda point: point, meta_params, num_pairs), empty(lambda example: example, task)
  blank = jnp.zeros_like(jax.random.key_data(key))
  return Lifetime(jnp.zeros((), jnp.int32), states, total, kept_task, blank)


def _window(
  inner: InnerLoop,
  std: float,
  num_pairs: int,
  window: int,
  distribution: Distribution,
  meta_params: MetaParams,
  task: Task,
  key: jax.Array,
  life: Lifetime,
) -> tuple[tuple[tuple[jax.Array, Aux], MetaParams], Lifetime]:
  check_key(key)
  begins = life.steps_done == 0
  choose = partial(jax.tree.map, lambda new, old: jnp.where(begins, new, old))
  task = choose(jax.tree.map(jnp.asarray, constant(task, "the task")), life.task)
  life_key = jax.random.wrap_key_data(choose(jax.random.key_data(key), life.key), impl=jax.random.key_impl(key))
  # The window is in the key: a caller may keep the task's key over a lifetime, as `compose.repeated` does.
  stream = jax.random.fold_in(jax.random.fold_in(key, _STREAM), life.steps_done)
  drawn = directions(stream, meta_params, num_pairs, distribution)
  noise = jax.tree.map(lambda v: (std * v).astype(v.dtype), drawn)
  if not has_prox(inner):  # later windows do not read `initial`; its noise would only add variance
    noise = noise._replace(initial=choose(noise.initial, optax.tree.zeros_like(noise.initial)))
  total = choose(noise, optax.tree.add(life.total, noise))

  def particle(noise: MetaParams, sign: jax.Array, state: AdaptState) -> tuple[AdaptState, tuple[jax.Array, Aux]]:
    point = jax.tree.map(lambda p, e: p + sign.astype(e.dtype) * e, meta_params, noise)
    problem = Problem(inner, point, task, life_key)
    steps = life.steps_done + jnp.arange(window)
    state, _ = jax.lax.scan(
      lambda at, index: (problem.step(at, index).next, None), choose(problem.start(), state), steps
    )
    return state, problem.query_loss(state.params, point.shared, life.steps_done + window)

  both = jax.vmap(jax.vmap(particle, in_axes=(None, 0, 0)), in_axes=(0, None, 0))
  states, (losses, aux) = both(noise, jnp.array([1, -1]), life.states)
  weights = (losses[:, 0] - losses[:, 1]) / (2 * std**2 * num_pairs)
  grads = jax.tree.map(lambda xi: jnp.tensordot(weights.astype(xi.dtype), jnp.conj(xi), axes=1), total)
  value = jax.tree.map(jnp.mean, (losses, aux))
  # A lifetime with a particle that ran away ends.
  steps_done = jnp.where(is_finite((states, losses)), (life.steps_done + window) % inner.num_steps, 0)
  return (value, grads), Lifetime(steps_done, states, total, task, jax.random.key_data(life_key))


def _check(num_steps: int, std: Any, num_pairs: int, window: Any, task: Any, distribution: str) -> None:
  check_count("num_pairs", num_pairs)
  check_choice("distribution", distribution, Distribution)
  if not isinstance(std, (int, float)) or not 0 < std < float("inf"):
    raise ValueError(f"std must be finite and above 0; got {std!r}")
  if window is None:
    if task is not None:
      raise ValueError("task must be None without a window, where each call has its own task; got an example")
    return
  check_count("window", window)
  if num_steps % window:
    raise ValueError(f"window must divide InnerLoop.num_steps, {num_steps}; got {window}")
  if task is None:
    raise ValueError(
      "task must be an example of a task where there is a window, as a lifetime keeps its task; got None"
    )
