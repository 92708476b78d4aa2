"""Meta-steps made of meta-steps: in phases, or repeated on the same tasks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from warpjax.checks import check_count
from warpjax.mistakes import check_step
from warpjax.training.step import Metrics, Step, StepFn, TrainState, axis_of, check_averaging_over
from warpjax.types import Task


def in_phases(until: int, first: Step, then: Step) -> StepFn:
  """Takes `first` in the first `until` meta-steps of a run, and `then` afterwards; only one of them is computed.

  MAML++'s annealing of the derivative's order is `first` with `unrolled(inner, "first_order")`. Both take and give the
  same state, so they differ in how the meta-gradient is obtained, not in what is learned.

  Args:
    until: Meta-steps of the first phase.
    first: From `training.meta_step`.
    then: Likewise; it may itself be in phases.

  Returns:
    `(state, tasks) -> (state, metrics)`.

  Raises:
    ValueError: when `until` is below 1, or the steps average over different axes.

  Example:
    >>> import optax, warpjax as wj
    >>> inner = wj.InnerLoop(lambda w, shared, batch: ((w - batch) ** 2, {}), wj.rules.sgd(0.1), num_steps=5)
    >>> step = lambda order: wj.training.meta_step(wj.meta_gradients.unrolled(inner, order), optax.adam(1e-3))
    >>> annealed = in_phases(25_000, step("first_order"), step("mixed"))

  Reference:
    Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, section 4 (derivative-order annealing).
  """
  check_count("until", until)
  axis_name = axis_of(first)
  check_averaging_over(axis_name, then)

  def step(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    return jax.lax.cond(state.step < until, first, then, state, tasks)

  return StepFn(step, axis_name)


def repeated(step: Step, times: int) -> StepFn:
  """`times` outer updates on the same tasks, as one meta-step; each task keeps its key.

  Args:
    step: From `training.meta_step`, with `truncated_unroll` for the segments of one adaptation. A task keeps its key:
      an estimator that draws only from the key draws the same numbers each time.
    times: Outer updates.

  Returns:
    `(state, tasks) -> (state, metrics)`. Metrics are means over the updates, but `finite` is whether all updates are
    finite, and `skipped` is the number of skipped updates.

  Raises:
    ValueError: when `times` is below 1.

  Example:
    >>> import optax, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner, optimizer = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1), optax.sgd(1.0)
    >>> state = wj.training.init(jax.random.key(0), inner.rule, jnp.array(0.0), (), optimizer)
    >>> step = repeated(wj.training.meta_step(wj.meta_gradients.unrolled(inner), optimizer), 2)
    >>> state, metrics = jax.jit(step)(state, wj.Task(jnp.array([4.0]), jnp.array([4.0])))
    >>> int(state.step), float(state.meta_params.initial)  # 0, 1, 1.75
    (1, 1.75)
  """
  check_step(step)
  check_count("times", times)

  def many(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    number = state.step

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
      after, metrics = step(state, tasks)
      return after._replace(step=number), metrics  # keys are drawn by the step's number

    state, metrics = jax.lax.scan(body, state, None, length=times)
    finite = jnp.all(metrics.pop("finite"))
    counts = {"skipped": jnp.sum(metrics.pop("skipped"))} if "skipped" in metrics else {}
    means: dict[str, Any] = {name: jnp.mean(values) for name, values in metrics.items()}
    return state._replace(step=number + 1), {**means, **counts, "finite": finite}

  return StepFn(many, axis_of(step))
