"""Tasks from Python iterators: the same numbers as from a sampler, one compilation, and one sentence for a mistake."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import evaluation, training
from warpjax.meta_gradients import unrolled
from warpjax.training import parallel, streams
from warpjax.training.task_batch import as_argument, sample_tasks, task_key
from warpjax.types import Task

pytestmark = pytest.mark.usefixtures("strict")

OPTIMIZER = optax.adam(0.1)
LOSS = lambda w, shared, batch: (0.5 * jnp.sum((w - batch) ** 2), {})
INNER = wj.InnerLoop(LOSS, wj.rules.sgd(0.25), num_steps=2)


def sampler(key):
  return Task(*jax.random.normal(key, (2, 3)))


def start():
  return training.init(toy.key(), INNER.rule, jnp.zeros(3), (), OPTIMIZER)


def step(**kwargs):
  return training.meta_step(unrolled(INNER), OPTIMIZER, **kwargs)


class Tensor:
  """What NumPy can read, and nothing else, as a tensor of another library."""

  def __init__(self, values):
    self.values = values

  def __array__(self, dtype=None, copy=None):
    return np.asarray(self.values, dtype)


class Loader:
  """Iterable again and again, as a DataLoader; counts what was read."""

  def __init__(self, items):
    self.items, self.read = items, 0

  def __iter__(self):
    for item in self.items:
      self.read += 1
      yield item


def drawn(count, num_tasks=4):
  """The batches of the meta-steps of `start()`."""
  return [sample_tasks(sampler, task_key(toy.key(), index), num_tasks) for index in range(count)]


def each(convert, tree):
  return jax.tree.map(lambda leaf: convert(np.asarray(leaf)), tree)


KINDS = {
  "jax": lambda items: (item for item in items),
  "numpy": lambda items: [each(np.asarray, item) for item in items],
  "tensors": lambda items: Loader([each(Tensor, item) for item in items]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_of_a_sampler(kind):
  expected, metrics = jax.jit(training.many_steps(step(), sampler, tasks_per_step=4, num_steps=3))(start())
  seen = list(streams.steps(step(), start(), KINDS[kind](drawn(3)), tasks_per_step=4))
  assert [int(state.step) for state, _ in seen] == [1, 2, 3]
  chex.assert_trees_all_close(seen[-1][0].meta_params, expected.meta_params, rtol=1e-12)
  np.testing.assert_allclose([each["loss"] for _, each in seen], metrics["loss"], rtol=1e-12)


@pytest.mark.slow  # of torch's import; quick tests have tensors that are read as torch's are
def test_torch_tensors():
  torch = pytest.importorskip("torch")
  items = [each(torch.tensor, item) for item in drawn(2)]
  state, _ = list(
    streams.steps(step(), start(), torch.utils.data.DataLoader(items, batch_size=None), tasks_per_step=4)
  )[-1]
  expected, _ = list(streams.steps(step(), start(), drawn(2), tasks_per_step=4))[-1]
  chex.assert_trees_all_close(state.meta_params, expected.meta_params)


def test_it_compiles_once_and_reads_as_many_batches_as_it_steps():
  loader = Loader([each(np.asarray, item) for item in drawn(5)])
  traced = chex.assert_max_traces(step(), n=1)
  for count, (state, _) in enumerate(streams.steps(traced, start(), loader, tasks_per_step=4, num_steps=3), 1):
    assert loader.read == count == int(state.step)
  assert loader.read == 3  # none beyond what was asked for


def test_a_run_is_gone_on_with_from_a_state_and_an_iterator():
  items = drawn(4)
  whole = list(streams.steps(step(), start(), items, tasks_per_step=4))
  iterator = iter(items)
  state, _ = next(streams.steps(step(), start(), iterator, tasks_per_step=4))
  again = list(streams.steps(step(), state, iterator, tasks_per_step=4))
  chex.assert_trees_all_equal(again[-1][0].meta_params, whole[-1][0].meta_params)


def test_a_step_over_devices():
  spread = parallel.over_devices(step(axis_name=parallel.DEVICES), parallel.device_mesh(1))
  state, _ = list(streams.steps(spread, start(), [each(np.asarray, item) for item in drawn(2)], tasks_per_step=4))[-1]
  expected, _ = list(streams.steps(step(), start(), drawn(2), tasks_per_step=4))[-1]
  chex.assert_trees_all_close(state.meta_params, expected.meta_params, rtol=1e-12)


BATCH = Task(np.ones((4, 3)), np.ones((4, 3)))
MISTAKES = {
  "one task": ([Task(np.ones(3), np.ones(3))], r"must yield 4 tasks at a time, leaves \[4, \.\.\.\]; got 3\. One task"),
  "no common axis": ([Task(np.ones((4, 3)), np.ones((5, 3)))], r"batches must have leaves \[num_tasks, \.\.\.\]"),
  "other shape": (
    [BATCH, Task(np.ones((4, 5)), np.ones((4, 3)))],
    r"item 1 must have the shapes of the first item; got float64\[4, 5\] for \.support, which was float64\[4, 3\]",
  ),
  "other type": ([BATCH, each(np.float32, BATCH)], r"item 1 .* got float32\[4, 3\] for \.support"),
  "other structure": (
    [BATCH, Task((BATCH.support,), BATCH.query)],
    r"item 1 must have the structure of the first item",
  ),
  "smaller last": ([BATCH, each(lambda leaf: leaf[:2], BATCH)], r"got 2\. .* smaller has to be dropped"),
  "early end": ([BATCH, BATCH], r"must yield as many items as are asked for, 3; it ended after 2"),
  "nothing": ([], r"as many items as are asked for, 3; it ended after 0"),
  "pair": (
    [tuple(BATCH)],
    r"item 0 must be a Task\(support, query\), as \(Task\(\*pair\) for pair in pairs\).*got tuple",
  ),
  "words": ([Task(np.array(["a"] * 4), np.ones(4))], r"item 0\.support must hold numbers; got ndarray of <U1"),
  "objects": ([Task([object()] * 4, np.ones(4))], r"item 0\.support\[0\] must hold numbers; got object of object"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name):
  items, message = MISTAKES[name]
  with pytest.raises(ValueError, match=message):
    list(streams.steps(lambda state, tasks: (state, {}), 0, items, tasks_per_step=4, num_steps=3))


def test_what_numpy_cannot_read_and_what_is_no_iterable():
  class Remote:
    def __array__(self, dtype=None, copy=None):
      raise TypeError("can't convert a device tensor to numpy")

  identity = lambda state, tasks: (state, {})
  with pytest.raises(
    ValueError, match=r"item 0\.query must be an array for np\.asarray: can't convert a device tensor"
  ):
    list(streams.steps(identity, 0, [Task(np.ones(4), Remote())], tasks_per_step=4))
  with pytest.raises(ValueError, match=r"batches must be an iterable of Tasks; got function"):
    streams.steps(identity, 0, sampler, tasks_per_step=4)
  with pytest.raises(ValueError, match=r"must yield as many items as are asked for, 1 at least; it ended after 0"):
    list(streams.steps(identity, 0, [], tasks_per_step=4))
  for kwargs in ({"tasks_per_step": 0}, {"tasks_per_step": 2, "num_steps": 0}):
    with pytest.raises(ValueError, match="must be an integer of at least 1; got 0"):
      streams.steps(identity, 0, [], **kwargs)


@pytest.mark.parametrize("per_dispatch", [2, 200])
def test_evaluation_is_that_of_a_sampler(per_dispatch):
  settings = {"num_tasks": 5, "metric": "loss", "tasks_per_dispatch": per_dispatch}
  point = start().meta_params._replace(initial=jnp.ones(3))
  expected = evaluation.evaluate(INNER, point, sampler, toy.key(), **settings)
  tasks = sample_tasks(sampler, jax.random.fold_in(toy.key(), 0), 7)
  singles = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), tasks) for i in range(7)]
  for items in (singles, iter(singles), Loader([each(Tensor, item) for item in singles])):
    found = evaluation.evaluate(INNER, point, items, toy.key(), **settings)
    np.testing.assert_allclose(found.per_task, expected.per_task, rtol=1e-12)
    assert found.num_distinct is None
  loader = Loader([jax.tree.map(lambda *leaves: np.stack(leaves), *singles[i : i + 2]) for i in (0, 2, 4)])
  found = evaluation.evaluate(INNER, point, loader, toy.key(), tasks_per_batch=2, **settings)
  np.testing.assert_allclose(found.per_task, expected.per_task, rtol=1e-12)
  assert loader.read == 3


def test_mistakes_in_an_evaluation():
  one = Task(np.ones(3), np.ones(3))
  run = lambda items, **kwargs: evaluation.evaluate(
    INNER, start().meta_params, items, toy.key(), num_tasks=4, metric="loss", **kwargs
  )
  for items, kwargs, message in (
    (
      [one] * 3,
      {},
      r"sampler must yield as many items as are asked for, 4; it ended after 3; if .* pass tasks_per_batch=",
    ),
    ([BATCH], {"tasks_per_batch": 3}, r"sampler must yield 3 tasks at a time, .* got 4"),
    ([one, Task(np.ones(2), np.ones(3))], {}, r"sampler, item 1 must have the shapes of the first item"),
    ([(1, 2)], {}, r"sampler, item 0 must be a Task\(support, query\)"),
    (sampler, {"tasks_per_batch": 2}, r"tasks_per_batch must be None but for an iterable of tasks; got 2"),
    ([one], {"tasks_per_batch": 0}, r"tasks_per_batch must be an integer of at least 1; got 0"),
    (7, {}, r"sampler must be an iterable of Tasks; got int"),
  ):
    with pytest.raises(ValueError, match=message):
      run(items, **kwargs)


def test_an_iterator_is_no_sampler():
  iterator = (sampler(key) for key in jax.random.split(toy.key(), 3))
  for call in (
    lambda: sample_tasks(iterator, toy.key(), 2),
    lambda: training.many_steps(step(), iterator, tasks_per_step=2, num_steps=1),
    lambda: as_argument(iterator),
  ):
    with pytest.raises(
      ValueError, match=r"sampler must be a function \(key\) -> Task, traced by JAX; got a generator; streams.steps"
    ):
      call()
