"""Evaluation on fixed, seeded lists of tasks: the metric after each inner step, its mean and interval over tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from warpjax.adaptation import check_inner
from warpjax.checks import check_choice, check_count, check_counts, check_key, check_learnable
from warpjax.evaluation import parts
from warpjax.evaluation.parts import Measured
from warpjax.evaluation.readouts import Readout, query_loss
from warpjax.meta_gradients.from_start import Start, begun
from warpjax.meta_gradients.own_parameters import Draw, drawn
from warpjax.problem import Problem
from warpjax.types import AdaptState, InnerLoop, MetaParams, Params, PyTree, Task, TaskSampler

# Names in `Evaluation.summary()`.
_SUMMARY = ("mean", "ci95", "num_tasks", "num_distinct", "per_step", "per_step_ci95", "num_diverged", "diverged_tasks")


class Evaluation(NamedTuple):
  """Per-task results.

  Attributes:
    per_task: The metric after each inner step 0..K, `[num_tasks, num_steps + 1]`, and the metric's own axes behind them
      if it has some; NaN where the loss is not finite.
    others: The metric under each further readout at the end point, `[num_tasks]` and its own axes, by name.
    num_distinct: The number of distinct tasks, if stored tasks were repeated; None if all differ.
  """

  per_task: np.ndarray
  others: dict[str, np.ndarray] = {}
  num_distinct: int | None = None

  def summary(self) -> dict[str, Any]:
    """Mean, 95% interval over tasks, the mean after each step, and the number of diverged tasks, which are excluded.

    A task diverged when its loss or its metric was not finite after any step. Repeated tasks are not new tasks: each
    distinct task counts as the mean of its repeats, and the interval is Student's over distinct tasks.

    Raises:
      ValueError: when the metric has axes of its own, such as margins, which are for `ensemble`.
    """
    if self.per_task.ndim != 2:
      raise ValueError(f"per_task must be [num_tasks, num_steps + 1]; got the shape {self.per_task.shape}")
    finite = np.all(np.isfinite(self.per_task), axis=1)
    kept = np.where(finite[:, None], self.per_task, np.nan)
    per_step, per_step_ci95 = zip(*(over_tasks(column, self.num_distinct) for column in kept.T), strict=True)
    return {
      "mean": per_step[-1],
      "ci95": per_step_ci95[-1],
      "num_tasks": int(self.per_task.shape[0]),
      **({"num_distinct": self.num_distinct} if self.num_distinct else {}),
      "per_step": list(per_step),
      "per_step_ci95": list(per_step_ci95),
      "num_diverged": int(np.sum(~finite)),
      "diverged_tasks": np.flatnonzero(~finite).tolist()[:100],
      **{name: self._other(values) for name, values in self.others.items()},
    }

  def _other(self, values: np.ndarray) -> dict[str, float]:
    mean, ci95 = over_tasks(values, self.num_distinct)
    return {"mean": mean, "ci95": ci95, "num_diverged": int(np.sum(~np.isfinite(values)))}


def over_tasks(values: np.ndarray, num_distinct: int | None = None) -> tuple[float, float]:
  """The mean over test tasks and half the width of its 95% interval; values that are not finite are excluded.

  Args:
    values: One for each task, `[num_tasks]`.
    num_distinct: If stored tasks were repeated, their number: value i is of task `i % num_distinct`, whose
      repeats are averaged, and the interval is Student's over the tasks.

  Returns:
    The mean and the interval; NaN where undefined.

  Example:
    >>> over_tasks(np.array([1.0, 3.0, np.nan, 5.0]), num_distinct=2)[0]  # the mean of 1 and of 3 and 5
    2.5
  """
  if not num_distinct:
    return mean_and_ci95(values[np.isfinite(values)])
  repeats = (values[first::num_distinct] for first in range(num_distinct))
  means = [float(np.mean(part[np.isfinite(part)])) for part in repeats if np.isfinite(part).any()]
  return mean_and_ci95(np.array(means))[0], ci95_of_few(means)


def ci95_of_few(values: Sequence[float] | np.ndarray) -> float:
  """Half the width of Student's 95% interval of the mean of a few values, such as seeds; NaN for one.

  Example:
    >>> round(ci95_of_few([0.0, 1.0, 2.0]), 3)
    2.484
  """
  from scipy import stats

  count = len(values)
  return float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else float("nan")


def mean_and_ci95(values: np.ndarray) -> tuple[float, float]:
  """The mean and half the width of its normal 95% interval, `1.96 std / sqrt(n)`; NaN where undefined.

  Example:
    >>> mean_and_ci95(np.array([1.0, 3.0]))[0]
    2.0
  """
  # In double precision: NumPy sums bfloat16 in bfloat16, where a sum of ones stops at 256.
  values, count = np.asarray(values, np.float64), len(values)
  mean = float(np.mean(values)) if count else float("nan")
  return mean, float(1.96 * np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else float("nan")


def evaluate(
  inner: InnerLoop,
  meta_params: MetaParams,
  sampler: TaskSampler | Task | Iterable[Task],
  key: jax.Array,
  *,
  num_tasks: int,
  tasks_per_batch: int | None = None,
  num_steps: int | None = None,
  metric: str = "accuracy",
  readout: Readout | None = None,
  others: Mapping[str, InnerLoop | Readout] | None = None,
  draw: Draw | None = None,
  start: Start | None = None,
  task_chunk: int | None = None,
  tasks_per_dispatch: int = 200,
) -> Evaluation:
  """Adapts to `num_tasks` tasks and measures after each step.

  Args:
    inner: The inner loop.
    meta_params: The meta-learned parameters.
    sampler: Draws one held-out task, task `i` being a function of (key, i); or tasks of leaves `[n, ...]`, which are
      cycled with new keys, and whose repeats `Evaluation.summary` averages; or an iterable of tasks, or of batches of
      `tasks_per_batch` tasks, whose first `num_tasks` tasks are used.
    key: The evaluation's key: the same key gives the same tasks to every method.
    num_tasks: Number of tasks.
    tasks_per_batch: Tasks in each item of an iterable; None where an item is one task.
    num_steps: Inner steps K; None for the inner loop's own.
    metric: The name in the query loss's aux, or "loss".
    readout: The loss at each point, such as `readouts.running(...)`; None for the inner loop's query loss.
    others: Further readouts, or inner loops that differ in their query loss, for the end point (other statistics).
    draw: Draws the parameters that each task has of its own, as for `meta_gradients.own_parameters`.
    start: The start of each task, as for `meta_gradients.from_start`, made from what `draw` gave.
    task_chunk: Tasks vmapped together; None chooses.
    tasks_per_dispatch: Tasks sampled and adapted in one call.

  Returns:
    An `Evaluation`.

  Raises:
    ValueError: when a count is below 1, `key` is no threefry key, stored tasks have no common first axis, or the query
      loss has no such metric.

  Example:
    >>> import warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=2)
    >>> sampler = lambda key: wj.Task(jnp.array(4.0), jnp.array(4.0))
    >>> meta_params = wj.MetaParams(jnp.array(0.0))
    >>> evaluate(inner, meta_params, sampler, jax.random.key(0), num_tasks=3, metric="loss").summary()["per_step"]
    [8.0, 2.0, 0.5]
  """
  run = evaluator(
    inner,
    num_steps=num_steps,
    metric=metric,
    readout=readout,
    others=others,
    draw=draw,
    start=start,
    task_chunk=task_chunk,
    tasks_per_dispatch=tasks_per_dispatch,
  )
  return run(meta_params, sampler, key, num_tasks, tasks_per_batch=tasks_per_batch)


def ensemble(members: Sequence[Evaluation]) -> Evaluation:
  """The accuracy of the mean of several networks' class probabilities, each network adapted to the task by itself.

  Args:
    members: Evaluations of the same tasks under `losses.margins`, with `metric="margins"`.

  Returns:
    An `Evaluation` of accuracies; a tie with the label is an error, and a task on which a member diverged is NaN.

  Example:
    >>> sure = Evaluation(np.array([[[[0.6, 0.0]]]]))  # one task, one point, one example: the label is the second class
    >>> right = Evaluation(np.array([[[[-0.8, 0.0]]]]))
    >>> ensemble([sure]).per_task.tolist(), ensemble([sure, right]).per_task.tolist()
    ([[0.0]], [[1.0]])
  """

  def accuracy(*margins: np.ndarray) -> np.ndarray:
    mean = np.mean(margins, axis=0)
    real = np.max(mean, axis=-1) > -np.inf  # all are -inf for padding
    right = np.sum(np.sum(mean >= 0, axis=-1) == 1, axis=-1) / np.sum(real, axis=-1)  # the label's own margin is 0
    return np.where(np.isnan(mean).any(axis=(-2, -1)), np.nan, right)

  per_task, others = jax.tree.map(accuracy, *((member.per_task, member.others) for member in members))
  return Evaluation(per_task, others, members[0].num_distinct)


def continued(inner: InnerLoop, meta_params: MetaParams, carry: PyTree) -> tuple[InnerLoop, MetaParams]:
  """An inner loop that starts from the optimizer state at the end of training instead of a fresh one.

  With zero moments, the first steps of Adam all have the same length. Reptile's released code never resets the moments,
  neither between tasks nor for a test task.

  Args:
    inner: The inner loop.
    meta_params: The meta-learned parameters.
    carry: `TrainState.carry` of a meta-gradient that carries the optimizer, leaves `[slots, ...]`; their mean is taken.

  Returns:
    A loop and meta-parameters for `evaluate`; the state rides in the rule's parameters.

  Example:
    >>> import optax, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.from_optax(optax.trace(0.5)), num_steps=1)
    >>> carry = optax.TraceState(jnp.array([1.0, 3.0]))
    >>> inner, meta_params = continued(inner, wj.MetaParams(jnp.array(0.0)), carry)
    >>> float(wj.adapt(inner, meta_params, wj.Task(4.0, 4.0), jax.random.key(0)).final.params)
    -3.0

  Reference:
    Nichol, Achiam, Schulman 2018, arXiv 1803.02999, released code.
  """
  rule = inner.rule
  opt_state = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0).astype(leaf.dtype), carry)

  def transform(rule_params: PyTree) -> optax.GradientTransformationExtraArgs:
    own, start = rule_params
    return optax.GradientTransformationExtraArgs(
      lambda params: start, optax.with_extra_args_support(rule.transform(own)).update
    )

  init = lambda key, params: (rule.init(key, params), opt_state)
  values = lambda rule_params: rule.values(rule_params[0])
  going_on = inner._replace(rule=rule._replace(init=init, transform=transform, values=values))
  return going_on, meta_params._replace(rule=(meta_params.rule, opt_state))


def evaluator(
  inner: InnerLoop,
  *,
  num_steps: int | None = None,
  metric: str = "accuracy",
  readout: Readout | None = None,
  others: Mapping[str, InnerLoop | Readout] | None = None,
  draw: Draw | None = None,
  start: Start | None = None,
  task_chunk: int | None = None,
  tasks_per_dispatch: int = 200,
  at_once: int = 1,
) -> Callable[..., Evaluation]:
  """Makes an `evaluate` that compiles once and can be called many times.

  Args:
    inner: As for `evaluate`, like all arguments below.
    num_steps: Inner steps K.
    metric: The metric.
    readout: The loss at each point.
    others: Further losses at the end point.
    draw: Draws the parameters that each task has of its own.
    start: The start of each task.
    task_chunk: Tasks vmapped together; None chooses.
    tasks_per_dispatch: Tasks in one call, at most.
    at_once: Calls in parallel threads, for the cores of a CPU that one call leaves idle.

  Returns:
    `(meta_params, sampler, key, num_tasks, data=None, report=..., tasks_per_batch=None) -> Evaluation`; `data` is for
    the readout, instead of its own; `report` is called with the number of evaluated tasks, after each call.

  Raises:
    ValueError: when a count is below 1 or a field of `inner` is not allowed; from the function, when `num_tasks` is
      below 1, stored tasks have no common first axis, or the query loss has no such metric.

  Example:
    >>> import warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> run = evaluator(wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1), metric="loss")
    >>> tasks = wj.Task(jnp.array([4.0]), jnp.array([4.0]))
    >>> starts = [wj.MetaParams(jnp.array(start)) for start in (0.0, 2.0)]
    >>> [run(meta_params, tasks, jax.random.key(0), 1).summary()["mean"] for meta_params in starts]
    [2.0, 0.5]
  """
  check_counts(tasks_per_dispatch=tasks_per_dispatch, at_once=at_once)
  check_count("task_chunk", task_chunk, optional=True)
  ends = {name: _other_readout(name, other, inner) for name, other in (others or {}).items()}
  along = readout or query_loss()
  starts = [drawn(draw) if draw else None, start]
  measured = partial(_measure, inner, starts, along, ends, check_inner(inner, num_steps), metric)
  part = jax.jit(partial(parts.measure, measured, task_chunk), static_argnums=5)

  def run(
    meta_params: MetaParams,
    sampler: TaskSampler | Task | Iterable[Task],
    key: jax.Array,
    num_tasks: int,
    data: PyTree | None = None,
    report: Callable[[int], object] = lambda done: None,
    tasks_per_batch: int | None = None,
  ) -> Evaluation:
    check_count("num_tasks", num_tasks)
    check_key(key)
    size = parts.size_of(num_tasks, tasks_per_dispatch, at_once)
    sources, stored = parts.sources(sampler, size, num_tasks, tasks_per_batch)
    readout_data = [along.data if data is None else data, *(other.data for other in ends.values())]
    # The last part is computed whole and cut, so that nothing compiles twice.
    firsts = zip(range(0, num_tasks, size), sources, strict=False)
    calls = ((meta_params, readout_data, source, key, np.int32(first)) for first, source in firsts)
    results = []
    for result in parts.in_order(part, calls, size, at_once):
      results.append(result)
      report(min(len(results) * size, num_tasks))
    curve, rest = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_tasks], *results)
    return Evaluation(curve, rest, stored if stored < num_tasks else None)

  return run


def _other_readout(name: str, other: InnerLoop | Readout, inner: InnerLoop) -> Readout:
  """One of `others`; raises a ValueError for a loop that would adapt otherwise, which it does not do."""
  if name in _SUMMARY:
    raise ValueError(f"others must not use the name {name!r}, which Evaluation.summary() has; rename it")
  if isinstance(other, Readout):
    return other
  for field in ("rule", "num_steps", "batch_fn", "prox"):
    if getattr(other, field) is not getattr(inner, field) and getattr(other, field) != getattr(inner, field):
      raise ValueError(
        f"others[{name!r}] must be inner with another query loss, such as inner._replace(query_loss_fn=...); got "
        f"another {field}: evaluate that loop by itself"
      )
  return query_loss(other)


def _measure(
  inner: InnerLoop,
  starts: Sequence[Start | None],
  readout: Readout,
  others: Mapping[str, Readout],
  num_steps: int,
  metric: str,
  meta_params: MetaParams,
  data: Sequence[PyTree],
  task: Task,
  key: jax.Array,
) -> Measured:
  check_learnable(meta_params, ("initial", "shared"))
  problem = begun(Problem(inner, meta_params, task, key), *starts)
  readouts = [readout, *others.values()]

  def at(readout: Readout, seen: PyTree, params: Params, index: Any) -> jax.Array:
    loss, aux = readout.loss(problem, seen, params, index)
    measured = {**aux, "loss": loss}
    check_choice("metric", metric, measured)
    # A network that has diverged still has an accuracy, since argmax takes NaNs for some class.
    return jnp.where(jnp.isfinite(loss), measured[metric], jnp.nan)

  def body(carry: tuple[AdaptState, list[PyTree], jax.Array], index: jax.Array) -> tuple[Any, None]:
    state, before, curve = carry
    drawn = problem.with_batch(state.params, index)
    step = drawn.step(state, index)
    seen = [each.step(drawn, part, step) for each, part in zip(readouts, before, strict=True)]
    curve = curve.at[index + 1].set(at(readout, seen[0], step.next.params, index + 1))
    return (step.next, seen, curve), None

  state, seen = problem.start(), [each.start(problem, part) for each, part in zip(readouts, data, strict=True)]
  first = at(readout, seen[0], state.params, 0)
  curve = jnp.broadcast_to(first, (num_steps + 1, *first.shape))
  (final, seen, curve), _ = jax.lax.scan(body, (state, seen, curve), jnp.arange(num_steps))
  ends = zip(others.items(), seen[1:], strict=True)
  return curve, {name: at(other, part, final.params, num_steps) for (name, other), part in ends}
