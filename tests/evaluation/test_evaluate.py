"""Evaluation against numbers worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import losses, rules
from warpjax.evaluation import (
  ci95_of_few,
  continued,
  evaluate,
  evaluator,
  mean_and_ci95,
  over_tasks,
  parts,
  readouts,
)
from warpjax.meta_gradients import drawn as drawn_by
from warpjax.problem import Problem
from warpjax.training.task_batch import sample_tasks
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")

START = MetaParams(jnp.zeros((), jnp.float32))


def loss_fn(params, shared, batch):
  return 0.5 * (params - batch) ** 2, {"target": batch}


def sampler(key):
  """The minimum of the support loss and of the query loss, one number each."""
  support, query = jax.random.normal(key, (2,))
  return Task(support, query)


HALF = rules.sgd(0.5)


def measure(rule=None, num_steps=3, num_tasks=10, metric="target", sampler=sampler, key=None, **kwargs):
  inner = wj.InnerLoop(kwargs.pop("loss_fn", loss_fn), rule or HALF, num_steps)
  rule_params = inner.rule.init(toy.key(), START.initial)
  start, key = START._replace(rule=rule_params), toy.key() if key is None else key
  return evaluate(inner, start, sampler, key, num_tasks=num_tasks, metric=metric, **kwargs)


def test_an_optimizer_state_can_be_gone_on_from():
  """With momentum m, `theta_1 = -rate (g_0 + m t)`, t the mean of what training left."""
  inner = wj.InnerLoop(loss_fn, rules.sgd(0.5, momentum=0.25), num_steps=1)
  fresh = inner.rule.transform(()).init(START.initial)
  left = jax.tree.map(lambda leaf: jnp.array([2.0, 6.0], leaf.dtype), fresh)
  going_on, start = continued(inner, START, left)
  settings = {"num_tasks": 5, "metric": "loss"}
  found = evaluate(going_on, start, sampler, toy.key(), **settings).per_task[:, 1]
  tasks = sample_tasks(sampler, jax.random.fold_in(toy.key(), 0), 5)
  theta = 0.5 * tasks.support - 0.5 * 0.25 * 4.0
  np.testing.assert_allclose(found, 0.5 * (theta - tasks.query) ** 2, rtol=1e-5)
  again = evaluate(*continued(inner, START, jax.tree.map(jnp.zeros_like, left)), sampler, toy.key(), **settings)
  np.testing.assert_array_equal(again.per_task, evaluate(inner, START, sampler, toy.key(), **settings).per_task)


def test_a_task_draws_its_own_start():
  """Without a step the loss is that of what was drawn, `(b - q)^2 / 2`, wherever training left it."""
  loss = lambda params, shared, batch: (0.5 * (params["b"] - batch) ** 2, {})
  inner = wj.InnerLoop(loss, rules.sgd(0.5), num_steps=1)
  draw = lambda key, initial: {"b": jax.random.normal(key, (), initial["b"].dtype)}
  one_task = lambda key: Task(jnp.float32(2.0), jnp.float32(2.0))
  run = evaluator(inner, metric="loss", draw=draw)
  curves = [run(MetaParams({"b": jnp.float32(b)}), one_task, toy.key(), 3).per_task for b in (0.0, 7.0)]
  np.testing.assert_array_equal(*curves)
  assert len(set(curves[0][:, 0].tolist())) == 3
  np.testing.assert_allclose(curves[0][:, 1], curves[0][:, 0] / 4, rtol=1e-5)  # half the way to the target
  keys = [jax.random.fold_in(jax.random.fold_in(toy.key(), 1), i) for i in range(3)]
  drawn = [
    drawn_by(draw)(Problem(inner, MetaParams({"b": jnp.float32(0)}), one_task(key), key)).initial["b"] for key in keys
  ]
  np.testing.assert_allclose(curves[0][:, 0], [0.5 * (float(b) - 2) ** 2 for b in drawn], rtol=1e-5)


def test_the_curve_by_hand():
  """With a rate of 0.5, `theta_k = s (1 - 2^-k)`, and the loss is `(theta_k - q)^2 / 2`."""
  query = measure().per_task[:, :1]
  support = measure(sampler=lambda key: Task(sampler(key).support, sampler(key).support)).per_task[:, :1]
  assert len(set(query.ravel()) | set(support.ravel())) == 20
  expected = (support * (1 - 0.5 ** np.arange(4)) - query) ** 2 / 2
  result = measure(metric="loss")
  np.testing.assert_allclose(result.per_task, expected, rtol=1e-5, atol=1e-7)

  summary, values = result.summary(), result.per_task
  half = 1.96 * np.std(values, axis=0, ddof=1) / np.sqrt(10)
  np.testing.assert_allclose(summary["per_step"], values.mean(0), rtol=1e-6)
  np.testing.assert_allclose(summary["per_step_ci95"], half, rtol=1e-6)
  assert summary["mean"] == summary["per_step"][-1] and summary["ci95"] == summary["per_step_ci95"][-1]
  assert summary["num_tasks"] == 10 and summary["num_diverged"] == 0 and summary["diverged_tasks"] == []


def test_mean_and_interval():
  mean, half = mean_and_ci95(np.array([1.0, 2.0, 6.0]))
  np.testing.assert_allclose((mean, half), (3.0, 1.96 * np.sqrt((4 + 1 + 9) / 2 / 3)))
  assert mean_and_ci95(np.array([2.0]))[0] == 2 and np.isnan(mean_and_ci95(np.array([2.0]))[1])
  assert np.isnan(mean_and_ci95(np.array([]))).all()


def test_continued_values_are_in_their_own_units():
  rule = wj.rules.learned(optax.sgd, positive=("learning_rate",), learning_rate=0.5, momentum=0.25)
  params = jnp.zeros(2)
  meta_params = wj.MetaParams(params, rule=rule.init(toy.key(), params))
  carry = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], rule.transform(meta_params.rule).init(params))
  inner, meta_params = continued(wj.InnerLoop(loss_fn, rule, 1), meta_params, carry)
  values = inner.rule.values(meta_params.rule)
  np.testing.assert_allclose([values["learning_rate"], values["momentum"]], [0.5, 0.25], rtol=1e-6)


@pytest.mark.parametrize("num_tasks", [4, pytest.param(8, marks=pytest.mark.slow), 40])
def test_stored_tasks_that_are_taken_again_are_no_new_tasks(num_tasks):
  """The interval of a loop that draws nothing does not shrink with the repeats, and is Student's over the tasks."""
  targets = jnp.array([0.1, 0.2, 0.4, 0.8])
  inner = wj.InnerLoop(loss_fn, rules.sgd(0.5), 3)
  run = lambda count: evaluate(inner, START, Task(targets, targets), toy.key(), num_tasks=count, metric="loss")
  result = run(num_tasks)
  summary, values = result.summary(), np.asarray(run(4).per_task[:, -1], np.float64)
  half = (1.96 if num_tasks == 4 else 3.1824463) * values.std(ddof=1) / 2  # t with 3 degrees of freedom
  np.testing.assert_allclose([summary["mean"], summary["ci95"]], [values.mean(), half], rtol=1e-6)
  assert summary["num_tasks"] == num_tasks and summary.get("num_distinct") == (None if num_tasks == 4 else 4)


def test_the_mean_of_a_task_is_over_its_finite_repeats():
  values = np.array([1.0, 3.0, 5.0, np.nan, np.nan, 7.0])
  mean, half = over_tasks(values, 3)
  np.testing.assert_allclose([mean, half], [(1 + 3 + 6) / 3, ci95_of_few([1.0, 3.0, 6.0])])
  assert over_tasks(values)[0] == 4.0
  assert over_tasks(np.array([np.nan, 2.0, np.nan, 4.0]), 2)[0] == 3.0  # a task without a finite repeat is left out


def test_other_query_losses_are_measured_at_the_end_point():
  def other(params, shared, batch):
    return jnp.abs(params - batch), {"target": batch + 1}

  inner = wj.InnerLoop(loss_fn, HALF, 3, query_loss_fn=other)
  result = measure(metric="loss", others={"absolute": inner})
  np.testing.assert_allclose(result.others["absolute"], np.sqrt(2 * result.per_task[:, -1]), rtol=1e-4)
  mean, half = mean_and_ci95(result.others["absolute"])
  assert result.summary()["absolute"] == {"mean": mean, "ci95": half, "num_diverged": 0}


def test_what_diverges_under_another_query_loss_alone_is_counted_there():
  broken = lambda params, shared, batch: (jnp.where(batch > 0.5, jnp.nan, 1.0), {})
  result = measure(metric="loss", others={"broken": wj.InnerLoop(loss_fn, HALF, 3, query_loss_fn=broken)})
  bad = int(np.isnan(result.others["broken"]).sum())
  assert 0 < bad < 10 and result.summary()["num_diverged"] == 0
  assert result.summary()["broken"] == {"mean": 1.0, "ci95": 0.0, "num_diverged": bad}


def test_a_diverged_task_is_counted_named_and_left_out():
  """Targets above 0.5 run away after the first step, which the curve shows at its end alone."""

  def diverging(params, shared, batch):
    return jnp.where((batch > 0.5) & (params > 0.6 * batch), jnp.nan, 0.5 * (params - batch) ** 2), {}

  both = lambda key: Task(sampler(key).query, sampler(key).query)
  targets = measure().per_task[:, 0]
  result = measure(metric="loss", loss_fn=diverging, sampler=both)
  bad = targets > 0.5
  assert 0 < bad.sum() < 10
  np.testing.assert_array_equal(np.isnan(result.per_task), bad[:, None] & (np.arange(4) >= 2)[None])
  summary, fine = result.summary(), measure(metric="loss", sampler=both).per_task[~bad]
  assert summary["num_tasks"] == 10 and summary["num_diverged"] == bad.sum()
  assert summary["diverged_tasks"] == np.flatnonzero(bad).tolist()
  np.testing.assert_allclose(summary["per_step"], fine.mean(0), rtol=1e-6)
  np.testing.assert_allclose(summary["ci95"], 1.96 * np.std(fine[:, -1], ddof=1) / np.sqrt(len(fine)), rtol=1e-6)


def test_a_diverged_classifier_is_counted_although_it_has_an_accuracy():
  draw = lambda key: Task(*2 * [(1e3 * jax.random.normal(key, (10, 3)), jnp.arange(10) % 5)])
  inner = wj.InnerLoop(losses.classification(lambda params, shared, x: x @ params), rules.sgd(1e308), 3)
  result = evaluate(inner, MetaParams(jnp.ones((3, 5))), draw, toy.key(), num_tasks=4)
  assert np.isfinite(result.per_task[:, 0]).all() and result.summary()["num_diverged"] == 4


def test_half_precision_metrics_are_averaged_in_double():
  values = np.asarray(jnp.full(600, 0.5, jnp.bfloat16))
  assert mean_and_ci95(np.concatenate([values, 2 * values])) == mean_and_ci95(np.repeat([0.5, 1.0], 600))


def test_when_every_task_diverges_there_is_no_mean():
  summary = measure(sampler=lambda key: Task(jnp.nan, jnp.nan), num_tasks=3, metric="loss").summary()
  assert summary["num_diverged"] == 3 and summary["diverged_tasks"] == [0, 1, 2]
  assert np.isnan(summary["mean"]) and np.isnan(summary["ci95"])


def test_one_key_gives_one_list_of_tasks_to_every_method():
  targets = measure().per_task[:, 0]
  np.testing.assert_array_equal(measure(rules.meta_sgd(0.1), num_steps=1).per_task[:, 0], targets)
  np.testing.assert_array_equal(measure(num_tasks=4).per_task[:, 0], targets[:4])
  assert not set(measure(key=toy.key(8)).per_task[:, 0]) & set(targets)


def test_chunks_change_nothing():
  """With a random inner loop, so that a task that met another's key would show."""

  def noisy(params, shared, batch):
    return 0.5 * (params - batch[0]) ** 2, {}

  draw = lambda key: Task(jax.random.normal(key, (4,)), jax.random.normal(key, (1,)))
  inner = wj.InnerLoop(noisy, rules.sgd(0.5), 3, batch_fn=toy.pair)
  run = lambda **kwargs: evaluate(inner, START, draw, toy.key(), num_tasks=10, metric="loss", **kwargs).per_task
  expected = run(task_chunk=10)
  for chunk, dispatch in ((3, 10), (1, 4), (None, 3)):
    np.testing.assert_allclose(run(task_chunk=chunk, tasks_per_dispatch=dispatch), expected, rtol=1e-5)


@pytest.mark.parametrize(("num_tasks", "at_once"), [pytest.param(10, 2, marks=pytest.mark.slow), (11, 3), (1, 4)])
def test_several_threads_measure_the_same_in_order(num_tasks, at_once):
  """Of an iterable, no more is read ahead than is computed; each task is compiled for once."""
  read, traced, reported = list[int](), [], []
  drawn = jax.device_get(sample_tasks(sampler, toy.key(3), num_tasks))

  def iterable():
    for index in range(num_tasks):
      read.append(index)
      yield jax.tree.map(lambda leaf, index=index: leaf[index], drawn)

  def counting(params, shared, batch):
    traced.append(())
    return loss_fn(params, shared, batch)

  inner = wj.InnerLoop(counting, rules.sgd(0.5), 2)
  alone = evaluator(inner, metric="loss")(START, iterable(), toy.key(), num_tasks).per_task
  count = len(traced)
  read.clear()
  run = evaluator(inner, metric="loss", at_once=at_once)
  size = parts.size_of(num_tasks, 200, at_once)

  def report(done):
    reported.append(done)
    assert len(read) <= min(done - 1 + size * at_once, num_tasks)

  several = run(START, iterable(), toy.key(), num_tasks, report=report).per_task
  np.testing.assert_allclose(several, alone, rtol=1e-5, atol=1e-6)
  assert reported == [min(end, num_tasks) for end in range(size, num_tasks + size, size)]
  assert len(traced) == 2 * count


def test_an_error_of_a_thread_is_that_of_the_call():
  run = evaluator(wj.InnerLoop(loss_fn, rules.sgd(0.5), 2), metric="loss", at_once=2)

  def broken():
    yield from (Task(np.float32(1), np.float32(1)) for _ in range(5))
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    run(START, broken(), toy.key(), 10)


def test_a_batch_is_drawn_once_for_the_step_and_for_what_reads_it():
  """The batch statistics of a step are those of its own batch; XLA would not merge two draws."""
  drawn = list[object]()

  def batch_fn(key, support, step, params, shared):
    drawn.append(step)
    return wj.minibatch(2)(key, support, step, params, shared)

  def with_stats(params, shared, stats, x):
    stats = stats or {"mean": jnp.mean(x), "var": jnp.var(x)}
    return params * (x - stats["mean"]), stats

  loss = losses.regression(lambda params, shared, x: with_stats(params, shared, None, x)[0])
  inner = wj.InnerLoop(loss, rules.sgd(0.5), 3, batch_fn=batch_fn)
  tasks = jax.tree.map(lambda leaf: leaf[None], Task(*2 * [(jnp.arange(4.0), jnp.ones(4))]))
  evaluator(inner, metric="loss", readout=readouts.running(with_stats, losses.regression))(START, tasks, toy.key(), 1)
  in_steps = [step for step in drawn if isinstance(step, jax.core.Tracer)]
  assert len(in_steps) == 1  # of the scan's body; the readout asks for shapes at step 0 once more


def test_an_evaluator_compiles_once():
  traces = []

  def counting(params, shared, batch):
    traces.append(())
    return loss_fn(params, shared, batch)

  run = evaluator(wj.InnerLoop(counting, rules.sgd(0.5), 2), metric="loss", tasks_per_dispatch=4)
  partial = jax.tree_util.Partial(sampler)
  run(START, partial, toy.key(), 10)
  count = len(traces)
  run(START._replace(initial=jnp.ones((), jnp.float32)), partial, toy.key(8), 6)
  assert len(traces) == count > 0


def test_bad_input():
  refusals = {
    "num_tasks must be an integer of at least 1; got 0": {"num_tasks": 0},
    "task_chunk must be None or an integer of at least 1; got 0": {"task_chunk": 0},
    "tasks_per_dispatch must be an integer of at least 1; got 0": {"tasks_per_dispatch": 0},
    "num_steps must be an integer of at least 1; got 0": {"num_steps": 0},
    "metric must be one of 'target', 'loss'; got 'accuracy'": {"metric": "accuracy"},
    r"sampler must have leaves \[num_tasks, \.\.\.\]": {"sampler": Task(jnp.ones(3), jnp.ones(2))},
  }
  for message, arguments in refusals.items():
    with pytest.raises(ValueError, match=message):
      measure(**arguments)


def test_given_tasks_are_taken_in_turn():
  tasks = Task(jnp.array([1.0, 2.0, 3.0]), jnp.array([10.0, 20.0, 30.0]))
  result = measure(sampler=tasks, num_tasks=8, tasks_per_dispatch=5)
  np.testing.assert_array_equal(result.per_task[:, 0], [10, 20, 30, 10, 20, 30, 10, 20])
