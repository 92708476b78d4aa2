"""Meta-training: a state, a step over a batch of tasks, and many steps in one dispatch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.adaptation import check_rule
from warpjax.checks import check_count, check_learnable
from warpjax.mistakes import check_optimizer, check_sampler, check_state, check_step, check_takes
from warpjax.numerics import is_finite
from warpjax.training.task_batch import (
  adapt_keys,
  count_tasks,
  default_task_chunk,
  first_task,
  mean_over_tasks,
  rule_key,
  sample_tasks,
  task_key,
)
from warpjax.types import CarriedMetaGrad, MetaGradFn, MetaParams, PyTree, Task, TaskSampler, UpdateRule

Metrics = dict[str, jax.Array]
Step = Callable[["TrainState", Task], tuple["TrainState", Metrics]]
"""`(state, tasks) -> (state, metrics)`: a `StepFn`, or another function."""


class TrainState(NamedTuple):
  """The state of training.

  Attributes:
    meta_params: What is meta-learned.
    opt_state: The outer optimizer's state.
    step: Meta-steps done, int32.
    key: The run's key; never split, only folded: task `i` of step `s` is a function of (key, s, i).
    carry: State that outlives a task, leaves `[tasks_per_step, ...]`, or `[1, ...]` if it is passed through
      the tasks of a meta-step; `()` for none.
  """

  meta_params: MetaParams
  opt_state: PyTree
  step: jax.Array
  key: jax.Array
  carry: PyTree = ()


# No named tuple, as `jax.jit` needs weak references. Compared by identity, as functions are.
@dataclasses.dataclass(frozen=True, eq=False)
class _OverAxis:
  function: Callable[..., tuple[TrainState, Metrics]]
  axis_name: str | None = None

  @property
  def __wrapped__(self) -> Callable[..., tuple[TrainState, Metrics]]:
    return self.function

  @property
  def __name__(self) -> str:
    return self.function.__name__  # also the name of the compiled program


class StepFn(_OverAxis):
  """A meta-step, `(state, tasks) -> (state, metrics)`.

  Attributes:
    function: The step itself.
    axis_name: The axis that it averages over, None for none; what runs the step checks that the two agree.
  """

  def __call__(self, state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    """One meta-step."""
    return self.function(state, tasks)


class Dispatch(_OverAxis):
  """Several meta-steps in one call, `(state) -> (state, metrics)`, metrics of leaves `[num_steps]`.

  Attributes:
    function: The meta-steps.
    axis_name: As in `StepFn`.
  """

  def __call__(self, state: TrainState) -> tuple[TrainState, Metrics]:
    """The meta-steps."""
    return self.function(state)


def init(
  key: jax.Array,
  rule: UpdateRule,
  params: PyTree,
  shared: PyTree,
  optimizer: optax.GradientTransformation,
  *,
  meta_grad: MetaGradFn | CarriedMetaGrad | None = None,
  tasks_per_step: int | None = None,
) -> TrainState:
  """The state before the first meta-step.

  Args:
    key: The run's key.
    rule: Draws its own parameters for `params`.
    params: Initial task parameters.
    shared: Shared parameters, `()` for none.
    optimizer: The outer optimizer, over the whole `MetaParams`.
    meta_grad: Needed when it carries state, with `tasks_per_step`.
    tasks_per_step: Tasks in a meta-step.

  Returns:
    A `TrainState` at step 0.

  Raises:
    ValueError: when `rule` is no UpdateRule, `key` is no threefry key, a leaf does not hold real or complex numbers (it
      is named by its path), or `meta_grad` carries state and `tasks_per_step` is missing.

  Example:
    >>> import warpjax as wj
    >>> state = init(jax.random.key(0), wj.rules.meta_sgd(0.1), {"w": jnp.zeros(2)}, (), optax.adam(1e-3))
    >>> int(state.step), state.meta_params.rule["w"].tolist()
    (0, [0.1, 0.1])
  """
  check_rule(rule)
  check_optimizer(optimizer)
  if isinstance(params, MetaParams):
    raise ValueError("params must be what adapts; got a MetaParams; pass meta_params.initial")
  # A weak type would be lost after the first step, and the step compiled again.
  strong = partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)))
  check_learnable(MetaParams(params, shared))
  params, shared = strong(params), strong(shared)
  meta_params = MetaParams(params, shared, strong(rule.init(rule_key(key), params)))
  check_learnable(meta_params)
  carry: PyTree = ()
  if isinstance(meta_grad, CarriedMetaGrad):
    if tasks_per_step is None:
      raise ValueError("tasks_per_step must be given for a meta-gradient with state, which has a slot for each task")
    check_count("tasks_per_step", tasks_per_step)
    one = meta_grad.init(meta_params)
    slots = 1 if meta_grad.in_turn else tasks_per_step
    carry = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], slots, axis=0), one)
  return TrainState(meta_params, optimizer.init(meta_params), jnp.zeros((), jnp.int32), key, carry)


def meta_step(
  meta_grad: MetaGradFn | CarriedMetaGrad,
  optimizer: optax.GradientTransformation,
  *,
  axis_name: str | None = None,
  task_chunk: int | None = None,
) -> StepFn:
  """One outer update from a batch of tasks; the meta-gradient is their mean.

  Args:
    meta_grad: For one task; this function vmaps it.
    optimizer: The outer optimizer, over the whole `MetaParams`.
    axis_name: Mesh, pmap or vmap axis that the tasks are spread over; gradients and metrics are averaged over it.
    task_chunk: Vmapped tasks; chunks are computed in sequence. None chooses by backend and task size.

  Returns:
    `(state, tasks) -> (state, metrics)`; `tasks` has leaves `[num_tasks, ...]`. Metrics are scalars: `loss`, the
    means of aux, `grad_norm/<block>`, `param_norm/<block>` after the update, and `finite`, which watches all but aux.

  Raises:
    ValueError: when `task_chunk` is below 1, or tasks that share one state in sequence would be spread over an axis;
      from the function, when the tasks have no common first axis.

  Example:
    >>> import jax, jax.numpy as jnp, optax, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1)
    >>> optimizer = optax.sgd(1.0)
    >>> state = init(jax.random.key(0), inner.rule, jnp.array(0.0), (), optimizer)
    >>> step = jax.jit(meta_step(wj.meta_gradients.unrolled(inner), optimizer))
    >>> state, metrics = step(state, wj.Task(jnp.array([4.0, 8.0]), jnp.array([4.0, 8.0])))
    >>> float(state.meta_params.initial), float(metrics["loss"])
    (1.5, 5.0)
  """
  check_count("task_chunk", task_chunk, optional=True)
  if not isinstance(meta_grad, CarriedMetaGrad):
    check_takes("meta_grad", meta_grad, ("meta_params", "task", "key"))
  check_optimizer(optimizer)
  if isinstance(meta_grad, CarriedMetaGrad) and meta_grad.in_turn and axis_name is not None:
    raise ValueError(
      "axis_name must be None for a meta-gradient whose tasks run in sequence: one state passes through all of them, "
      f"so they cannot be spread over devices; got {axis_name!r}"
    )

  def step(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    check_state(state)
    num_tasks = count_tasks(tasks)
    _check_carry(meta_grad, state, num_tasks)
    keys = adapt_keys(state.key, state.step, first_task(num_tasks, axis_name), num_tasks)
    chunk = task_chunk or default_task_chunk(tasks)
    (loss, aux), grads, carry = mean_over_tasks(meta_grad, state.meta_params, tasks, keys, state.carry, chunk)
    if axis_name is not None:
      loss, aux, grads = jax.lax.pmean((loss, aux, grads), axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.meta_params)
    meta_params = optax.apply_updates(state.meta_params, updates)
    metrics = {**aux, "loss": loss, **norms("grad_norm", grads), **norms("param_norm", meta_params)}
    metrics["finite"] = all_finite(metrics)
    return TrainState(meta_params, opt_state, state.step + 1, state.key, carry), metrics

  return StepFn(step, axis_name)


def many_steps(
  step: Step, sampler: TaskSampler, *, tasks_per_step: int, num_steps: int, axis_name: str | None = None
) -> Dispatch:
  """Meta-steps in one dispatch: tasks are drawn on the device, inside the loop.

  Args:
    step: From `meta_step`.
    sampler: Draws one task; keyed by (state.key, step, task index), so neither a resume nor the number of devices
      changes the data.
    tasks_per_step: Tasks in a meta-step, over all devices.
    num_steps: Meta-steps.
    axis_name: As in `meta_step`.

  Returns:
    `(state) -> (state, metrics)`, metrics of leaves `[num_steps]`.

  Raises:
    ValueError: when a count is below 1 or the step has another `axis_name`; when traced, if the devices cannot share
      the tasks evenly.

  Example:
    >>> import jax, jax.numpy as jnp, optax, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner, optimizer = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1), optax.sgd(1.0)
    >>> step = meta_step(wj.meta_gradients.unrolled(inner), optimizer)
    >>> sampler = lambda key: wj.Task(*2 * [jax.random.normal(key)])
    >>> run = jax.jit(many_steps(step, sampler, tasks_per_step=4, num_steps=3))
    >>> state, metrics = run(init(jax.random.key(0), inner.rule, jnp.array(0.0), (), optimizer))
    >>> int(state.step), metrics["loss"].shape
    (3, (3,))
  """
  check_sampler(sampler)
  check_step(step)
  check_count("tasks_per_step", tasks_per_step)
  check_count("num_steps", num_steps)

  def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if tasks_per_step % devices:
      raise ValueError(f"tasks_per_step must be a multiple of the {devices} devices; got {tasks_per_step!r}")
    local = tasks_per_step // devices
    return step(state, sample_tasks(sampler, task_key(state.key, state.step), local, first_task(local, axis_name)))

  check_averaging_over(axis_name, step)
  return Dispatch(lambda state: jax.lax.scan(body, state, None, length=num_steps), axis_name)


def skip_nonfinite(step: Step) -> StepFn:
  """The step, which skips and counts an update whose loss, meta-gradient or parameters are not finite.

  The carried state of a meta-gradient is still updated, except in slots where it is not finite. Around
  `compose.repeated` it skips all updates of a meta-step. Inside `compose.repeated` it skips a single update.

  Args:
    step: `meta_step(...)`, or a step of its form.

  Returns:
    A step of the same form; metrics also have `skipped`, 1 if the update was skipped.

  Example:
    >>> import jax, jax.numpy as jnp, optax, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1)
    >>> optimizer = optax.sgd(1.0)
    >>> state = init(jax.random.key(0), inner.rule, jnp.array(2.0), (), optimizer)
    >>> step = skip_nonfinite(meta_step(wj.meta_gradients.unrolled(inner), optimizer))
    >>> state, metrics = step(state, wj.Task(jnp.array([jnp.nan]), jnp.array([1.0])))
    >>> float(state.meta_params.initial), int(state.step), int(metrics["skipped"])
    (2.0, 1, 1)
  """

  check_step(step)

  def guarded(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    new, metrics = step(state, tasks)
    learned = lambda state: (state.meta_params, state.opt_state)
    meta_params, opt_state = optax.tree.where(metrics["finite"], learned(new), learned(state))
    # From its old carry a diverged lifetime would diverge again, and every other slot would lose a step.
    slot = lambda after, before: optax.tree.where(is_finite(after), after, before)
    carry = jax.vmap(slot)(new.carry, state.carry) if jax.tree.leaves(state.carry) else new.carry
    kept = new._replace(meta_params=meta_params, opt_state=opt_state, carry=carry)
    return kept, {**metrics, "skipped": 1 - metrics["finite"].astype(jnp.int32)}

  return StepFn(guarded, axis_of(step))


def axis_of(step: Callable[..., Any], otherwise: str | None = None) -> str | None:
  """The axis that a `StepFn` or a `Dispatch` averages over; `otherwise` for a function, which has no such attribute."""
  return step.axis_name if isinstance(step, _OverAxis) else otherwise


def check_averaging_over(axis_name: str | None, step: Callable[..., Any]) -> None:
  """Raises a ValueError for a step over another axis: it would keep one device's result and drop the rest."""
  if (own := axis_of(step, axis_name)) != axis_name:
    raise ValueError(f"axis_name must be the same for the step and what runs it; got {own!r} and {axis_name!r}")


def _check_carry(meta_grad: MetaGradFn | CarriedMetaGrad, state: TrainState, num_tasks: int) -> None:
  if not isinstance(meta_grad, CarriedMetaGrad):
    return
  expected = jax.eval_shape(meta_grad.init, state.meta_params)
  structure: Any = jax.tree.structure(expected)
  how = f"make it by training.init(..., meta_grad=meta_grad, tasks_per_step={num_tasks})"
  if structure != jax.tree.structure(state.carry):
    raise ValueError(f"the state lacks the carry of this meta-gradient; {how}; got {jax.tree.structure(state.carry)}")
  slots = 1 if meta_grad.in_turn else num_tasks
  of_what = "one slot for all tasks" if meta_grad.in_turn else f"a slot for each of the {num_tasks} tasks"
  for slot, leaf in zip(jax.tree.leaves(expected), jax.tree.leaves(state.carry), strict=True):
    if leaf.shape != (slots, *slot.shape):
      raise ValueError(f"the state's carry must have {of_what}, {(slots, *slot.shape)}; {how}; got {leaf.shape}")


def norms(name: str, tree: MetaParams) -> Metrics:
  """The norm of each block that has parameters, as `name/block`."""
  blocks = {block: leaves for block, leaves in tree._asdict().items() if jax.tree.leaves(leaves)}
  return {f"{name}/{block}": optax.tree.norm(leaves) for block, leaves in blocks.items()}


def all_finite(metrics: Metrics) -> jax.Array:
  """Whether the loss and every norm among the metrics are finite."""
  watched = [
    value for name, value in metrics.items() if name == "loss" or name.startswith(("grad_norm/", "param_norm/"))
  ]
  return jnp.all(jnp.stack([jnp.isfinite(value) for value in watched]))
