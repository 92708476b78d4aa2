"""Batch norm at evaluation: given statistics, those of the support set, and moving averages over a task's own steps."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import warpjax as wj
from tests import toy
from warpjax import evaluation, losses, networks
from warpjax.evaluation import readouts, step_statistics
from warpjax.training.task_batch import sample_tasks

NUM_STEPS, BATCH, RATE, EPSILON = 4, 6, 0.1, 1e-5
KEY = toy.key(11)


class Normed(nn.Module):
  """Dense, norm, tanh, a warp-layer with a norm of its own, head."""

  momentum: float = 0.9

  @nn.compact
  def __call__(self, x, *, use_running_average=False):
    dense = functools.partial(nn.Dense, param_dtype=float, bias_init=nn.initializers.normal(0.5))
    norm = nn.BatchNorm(
      use_running_average=use_running_average, momentum=self.momentum, epsilon=EPSILON, param_dtype=float, name="norm"
    )
    x = jnp.tanh(norm(dense(3, name="dense")(x)))
    warp = networks.Warp(networks.WarpSpec("linear", batch_norm=True), norm_epsilon=EPSILON, name="warp_0")
    return dense(2, name="head")(warp(x, use_running_average=use_running_average))


class NormedNnx(nnx.Module):
  def __init__(self, rngs):
    self.dense, self.norm, self.head = (
      nnx.Linear(3, 3, rngs=rngs),
      nnx.BatchNorm(3, rngs=rngs),
      nnx.Linear(3, 2, rngs=rngs),
    )

  def __call__(self, x):
    return self.head(jnp.tanh(self.norm(self.dense(x))))


NETWORK = networks.from_linen(Normed())


def normalise(x, norm, stats):
  """By hand: `(normalised, (mean, var))`, under the statistics of x where none are given."""
  mean, var = stats or (x.mean(0), x.var(0))
  return (x - mean) / np.sqrt(var + EPSILON) * norm["scale"] + norm["bias"], (mean, var)


def forward(params, shared, x, stats=(None, None)):
  """`Normed` by hand: `(outputs, statistics of its two norms)`."""
  params, shared, x = jax.tree.map(np.asarray, (params, shared, x))
  h, first = normalise(x @ params["dense"]["kernel"] + params["dense"]["bias"], params["norm"], stats[0])
  h, second = normalise(np.tanh(h), shared["warp_0"]["norm_in_0"], stats[1])
  h = h @ shared["warp_0"]["linear_0"]["kernel"] + shared["warp_0"]["linear_0"]["bias"]
  return h @ params["head"]["kernel"] + params["head"]["bias"], (first, second)


def sampler(key):
  """Every inner step has a batch of its own, shifted and scaled, so that the statistics of the steps differ."""
  x, y, query_x, query_y, scale = (jax.random.fold_in(key, i) for i in range(5))
  scales = 1 + 3 * jax.random.uniform(scale, (NUM_STEPS, 1, 1))
  support = scales * (scales + jax.random.normal(x, (NUM_STEPS, BATCH, 3))), jax.random.normal(y, (NUM_STEPS, BATCH, 2))
  return wj.Task(support, (1 + jax.random.normal(query_x, (5, 3)), jax.random.normal(query_y, (5, 2))))


def batch_fn(key, support, step, params, shared):
  del key, params, shared
  return jax.tree.map(lambda leaf: leaf[step], support)


def loop(network=NETWORK, **kwargs):
  return wj.InnerLoop(losses.regression(network.apply), wj.rules.sgd(RATE), NUM_STEPS, batch_fn, **kwargs)


def meta_params(network=NETWORK):
  return wj.MetaParams(*initialised(network, jax.config.jax_enable_x64))


@functools.cache
def initialised(network, x64):
  return toy.jit(network.init)(toy.key(), jnp.zeros((2, 3)))


def drawn(count):
  """The tasks of an evaluation under `KEY`, as NumPy arrays."""
  return jax.device_get(toy.jit(lambda key: sample_tasks(sampler, jax.random.fold_in(key, 0), count, 0))(KEY))


def by_hand(steps, start, task, momentum, debias):
  """The loss after each step, under a moving average that a Python loop keeps."""
  points = points_of(steps)
  total = [(np.zeros(3), np.zeros(3)), (np.zeros(3), np.zeros(3))]
  weight, curve = 0.0, []
  for k in range(NUM_STEPS + 1):
    params = jax.tree.map(lambda leaf, k=k: leaf[k], points)
    left = 0.0 if debias and k else 1 - weight
    scale = 1 / weight if debias and k else 1.0
    stats = [(scale * mean, scale * var + left) for mean, var in total]
    predictions, _ = forward(params, start.shared, task.query[0], stats)
    curve.append(np.mean((predictions - np.asarray(task.query[1])) ** 2))
    if k < NUM_STEPS:
      _, seen = forward(params, start.shared, task.support[0][k])
      total = [
        tuple((1 - momentum) * old + momentum * new for old, new in zip(*pair, strict=True))
        for pair in zip(total, seen, strict=True)
      ]
      weight = (1 - momentum) * weight + momentum
  return curve


@pytest.mark.parametrize(("momentum", "debias"), [pytest.param(0.1, False, marks=pytest.mark.slow), (0.3, True)])
def test_running_is_the_moving_average_of_each_task_alone(strict, momentum, debias):
  inner, start = loop(), meta_params()
  readout = readouts.running(NETWORK.apply_with_stats, losses.regression, momentum=momentum, debias=debias)
  run = functools.partial(evaluation.evaluate, inner, start, sampler, KEY, num_tasks=3, metric="loss", task_chunk=3)
  found = run(readout=readout, others={"transductive": readouts.query_loss()})
  tasks = drawn(3)
  adapt = toy.jit(lambda task: wj.adapt(inner, start, task, KEY, record=True))
  for i in range(3):  # side by side in one vmap, and none moves another
    task = jax.tree.map(lambda leaf, i=i: leaf[i], tasks)
    np.testing.assert_allclose(found.per_task[i], by_hand(adapt(task), start, task, momentum, debias), rtol=1e-9)
  swapped = run(others={"running": readout})
  np.testing.assert_allclose(swapped.others["running"], found.per_task[:, -1], rtol=1e-12)
  np.testing.assert_allclose(swapped.per_task[:, -1], found.others["transductive"], rtol=1e-12)
  assert np.abs(swapped.per_task[:, -1] - found.per_task[:, -1]).min() > 1e-4


def points_of(steps):
  joined = lambda many, last: np.concatenate([many, np.asarray(last)[None]])
  return jax.tree.map(joined, steps.steps.state.params, steps.final.params)


def test_statistics_by_step_are_from_where_a_task_begins(strict):
  halved = lambda params: params._replace(initial=jax.tree.map(lambda leaf: leaf / 2, params.initial))
  collect = functools.partial(
    step_statistics.collect, loop(), sampler=sampler, key=KEY, apply_with_stats=NETWORK.apply_with_stats, num_tasks=2
  )
  found = collect(meta_params=meta_params(), start=lambda problem: halved(problem.meta_params))
  toy.assert_close(found, collect(meta_params=halved(meta_params())))
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), found, collect(meta_params=meta_params()))
  assert min(jax.tree.leaves(moved)) > 1e-3


def test_by_step_is_the_mean_over_tasks_of_the_statistics_at_each_point(strict):
  inner, start, count = loop(), meta_params(), 3
  stats = step_statistics.collect(inner, start, sampler, KEY, NETWORK.apply_with_stats, num_tasks=count)
  tasks = drawn(count)
  adapt = toy.jit(lambda task: wj.adapt(inner, start, task, KEY, record=True))
  each = [jax.tree.map(lambda leaf, i=i: leaf[i], tasks) for i in range(count)]
  points = [points_of(adapt(task)) for task in each]
  readout = readouts.by_step(NETWORK.apply_with_stats, losses.regression, stats)
  found = evaluation.evaluate(inner, start, sampler, KEY, num_tasks=count, metric="loss", readout=readout)
  for k in range(NUM_STEPS + 1):
    at = [jax.tree.map(lambda leaf, k=k: leaf[k], point) for point in points]
    batch = min(k, NUM_STEPS - 1)  # of the end point, the last
    seen = [forward(p, start.shared, task.support[0][batch])[1] for p, task in zip(at, each, strict=True)]
    first, second = ([np.mean([s[norm][m] for s in seen], axis=0) for m in range(2)] for norm in range(2))
    for name, moment in (("mean", 0), ("var", 1)):
      np.testing.assert_allclose(stats["norm"][name][k], first[moment], rtol=1e-9)
      np.testing.assert_allclose(stats["warp_0"]["norm_in_0"][name][k], second[moment], rtol=1e-9)
    for i, task in enumerate(each):
      predictions, _ = forward(at[i], start.shared, task.query[0], (first, second))
      np.testing.assert_allclose(found.per_task[i, k], np.mean((predictions - task.query[1]) ** 2), rtol=1e-9)


@pytest.mark.parametrize(
  "momentum", [*(pytest.param(momentum, marks=pytest.mark.slow) for momentum in (0.0, 0.9)), 0.99]
)
def test_linen_hands_out_the_statistics_of_the_batch_whatever_its_momentum(strict, momentum):
  network = networks.from_linen(Normed(momentum))
  params, shared = toy.init(network, jnp.zeros((2, 3)))
  x = 2 + 3 * toy.draw(1, 8, 3)
  apply = toy.jit(lambda stats, x: network.apply_with_stats(params, shared, stats, x))
  outputs, stats = apply(None, x)
  expected, (first, second) = forward(params, shared, x)
  np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-10)
  np.testing.assert_allclose(toy.jit(network.apply)(params, shared, x), outputs, rtol=1e-12)
  toy.assert_close(stats["norm"], dict(zip(("mean", "var"), first, strict=True)))
  toy.assert_close(stats["warp_0"]["norm_in_0"], dict(zip(("mean", "var"), second, strict=True)))
  again, same = apply(stats, x[:2])
  np.testing.assert_allclose(again, outputs[:2], rtol=1e-10)
  toy.assert_close(same, stats)


def test_nnx_hands_out_and_takes_statistics():
  network = networks.from_nnx(NormedNnx)
  x = 2 + 3 * toy.draw(1, 8, 3)
  params, shared = toy.init(network, x)
  apply = toy.jit(lambda stats, x: network.apply_with_stats(params, shared, stats, x))
  outputs, stats = apply(None, x)
  np.testing.assert_allclose(outputs, toy.jit(network.apply)(params, shared, x), rtol=1e-5)
  hidden = np.asarray(x @ params["dense"]["kernel"] + params["dense"]["bias"])
  toy.assert_close(stats, {"norm": {"mean": hidden.mean(0), "var": hidden.var(0)}}, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(apply(stats, x[:2])[0], outputs[:2], rtol=1e-4, atol=1e-5)


def test_the_norms_of_warp_layers_are_included():
  warp = networks.WarpSpec("conv3x3", batch_norm=True, residual=True)
  network = networks.from_linen(networks.maml_omniglot(3, width=2, warp=warp))

  def stats(key):
    x = jnp.zeros((4, 28, 28, 1))
    return network.apply_with_stats(*network.init(key, x), None, x)[1]

  found = jax.eval_shape(stats, toy.key())
  assert set(found) == {f"{kind}_{i}" for kind in ("norm", "warp") for i in range(4)}
  assert all(set(found[f"warp_{i}"]) == {"norm_in_0", "norm_out_0"} for i in range(4))


def test_support_is_transductive_where_the_query_set_is_the_support_set(strict):
  params, shared = toy.init(NETWORK, jnp.zeros((2, 3)))
  support, query = (toy.draw(0, 7, 3), toy.draw(1, 7, 2)), (1 + toy.draw(2, 5, 3), toy.draw(3, 5, 2))
  transductive = toy.jit(losses.regression(NETWORK.apply))
  loss_fn = toy.jit(losses.support(NETWORK.apply_with_stats, losses.regression))
  judged, aux = loss_fn(params, shared, wj.Task(support, support))
  np.testing.assert_allclose(judged, transductive(params, shared, support)[0], rtol=1e-10)
  assert aux["mse"] == judged
  judged = loss_fn(params, shared, wj.Task(support, query))[0]
  _, stats = forward(params, shared, support[0])
  expected = np.mean((forward(params, shared, query[0], stats)[0] - np.asarray(query[1])) ** 2)
  np.testing.assert_allclose(judged, expected, rtol=1e-9)
  assert abs(judged - transductive(params, shared, query)[0]) > 1e-3


def test_support_of_classification_gives_accuracy():
  x, labels = toy.draw(0, 6, 3), jnp.array([0, 1, 0, 1, 1, 0])
  params, shared = toy.init(NETWORK, x)
  loss, aux = toy.jit(losses.support(NETWORK.apply_with_stats))(params, shared, wj.Task((x, labels), (x, labels)))
  expected, accuracy = toy.jit(losses.classification(NETWORK.apply))(params, shared, (x, labels))
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  assert aux == accuracy


def test_without_batch_norm_every_choice_is_the_same():
  network = networks.from_linen(networks.MLP(features=(4,), num_outputs=2))
  inner, start = loop(network), meta_params(network)
  params, shared = start.initial, start.shared
  outputs, stats = network.apply_with_stats(params, shared, None, toy.draw(0, 5, 3))
  assert stats == {} and network.apply_with_stats(params, shared, {}, toy.draw(0, 5, 3))[1] == {}
  np.testing.assert_array_equal(outputs, network.apply(params, shared, toy.draw(0, 5, 3)))
  others = {
    "support": inner._replace(
      query_batch_fn=losses.whole_task, query_loss_fn=losses.support(network.apply_with_stats, losses.regression)
    ),
    "running": readouts.running(network.apply_with_stats, losses.regression),
  }
  found = evaluation.evaluate(inner, start, sampler, KEY, num_tasks=2, metric="loss", others=others)
  assert np.isfinite(found.per_task).all()
  for values in found.others.values():
    np.testing.assert_allclose(values, found.per_task[:, -1], rtol=1e-6)


def test_what_gives_no_statistics_is_refused_by_name():
  class Fixed(nn.Module):
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train=True):
      return nn.BatchNorm(use_running_average=not train, momentum=self.momentum, name="norm")(x)

  class Counted(nn.Module):
    @nn.compact
    def __call__(self, x):
      self.variable("batch_stats", "count", lambda: jnp.zeros(()))
      return nn.Dense(2)(x)

  x = toy.draw(0, 4, 3)

  def apply(module, stats=None, **kwargs):
    network = networks.from_linen(module, **kwargs)
    return toy.jit(lambda stats: network.apply_with_stats(*network.init(toy.key(), x), stats, x)[1])(stats)

  stats = apply(Fixed())
  apply(Fixed(), stats, inference_kwargs={"train": False})
  with pytest.raises(ValueError, match=r"Fixed.__call__ has no argument \['use_running_average'\].*'train': False"):
    apply(Fixed(), stats)
  with pytest.raises(
    ValueError, match="batch norm 'norm' must use its batch's statistics; got use_running_average=True"
  ):
    params = toy.init(networks.from_linen(Fixed()), x)
    networks.from_linen(Fixed(), train=False).apply_with_stats(*params, None, x)
  with pytest.raises(ValueError, match=r"momentum of batch norm 'norm' must be at least 0 and below 1; got 1\.0"):
    apply(Fixed(1.0))
  with pytest.raises(ValueError, match=r"must keep statistics only in flax.linen.BatchNorm; got others in"):
    apply(Counted())
  with pytest.raises(ValueError, match="apply_with_stats must be a function; got None"):
    readouts.running(None, losses.regression)
  with pytest.raises(ValueError, match="apply_with_stats must be a function; got None"):
    readouts.by_step(None, losses.regression, {})
  with pytest.raises(ValueError, match="num_tasks must be an integer of at least 1; got 0"):
    step_statistics.collect(loop(), meta_params(), sampler, KEY, NETWORK.apply_with_stats, num_tasks=0)
  for momentum in (0.0, 1.5):
    with pytest.raises(ValueError, match=f"momentum must be above 0 and at most 1; got {momentum}"):
      readouts.running(NETWORK.apply_with_stats, losses.regression, momentum=momentum)
