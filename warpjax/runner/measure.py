"""Evaluates on the test split, and combines results of several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast

import jax
import numpy as np

from warpjax import evaluation, processor
from warpjax.runner.experiment import Experiment
from warpjax.runner.machine import hosts
from warpjax.runner.reporting import progress, protocol
from warpjax.training import TrainState
from warpjax.types import Task, TaskSampler


class Result(TypedDict, total=False):
  """The contents of `result.json` and `evaluation.json`; further keys have the means with other batch statistics.

  Diverged tasks are counted and listed, and excluded from every mean.
  """

  experiment: str
  method: str
  num_meta_steps: int
  metric: str
  mean: float
  ci95: float
  num_tasks: int
  num_distinct: int
  per_step: list[float]
  per_step_ci95: list[float]
  num_diverged: int
  diverged_tasks: list[int]
  norm_stats: str
  seed: int
  seeds: list[int]
  over_seeds: dict[str, Any]
  over_tasks: dict[str, Any]
  device: str
  num_devices: int
  wall_seconds: float
  skipped: int
  data: dict[str, Any]
  protocol: dict[str, Any]
  provenance: dict[str, Any]
  published: dict[str, Any]
  selected: Any
  init_from: dict[str, Any]
  extended: list[dict[str, Any]]


# Test tasks have a random stream of their own, apart from that of any training seed.
_TEST_STREAM = 0x7E57
MOST_THREADS = 8


def measure(
  experiment: Experiment, state: TrainState, *, members: Sequence[TrainState] = (), num_tasks: int | None = None
) -> tuple[Result, np.ndarray]:
  """Adapts to test tasks, and reports the metric after each inner step.

  Args:
    experiment: The trained experiment.
    state: The trained state.
    members: The other states of an ensemble; their number plus one is `eval.ensemble`.
    num_tasks: Number of test tasks; None for the config's.

  Returns:
    The result, and the metric of each task after each step, `[num_tasks, num_steps + 1]`; row i is the same task for
    every method and training seed.
  """
  run, settings = experiment.run, experiment.evaluation
  if 1 + len(members) != (settings.ensemble or 1):
    raise ValueError(f"members must be {max(settings.ensemble - 1, 0)} states; got {len(members)}")
  measured = _evaluated(experiment, [state, *members], num_tasks or settings.num_tasks)
  result = {
    "experiment": run.experiment,
    "method": run.method,
    "num_meta_steps": int(state.step),
    "metric": experiment.spec.metric,
    **measured.summary(),
    "norm_stats": experiment.norm_stats,
    "seed": run.seed,
    "device": jax.devices()[0].device_kind,
    "data": experiment.data.description,
    "protocol": protocol.card(experiment, len(measured.per_task)),
  }
  published = {"published": experiment.published._asdict()} if experiment.published else {}
  return cast("Result", result | published), measured.per_task


def evaluator(experiment: Experiment, *, metric: str, others: bool = True) -> Callable[..., evaluation.Evaluation]:
  """Makes an evaluator for states of an experiment; it compiles once, for the first state.

  Args:
    experiment: The experiment.
    metric: The metric of a task.
    others: Whether to measure with the other batch statistics too.

  Returns:
    `(state, sampler, key, num_tasks, report=...) -> Evaluation`, as `warpjax.evaluation.evaluator` returns it.
  """
  compiled: Callable[..., evaluation.Evaluation] | None = None

  def run(
    state: TrainState,
    sampler: TaskSampler | Task,
    key: jax.Array,
    num_tasks: int,
    report: Callable[[int], object] = lambda done: None,
  ) -> evaluation.Evaluation:
    nonlocal compiled
    if jax.local_device_count() > 1:  # where the state is on several, each would compute the same
      state = jax.device_put(state, jax.local_devices()[0])
    inner, meta_params = experiment.test_loop(state)
    readout = experiment.readout_of(state)
    if compiled is None:
      compiled = evaluation.evaluator(
        inner,
        num_steps=experiment.evaluation.num_steps,
        metric=metric,
        readout=readout,
        others=experiment.others if others else None,
        start=experiment.start,
        task_chunk=experiment.run.task_chunk or None,
        at_once=_threads(),
      )
    return compiled(meta_params, sampler, key, num_tasks, readout.data, report)

  return run


def _threads() -> int:
  """The cores of a CPU that this process may use, up to `MOST_THREADS`, since each holds its own tasks in memory."""
  if jax.default_backend() != "cpu":
    return 1
  return min(processor.cores(), MOST_THREADS)


def _evaluated(experiment: Experiment, states: Sequence[TrainState], num_tasks: int) -> evaluation.Evaluation:
  settings = experiment.evaluation
  metric = "margins" if settings.ensemble else experiment.spec.metric
  evaluate = evaluator(experiment, metric=metric)
  key = jax.random.fold_in(jax.random.key(settings.seed), _TEST_STREAM)
  evaluated: list[evaluation.Evaluation] = []
  total, name = len(states) * num_tasks, experiment.run.name
  shown = hosts.is_first()
  wait = progress.waiting(f"Evaluating {name} on {total} test tasks", shown=shown)
  with wait, progress.bar(total, 0, name, unit="test tasks", always=False, shown=shown) as report:
    for state in states:
      before = len(evaluated) * num_tasks
      say = lambda done, before=before: report(before + done, {})
      evaluated.append(evaluate(state, experiment.data.test, key, num_tasks, say))
  return evaluation.ensemble(evaluated) if settings.ensemble else evaluated[0]


def combine(results: Sequence[Mapping[str, Any]], per_task: Sequence[np.ndarray]) -> Result:
  """Combines the results of several training seeds, with separate intervals over seeds and over tasks.

  Args:
    results: Results of `measure`, one for each seed.
    per_task: Metrics of each task, one array for each seed, on the same tasks.

  Returns:
    The first result's description, with the mean over seeds in `mean`, `over_seeds` (Student's t) and `over_tasks` (of
    each task's mean over seeds). `ci95` is the interval over seeds, which covers both if there are many test tasks.
    Means with other batch statistics are combined likewise. Diverged tasks are added up.
  """
  means = _means(results)
  ci95 = evaluation.ci95_of_few(means)
  averaged = evaluation.Evaluation(np.mean(per_task, axis=0), num_distinct=results[0].get("num_distinct")).summary()
  num_finite = averaged["num_tasks"] - averaged["num_diverged"]
  kept = ("experiment", "method", "num_meta_steps", "metric", "num_tasks", "num_distinct", "norm_stats", "num_devices")
  card = results[0].get("protocol", {}) | {"seeds": [result["seed"] for result in results]}
  combined = {key: results[0][key] for key in (*kept, "published", "data") if key in results[0]} | {
    "protocol": card,
    "seeds": [result["seed"] for result in results],
    "mean": float(np.mean(means)),
    "ci95": ci95,
    "per_step": averaged["per_step"],
    "over_seeds": {"mean": float(np.mean(means)), "ci95": ci95, "num_seeds": len(means), "means": means.tolist()},
    "over_tasks": {"mean": averaged["mean"], "ci95": averaged["ci95"], "num_tasks": num_finite},
    "num_diverged": sum(result["num_diverged"] for result in results),
    **{name: _over_seeds([result[name] for result in results]) for name in _measured(results)},
    "wall_seconds": sum(result["wall_seconds"] for result in results),
  }
  return cast("Result", combined)


def _means(results: Sequence[Mapping[str, Any]]) -> np.ndarray:
  return np.array([result["mean"] for result in results], float)  # None, if no task was finite, becomes NaN


def _measured(results: Sequence[Mapping[str, Any]]) -> list[str]:
  """The further numbers that every result has, such as those with other batch statistics."""
  has = lambda result, name: isinstance(result.get(name), Mapping) and "mean" in result[name]
  return [name for name in results[0] if all(has(result, name) for result in results)]


def _over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  means = _means(results)
  diverged = sum(each.get("num_diverged", 0) for each in results)
  return {"mean": float(np.mean(means)), "ci95": evaluation.ci95_of_few(means), "num_diverged": diverged}
