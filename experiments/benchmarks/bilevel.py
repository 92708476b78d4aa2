"""Bilevel problems by every estimator, at equal oracle calls: what is learned, and what it costs."""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import cost, count
from experiments.benchmarks.estimators import chosen
from warpjax.adaptation import run_steps
from warpjax.problem import Problem, query_loss_of
from warpjax.runner import workdir
from warpjax.runner.components import outer_step
from warpjax.runner.config import registry, schema
from warpjax.tasks import bilevel_quadratic
from warpjax.types import Aux, CarriedMetaGrad, InnerLoop, MetaParams, PyTree, Task

Row = dict[str, Any]
Measure = Callable[[MetaParams, Task, Task], Mapping[str, jax.Array]]
OPTIMIZERS = {"adam": optax.scale_by_adam, "sgd": optax.identity}
_ENOUGH = 8  # examples of the problem on which evaluations are counted


class Bilevel(NamedTuple):
  """A bilevel problem.

  Attributes:
    inner: Its inner loop.
    start: Where the meta-parameters start; `shared` is learned.
    task: Its task.
    test: The task whose query are the test examples.
    measure: `(meta_params, task, test) -> numbers` after training afresh, `val_loss` among them.
  """

  inner: InnerLoop
  start: MetaParams
  task: Task
  test: Task
  measure: Measure


class Outer(NamedTuple):
  """The outer loop of a problem.

  Attributes:
    rates: Learning rates; the one with the least validation loss is taken.
    seeds: Seeds of the data and of the start; the rate is tuned under the first.
    budget: Oracle calls at most.
    steps: Outer steps at most.
    optimizer: "adam" or "sgd".
    every_rate: Whether every rate is a row, and none is chosen.
    estimators: Names of the estimators; none for all of them.
  """

  rates: Sequence[float]
  seeds: Sequence[int]
  budget: int
  steps: int = sys.maxsize
  optimizer: Literal["adam", "sgd"] = "adam"
  every_rate: bool = False
  estimators: Sequence[str] = ()


def problem_of(table: Mapping[str, Any], inner: Mapping[str, Any], seed: int, data_dir: str | None) -> Bilevel:
  """The problem of the tables `data`, `network` and `inner`, the seed that of the data and the start."""
  data = {**table["data"], **({"split_seed": seed} if table["data"]["name"] == "hyper_cleaning" else {})}
  spec = registry.named("data", {**table, "data": data}, data_dir=data_dir, cache_dir=None)
  network = registry.network(table, spec.num_outputs)
  loss_fn = registry.loss(None, spec.metric)(network.apply)
  own, plain = (spec.loop(registry.inner(each, loss_fn), network, True) for each in (inner, table["inner"]))
  loaded, key = spec.load(), jax.random.key(seed)
  task = jax.jit(loaded.train)(key)
  params, shared = network.init(key, task.support[0])
  measure = _against_the_solution if data["name"] == "bilevel_quadratic" else _trained_afresh
  test = jax.tree.map(lambda leaf: leaf[0], loaded.test)
  return Bilevel(own, MetaParams(params, shared), task, test, partial(measure, plain))


def _trained_afresh(inner: InnerLoop, meta_params: MetaParams, task: Task, test: Task) -> Aux:
  """At the end of training, and `best_accuracy`, the best over all steps on the test examples, as released codes do."""
  problem, query_loss = Problem(inner, meta_params, task, jax.random.key(0)), query_loss_of(inner)
  of_test = lambda params: query_loss(params, meta_params.shared, test.query)[1]
  best = lambda value, step: jnp.maximum(value, of_test(step.next.params)["accuracy"])
  final, best_accuracy, _ = run_steps(problem.step, problem.start(), (best, jnp.zeros(())), last=inner.num_steps)
  val, of_val = query_loss(final.params, meta_params.shared, task.query)
  ended = of_test(final.params)
  measured = {"val_loss": val, "val_accuracy": of_val["accuracy"], "accuracy": ended["accuracy"], "f1": ended["f1"]}
  return {**measured, "best_accuracy": best_accuracy}


def _against_the_solution(inner: InnerLoop, meta_params: MetaParams, task: Task, test: Task) -> Aux:
  """The outer loss at the solved inner problem, less that of the best outer variable, and the distance to that one."""
  del test
  initial = meta_params.initial
  best = bilevel_quadratic.minimum(task, initial, prox=inner.prox)
  value = lambda phi: bilevel_quadratic.query_loss(
    bilevel_quadratic.solution(task, initial, phi, prox=inner.prox), phi, task.query
  )[0]
  off = jnp.linalg.norm(meta_params.shared - best) / jnp.linalg.norm(best)
  return {"val_loss": value(meta_params.shared) - value(best), "relative_error": off}


def rows(
  problems: dict,
  estimators: dict,
  cases: Sequence[str],
  budget: Mapping[str, int],
  rates: Sequence[float],
  seeds: Sequence[int],
  data_dir: str = "",
  runs: str = "",
  only: Sequence[str] = (),
) -> Iterator[Row]:
  """Each estimator on each problem, under each seed; the outer step of all seeds is tuned on the first.

  Args:
    problems: Tables with `data`, `network` and `inner`, and with `outer` if the problem has settings of its own: those
      of `Outer`.
    estimators: Tables with `meta_gradient`, and with the settings of `inner` that differ from the problem's.
    cases: Names of the problems to run.
    budget: Oracle calls, gradients and Hessian-vector products, of the outer steps, by problem.
    rates: Learning rates in the outer loop; the one with the least validation loss is taken.
    seeds: Seeds of the data and of the start.
    data_dir: Folder of prepared data; "" for the default.
    runs: Folder of finished runs, which are read instead of run again; "" for none.
    only: The estimators; none for all.
  """
  for case in cases:
    table = schema.choose("config.cases", case, problems)
    general = {"rates": rates, "seeds": seeds, "budget": budget.get(case, 0), **table.get("outer", {})}
    outer = schema.call(f"config.problems.{case}.outer", general, Outer)
    for name, estimator in chosen(estimators, only or outer.estimators).items():
      run = partial(_kept, runs, case, name, table, estimator, outer, data_dir or None)
      try:
        tuned = run(outer.rates, outer.seeds[0])
      except ValueError as error:
        print(f"{case}: {name} is left out: {error}")
        continue
      if outer.every_rate:
        yield from tuned
        continue
      best = min(tuned, key=lambda row: row["val_loss"] if math.isfinite(row["val_loss"]) else math.inf)
      yield {**best, "tried": ", ".join(f"{row['outer_rate']:g}: {row['val_loss']:.4g}" for row in tuned)}
      for seed in outer.seeds[1:]:
        yield from run((best["outer_rate"],), seed)


def _kept(runs: str, case: str, name: str, *arguments: Any) -> list[Row]:
  """A run, read from the folder of finished runs if it is there."""
  *tables, outer, _, rates, seed = arguments
  told = [*({k: v for k, v in t.items() if k != "outer"} for t in tables), outer.budget, outer.steps, outer.optimizer]
  text = json.dumps([*told, list(rates)], sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()[:8]  # so that settings can change
  path = pathlib.Path(runs, f"{case}-{name}-{seed}-{digest}.json")
  if runs and path.exists():
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in workdir.read_json(path)]
  made = [{"case": case, "method": name, **row} for row in runs_of(*arguments)]
  if runs:
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write_json(path, made)
  return made


def runs_of(
  table: Mapping[str, Any],
  estimator: Mapping[str, Any],
  outer: Outer,
  data_dir: str | None,
  rates: Sequence[float],
  seed: int,
) -> list[Row]:
  """Learns `shared` under each rate until the oracle calls are used up, and measures what was learned.

  The rates share the task, so they are one vmapped program: products with the same examples become one. `seconds` and
  `temp_bytes` are those of the program, for as many rates as `together` says.
  """
  inner = {**table["inner"], **estimator.get("inner", {})}
  calls = oracle_calls(json.dumps([table, estimator, inner]), data_dir)
  problem = problem_of(table, inner, seed, data_dir)
  estimate = meta_grad_of(estimator, problem.inner, problem.task)
  scale = OPTIMIZERS[outer.optimizer]()

  # The task is an argument: as a constant it would be folded into the program.
  def update(rate: jax.Array, point: MetaParams, state: PyTree, carry: PyTree, key: jax.Array, task: Task) -> Any:
    (_, grads), carry = estimate.grad(point, task, key, carry)
    direction, state = scale.update(grads.shared, state)
    shared = jax.tree.map(lambda p, d: p - rate * d, point.shared, direction)
    return point._replace(shared=shared), state, carry, optax.tree.norm(grads.shared)

  each = partial(jax.tree.map, lambda leaf: jnp.broadcast_to(leaf, (len(rates), *jnp.shape(leaf))))
  point, carry, state = each((problem.start, estimate.init(problem.start), scale.init(problem.start.shared)))
  lanes, key = jnp.asarray(rates, jnp.float32), jax.random.key(seed)
  vmapped = jax.jit(jax.vmap(update, (0, 0, 0, 0, None, None)))
  program, known = cost.compiled(vmapped, lanes, point, state, carry, key, problem.task)
  steps, used, began = max(1, min(outer.budget // sum(calls.values()), outer.steps)), 0, time.process_time()
  for index in range(steps):
    point, state, carry, norms = program(lanes, point, state, carry, jax.random.fold_in(key, index), problem.task)
    used = index + 1
    if not (norms > 0).any():  # they say nothing about `shared`, or are not finite
      break
  seconds = time.process_time() - began
  measured = jax.jit(jax.vmap(problem.measure, (0, None, None)))(point, problem.task, problem.test)
  moved = jax.vmap(lambda shared: optax.tree.norm(optax.tree.sub(shared, problem.start.shared), ord=jnp.inf))
  common = {"inner_steps": inner["num_steps"], "outer_steps": used, "seed": seed, "together": len(rates)}
  common |= {column: used * number for column, number in calls.items()}
  common |= {"seconds": seconds, "temp_bytes": known["temp_bytes"]}
  columns = {**measured, "moved": moved(point.shared)}
  return [
    {"outer_rate": rate, **common, **{name: float(values[lane]) for name, values in columns.items()}}
    | {"remark": "" if norms[lane] > 0 else "no gradient of shared" if norms[lane] == 0 else "not finite"}
    for lane, rate in enumerate(rates)
  ]


def meta_grad_of(estimator: Mapping[str, Any], inner: InnerLoop, task: Task) -> CarriedMetaGrad:
  """The estimator of a table, as one that carries a state."""
  made = registry.meta_gradient({"meta_gradient": estimator["meta_gradient"]}, inner)
  estimate: Any = outer_step.resolve(made, task).meta_grad
  if isinstance(estimate, CarriedMetaGrad):
    return estimate
  return CarriedMetaGrad(lambda point: (), lambda point, task, key, carry: (estimate(point, task, key), carry))


@functools.cache
def oracle_calls(tables: str, data_dir: str | None) -> dict[str, int]:
  """The gradients and Hessian-vector products of one outer step, counted on a few examples; `tables` are JSON."""
  table, estimator, inner = json.loads(tables)
  sizes = {name: _ENOUGH for name in ("train", "val", "test") if name in table["data"]}
  problem = problem_of({**table, "data": {**table["data"], **sizes}}, inner, 0, data_dir)
  counter: count.Counter = collections.Counter()
  counted = partial(count.counted, counter=counter)
  loop = problem.inner._replace(
    loss_fn=counted(problem.inner.loss_fn), query_loss_fn=counted(query_loss_of(problem.inner))
  )
  estimate = meta_grad_of(estimator, loop, problem.task)
  carry = estimate.init(problem.start)
  jax.block_until_ready(jax.jit(estimate.grad)(problem.start, problem.task, jax.random.key(0), carry))
  return count.totals(counter)
