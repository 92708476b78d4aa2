"""Offline WarpGrad: adapt to a batch of tasks, keep every iterate, and update the warp many times from them.

A meta-step collects, then replays, so checkpoints fall between collections and a replay is never saved.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.adaptation import check_inner
from warpjax.checks import check_choice, check_count, check_key, check_learnable
from warpjax.meta_gradients.leap import leap
from warpjax.meta_gradients.trajectory import Contribution, follow
from warpjax.meta_gradients.warp import check_objective, point_gradient, warp
from warpjax.mistakes import check_optimizer
from warpjax.numerics import cast_like, sums_like
from warpjax.problem import Problem, loss_of
from warpjax.training import optimizers
from warpjax.training.step import Metrics, StepFn, TrainState, all_finite, norms
from warpjax.training.task_batch import adapt_keys, count_tasks, default_task_chunk, first_task, map_tasks, side_by_side
from warpjax.types import AdaptState, Aux, InnerLoop, MetaParams, PyTree, Task

ReplayObjective = Literal["full", "first_order", "released_approx"]
Memory = Literal["device", "host"]

WARP_BLOCKS = ("shared", "rule")
# Apart from the streams of `training`.
_REPLAY_STREAM = 4


class Replay(NamedTuple):
  """What a collection leaves behind.

  Attributes:
    states: Task parameters and optimizer state before each inner step, theta_0 to theta_{K-1}; leaves
      `[num_tasks, num_steps, ...]`.
    tasks: Leaves `[num_tasks, ...]`.
    keys: The key that each task was adapted with, `[num_tasks]`. With it step k draws the same batches again.
      theta_k only depends on the batches before k, so batch k is new to it.
  """

  states: AdaptState
  tasks: Task
  keys: jax.Array


def collect(
  inner: InnerLoop,
  meta_params: MetaParams,
  tasks: Task,
  keys: jax.Array,
  *,
  initial: Contribution | None = None,
  memory: Memory = "device",
  task_chunk: int | None = None,
) -> tuple[Replay, tuple[tuple[jax.Array, Aux], MetaParams]]:
  """Adapts to every task and keeps each iterate.

  Args:
    inner: The inner loop.
    meta_params: Where tasks start, and the warp that they adapt through.
    tasks: Leaves `[num_tasks, ...]`.
    keys: A key for each task, `[num_tasks]`.
    initial: Folded along the adaptation for the gradient of the `initial` block; None for none.
    memory: Where the iterates are stored; see `meta_step`.
    task_chunk: Vmapped tasks; None chooses automatically.

  Returns:
    The replay, and `((loss, aux), gradient)` as a MetaGradFn returns them, means over the tasks: the query loss at the
    end points, and zeros in the blocks that `initial` does not estimate.

  Raises:
    ValueError: when an argument is not allowed.
  """
  num_steps = check_inner(inner)
  _check_initial(inner, initial)
  check_choice("memory", memory, Memory)
  check_key(keys, "keys")
  parts = () if initial is None else (initial,)

  def one(args: tuple[Task, jax.Array]) -> Any:
    problem = Problem(inner, meta_params, *args)
    results, final, states = follow(problem, problem.start(), parts, lambda seen: seen.state)
    value, aux = problem.query_loss(final.params, meta_params.shared, num_steps)
    grads, info = results[0] if results else (optax.tree.zeros_like(meta_params), {})
    return _put(states, memory), ((value, {**aux, **info}), grads)

  chunk = min(task_chunk or default_task_chunk(tasks), keys.shape[0])
  states, results = map_tasks(one, (tasks, keys), chunk)
  return Replay(states, tasks, keys), jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), results)


def meta_step(
  inner: InnerLoop,
  optimizer: optax.GradientTransformation,
  *,
  objective: ReplayObjective = "full",
  eta: int | None = 1,
  initial: Contribution | None = leap(),  # noqa: B008 (a NamedTuple of functions)
  memory: Memory = "device",
  axis_name: str | None = None,
  task_chunk: int | None = None,
) -> StepFn:
  """Collects the iterates of a batch of tasks, updates the warp from them, then the initial parameters once.

  All (task, step) points are drawn without replacement, `eta` at a time; each draw is one update of `shared` and `rule`
  by the mean gradient over its points. With `eta=None`, all points at once, it is the online algorithm,
  `along_trajectory(inner, initial, warp(objective))`.

  Args:
    inner: The inner loop. L_task sees `batch_fn`'s batch, L_meta `query_batch_fn`'s, each point its own.
    optimizer: `optimizers.per_block(...)`. Schedules of `shared` and `rule` count warp updates,
      `num_tasks * num_steps / eta` a meta-step; those of `initial` count meta-steps.
    objective: "full" (Eq. 11), "first_order" (Eq. 12), or "released_approx": the released code's `approx=True`, the
      loss at the stored point on the support batch, no step taken.
    eta: Points of one warp update, over all devices; it must divide the number of points. None for all of them.
    initial: Estimates the `initial` block along the collection: `leap()`, `leap(loss=False, all_segments=False)`
      as the released code has it, `reptile()`; None does not update the block.
    memory: Where the iterates are stored: "device", or "host" memory, from which points are fetched one by one. On a
      CPU the two are the same.
    axis_name: Axis that the tasks are spread over. Each device replays its own tasks and gradients are averaged at
      each warp update, so which points meet in an update depends on the number of devices (unless `eta` is None).
    task_chunk: Vmapped tasks, and vmapped points of an update; None chooses automatically.

  Returns:
    `(state, tasks) -> (state, metrics)`, as `training.meta_step`. `loss` and aux are those of the collection;
    `grad_norm/shared` and `grad_norm/rule` are means over the warp updates.

  Raises:
    ValueError: when an argument is not allowed; from the step, when `eta` does not divide the points, or the optimizer
      is not `per_block`'s, or the objective has nothing to learn (`meta_gradients.warp`).

  Example:
    >>> import jax, jax.numpy as jnp, optax, warpjax as wj
    >>> loss = lambda w, s, batch: ((s * w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.1), num_steps=5)
    >>> optimizer = optimizers.per_block(initial=optax.sgd(0.1), shared=optax.adam(1e-3))
    >>> state = wj.training.init(jax.random.key(0), inner.rule, jnp.array(0.0), jnp.array(1.0), optimizer)
    >>> state, metrics = jax.jit(meta_step(inner, optimizer))(state, wj.Task(*2 * [jnp.array([1.0, 2.0])]))
    >>> int(state.step), int(state.opt_state.shared[0].count)  # 2 tasks of 5 points
    (1, 10)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, algorithm 2.
  """
  _check(inner, objective, eta, initial, memory, task_chunk)
  check_optimizer(optimizer)
  update = optax.with_extra_args_support(optimizer).update

  def apply(carry: tuple[MetaParams, PyTree], grads: MetaParams, blocks: tuple[str, ...]) -> Any:
    grads = _mean_over(axis_name, grads)
    updates, opt_state = update(grads, carry[1], carry[0], blocks=blocks)
    norms = {f"grad_norm/{b}": optax.tree.norm(getattr(grads, b)) for b in blocks if jax.tree.leaves(getattr(grads, b))}
    return (optax.apply_updates(carry[0], updates), opt_state), norms

  def step(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    optimizers.check_per_block(state.opt_state)
    check_learnable(state.meta_params)
    check_objective(inner.rule, state.meta_params, objective)
    num_tasks = count_tasks(tasks)
    keys = adapt_keys(state.key, state.step, first_task(num_tasks, axis_name), num_tasks)
    replay, ((loss, aux), grads) = collect(
      inner, state.meta_params, tasks, keys, initial=initial, memory=memory, task_chunk=task_chunk
    )

    def warp_update(carry: tuple[MetaParams, PyTree], points: jax.Array) -> Any:
      return apply(carry, warp_gradient(inner, carry[0], replay, points, objective, task_chunk), WARP_BLOCKS)

    draws = _draws(state, num_tasks * inner.num_steps, eta, axis_name)
    carry, grad_norms = jax.lax.scan(warp_update, (state.meta_params, state.opt_state), draws)
    metrics = _mean_over(axis_name, {**aux, "loss": loss}) | jax.tree.map(jnp.mean, grad_norms)
    if initial is not None:
      carry, grad_norms = apply(carry, grads, ("initial",))
      metrics |= grad_norms
    metrics |= norms("param_norm", carry[0])
    metrics["finite"] = all_finite(metrics)
    return TrainState(*carry, state.step + 1, state.key, state.carry), metrics

  return StepFn(step, axis_name)


def warp_gradient(
  inner: InnerLoop,
  meta_params: MetaParams,
  replay: Replay,
  points: jax.Array,
  objective: ReplayObjective = "full",
  chunk: int | None = None,
) -> MetaParams:
  """The mean gradient of the warp objective over points of a replay, at the current warp.

  Args:
    inner: The inner loop.
    meta_params: The current warp; `initial` as it was in the collection.
    replay: What was collected.
    points: `task * num_steps + step`, `[eta]`.
    objective: As for `meta_step`.
    chunk: Vmapped points; None chooses automatically.

  Returns:
    A gradient with zeros for `initial`.
  """

  def fetch(point: jax.Array) -> tuple[AdaptState, Task, jax.Array]:
    task, step = point // inner.num_steps, point % inner.num_steps
    state = jax.tree.map(lambda leaf: _slice(leaf, task, step), replay.states)
    return _put(state, "device"), jax.tree.map(lambda leaf: leaf[task], replay.tasks), replay.keys[task]

  def gradient(fetched: tuple[AdaptState, Task, jax.Array], point: jax.Array) -> tuple[PyTree, PyTree]:
    state, task, key = fetched
    problem = Problem(inner, meta_params, task, key)
    if objective == "released_approx":
      return _approximate_gradient(problem, state, point % inner.num_steps)
    return point_gradient(problem, state, point % inner.num_steps, objective)

  size = _divisor(points.shape[0], chunk or default_task_chunk(replay.tasks))

  def add(total: PyTree, part: jax.Array) -> tuple[PyTree, None]:
    grads = side_by_side(gradient)(jax.lax.map(fetch, part), part)
    return jax.tree.map(lambda sums, leaf: sums + jnp.sum(leaf, axis=0, dtype=sums.dtype), total, grads), None

  nothing = optax.tree.zeros_like(meta_params)
  total, _ = jax.lax.scan(add, sums_like((nothing.shared, nothing.rule)), points.reshape(-1, size))
  mean = jax.tree.map(lambda leaf: leaf / points.shape[0], total)
  shared, rule = cast_like(mean, (nothing.shared, nothing.rule))
  return nothing._replace(shared=shared, rule=rule)


def _approximate_gradient(problem: Problem, state: AdaptState, index: jax.Array) -> tuple[PyTree, PyTree]:
  batch, meta_params = problem.batch(state.params, index), problem.meta_params
  shared = jax.grad(lambda warp: loss_of(problem.inner)(state.params, warp, batch)[0])(meta_params.shared)
  return shared, optax.tree.zeros_like(meta_params.rule)


def _put(tree: PyTree, memory: Memory) -> PyTree:
  return jax.device_put(tree, jax.memory.Space.Host if memory == "host" else jax.memory.Space.Device)


def _slice(leaf: jax.Array, task: jax.Array, step: jax.Array) -> jax.Array:
  """`leaf[task, step]` as a slice, which can be read from host memory, where a gather cannot."""
  starts: list[Any] = [task, step, *[0] * (leaf.ndim - 2)]
  return jax.lax.dynamic_slice(leaf, starts, (1, 1, *leaf.shape[2:])).reshape(leaf.shape[2:])


def _mean_over(axis_name: str | None, tree: PyTree) -> PyTree:
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _draws(state: TrainState, num_points: int, eta: int | None, axis_name: str | None) -> jax.Array:
  """All points of this device in a random order, `[updates, points of an update]`."""
  devices, device = (1, 0) if axis_name is None else (jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name))
  size = num_points if eta is None else eta // devices
  if eta is not None and (eta % devices or num_points % max(size, 1)):
    raise ValueError(
      f"eta must divide the {num_points * devices} points (tasks times inner steps) of a collection and be a multiple "
      f"of the number of devices, {devices}; got {eta}"
    )
  key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(state.key, _REPLAY_STREAM), state.step), device)
  return jax.random.permutation(key, num_points).reshape(-1, size)


def _divisor(count: int, most: int) -> int:
  return next(size for size in range(max(1, min(count, most)), 0, -1) if count % size == 0)


def _check(inner: InnerLoop, objective: ReplayObjective, eta: Any, initial: Any, memory: str, task_chunk: Any) -> None:
  check_inner(inner)
  check_choice("objective", objective, ReplayObjective)
  check_choice("memory", memory, Memory)
  _check_initial(inner, initial)
  if objective != "released_approx":
    warp(objective).check(inner)
  for name, count in (("eta", eta), ("task_chunk", task_chunk)):
    check_count(name, count, optional=True)


def _check_initial(inner: InnerLoop, initial: Any) -> None:
  if initial is None:
    return
  if not isinstance(initial, Contribution):
    raise ValueError(f"initial must be None or a Contribution such as leap(); got {initial!r}")
  initial.check(inner)
