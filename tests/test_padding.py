"""A padded task is the task: its loss, gradients, adaptation and meta-gradients, and no padding is ever drawn."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import warpjax as wj
from tests import toy
from warpjax import evaluation, losses, meta_gradients, networks, padding, rules
from warpjax.evaluation import readouts, step_statistics
from warpjax.padding import Padded, PaddedInputs, pad, pad_tasks, per_example
from warpjax.tasks import augment
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")


def linear(params, shared, x):
  return x @ params["w"] + params["b"][None] + shared["warp"][:1, :1] * jnp.tanh(x @ params["w"])


def images(count, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((count, 6, 6, 1)), rng.integers(0, 3, count)


def vectors(count, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((count, 2)), rng.integers(0, 3, count)


def real(count, size, seed=0, draw=vectors):
  """Examples, and the same padded."""
  examples = draw(count, seed)
  return examples, pad(*examples, size)


def conv():
  layers = ("conv", "norm", "relu")
  module = networks.Conv4(num_classes=3, width=2, num_blocks=1, layers=layers, param_dtype=jnp.float64)
  network = networks.from_linen(module)
  return network, toy.init(network, jnp.ones((1, 6, 6, 1)))


class Small(nn.Module):
  """Batch norm in little: it compiles fast."""

  @nn.compact
  def __call__(self, x, *, use_running_average=False):
    x = networks.BatchNorm(use_running_average, param_dtype=float)(x)
    return nn.Dense(3, param_dtype=float)(jnp.tanh(x))


def dense():
  network = networks.from_linen(Small())
  return network, toy.init(network, jnp.ones((1, 2)))


def cases():
  """A loss, parameters, and how to draw examples: without batch norm, and with it."""
  network, (params, shared) = conv()
  return {
    "vectors": (losses.classification(per_example(linear)), toy.initial(), toy.shared(), vectors),
    "batch norm": (losses.classification(network.apply), params, shared, images),
  }


@pytest.mark.parametrize("case", ["vectors", "batch norm"])
def test_loss_accuracy_and_gradient(case):
  loss_fn, params, shared, draw = cases()[case]
  examples, padded = real(5, 8, draw=draw)
  of = toy.jit(jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True))
  chex.assert_trees_all_close(of(params, shared, padded), of(params, shared, examples), rtol=1e-10, atol=1e-12)
  other = padded._replace(x=np.where(np.reshape(padded.weights, (-1, *[1] * (padded.x.ndim - 1))), padded.x, 1e3))
  chex.assert_trees_all_close(of(params, shared, other), of(params, shared, examples), rtol=1e-10, atol=1e-12)
  without = of(params, shared, padded._replace(weights=np.ones(8, np.float32)))
  assert abs(without[0][0] - of(params, shared, examples)[0][0]) > 1e-6


def test_adaptation_meta_gradients_and_evaluation():
  (network, (params, shared)), draw = dense(), vectors
  loss_fn = losses.classification(network.apply)
  inner = wj.InnerLoop(loss_fn, rules.meta_sgd(0.1), num_steps=2)
  point = MetaParams(params, shared, toy.jit(inner.rule.init)(toy.key(), params))
  tasks = [Task(draw(n, n), draw(m, 10 + m)) for n, m in ((4, 3), (6, 5))]
  batch = pad_tasks(tasks, query=7)
  assert batch.support.x.shape[:2] == (2, 6) and batch.query.x.shape[:2] == (2, 7)
  estimate = meta_gradients.unrolled(inner)
  both = lambda task, key: (estimate(point, task, key), wj.adapt(inner, point, task, key).final)
  alone, together = toy.jit(both), toy.jit(jax.vmap(both, (0, None)))(batch, toy.key())
  chunked = evaluation.evaluate(inner, point, jax.tree.map(jnp.asarray, batch), toy.key(), num_tasks=2)
  for i, task in enumerate(tasks):
    expected = alone(task, toy.key())
    mine = jax.tree.map(lambda leaf, i=i: leaf[i], together)
    chex.assert_trees_all_close(mine, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(chunked.per_task[i, -1], expected[0][0][1]["accuracy"])


def test_regression_margins_and_non_binary_weights():
  (x, y), padded = real(3, 5)
  targets = np.stack([y, 2.0 * y, -y], -1)
  loss_fn = toy.jit(losses.regression(per_example(linear)))
  weighted = Padded(padded.x, np.stack([padded.y, 2.0 * padded.y, -padded.y], -1), padded.weights)
  args = toy.initial(), {"warp": jnp.ones((3, 3))}
  chex.assert_trees_all_close(loss_fn(*args, weighted), loss_fn(*args, (x, targets)), rtol=1e-12)
  halves = Padded(x, targets, jnp.array([0.5, 0.25, 0.25]))
  each = [float(loss_fn(*args, (x[i : i + 1], targets[i : i + 1]))[0]) for i in range(3)]
  np.testing.assert_allclose(loss_fn(*args, halves)[0], 0.5 * each[0] + 0.25 * (each[1] + each[2]), rtol=1e-12)
  margin = toy.jit(losses.margins(per_example(linear)))
  (loss, aux), (expected, plain) = margin(*args, padded), margin(*args, (x, y))
  np.testing.assert_allclose((loss, aux["accuracy"]), (expected, plain["accuracy"]), rtol=1e-12)
  np.testing.assert_allclose(aux["margins"][:3], plain["margins"])
  members = [
    evaluation.ensemble([evaluation.Evaluation(np.asarray(each["margins"])[None, None])]) for each in (aux, plain)
  ]
  np.testing.assert_array_equal(members[0].per_task, members[1].per_task)


def test_non_transductive_losses_and_statistics():
  network, (params, shared) = dense()
  (support, padded_support), (query, padded_query) = real(4, 7), real(3, 4, 1)
  task, padded = Task(support, query), Task(padded_support, padded_query)
  for loss_fn in (losses.support_plus_one(network.apply), losses.support(network.apply_with_stats)):
    of, expected = toy.jit(jax.grad(loss_fn, has_aux=True)), toy.jit(loss_fn)(params, shared, task)
    chex.assert_trees_all_close(of(params, shared, padded), of(params, shared, task), rtol=1e-9, atol=1e-12)
    for one in (padded, Task(padded_support, query), Task(support, padded_query)):
      chex.assert_trees_all_close(toy.jit(loss_fn)(params, shared, one), expected, rtol=1e-9, atol=1e-12)
  inner = wj.InnerLoop(losses.classification(network.apply), rules.sgd(0.1), num_steps=2)
  point = MetaParams(params, shared)
  readout = readouts.running(network.apply_with_stats, losses.classification)
  stacked = [jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], each) for each in (padded, task)]
  run = evaluation.evaluator(inner, metric="loss", readout=readout)
  curves = [run(point, each, toy.key(), 1).per_task for each in stacked]
  np.testing.assert_allclose(*curves, rtol=1e-6)
  draws = [lambda key, each=each: jax.tree.map(jnp.asarray, each) for each in (padded, task)]
  collect = lambda draw: step_statistics.collect(inner, point, draw, toy.key(), network.apply_with_stats, num_tasks=1)
  collected = map(collect, draws)
  chex.assert_trees_all_close(*collected, rtol=1e-6, atol=1e-7)


def drawn(batch_fn, count, size, steps, keys):
  """The batches of all steps under all keys, of examples that are their own number."""
  support = Padded(jnp.arange(size), jnp.arange(size), (jnp.arange(size) < count).astype(jnp.float32))
  support = support._replace(weights=jnp.roll(support.weights, 2))  # padding in front too
  at = lambda key, step: batch_fn(key, support, step, (), ())
  over = jax.vmap(jax.vmap(at, (None, 0)), (0, None))
  return np.asarray(support.weights), toy.jit(over)(jax.random.split(toy.key(), keys), jnp.arange(steps))


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("make", [wj.minibatch, wj.epochs])
def test_padding_is_never_drawn(make, count):
  weights, batch = drawn(make(3), count, 8, 12, 40)
  assert weights[np.asarray(batch.x)].all()
  np.testing.assert_array_equal(batch.x, batch.y)
  if make is wj.minibatch:
    rows = zip(*(np.asarray(leaf).reshape(-1, 3) for leaf in (batch.x, batch.weights)), strict=True)
    distinct = [len(set(row[seen > 0])) for row, seen in rows]
    assert set(distinct) == {min(count, 3)} and (np.sum(batch.weights, -1) == min(count, 3)).all()
  else:
    assert (batch.weights == 1).all()
    cycles = np.asarray(batch.x).reshape(40, -1)[:, : 36 // count * count]
    if count >= 3:
      for row in cycles.reshape(-1, count):
        assert len(set(row)) == count  # each example once before any twice


@pytest.mark.parametrize("make", [wj.minibatch, wj.epochs])
def test_weights_of_one_change_nothing(make):
  x, y = vectors(6)
  plain = toy.jit(jax.vmap(lambda key: make(4)(key, (jnp.asarray(x), jnp.asarray(y)), 3, (), ())))
  padded = toy.jit(jax.vmap(lambda key: make(4)(key, jax.tree.map(jnp.asarray, pad(x, y, 6)), 3, (), ())))
  keys = jax.random.split(toy.key(), 5)
  chex.assert_trees_all_equal(tuple(padded(keys))[:2], plain(keys))


def test_padded_images_are_augmented():
  batch = pad(*images(2), 4)
  fn = augment.augmented(augment.keyed(wj.full_batch), lambda key, x: (2 * x[0], x[1]))
  (pixels, data), labels, weights = fn(toy.key(), batch, 0, (), ())
  np.testing.assert_array_equal(pixels, 2 * batch.x)
  assert data.shape == (2,) and labels is batch.y and weights is batch.weights
  task = Task(batch, batch)
  assert isinstance(augment.augmented_query(wj.full_query, lambda key, x: x)(toy.key(), task, (), ()), Padded)
  assert augment.keyed_query(wj.full_query)(toy.key(), task, (), ()).x[0] is batch.x


class Normed(nn.Module):
  """flax's own batch norm, with a mask of the module's own."""

  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=False, param_dtype=float)(x, mask=x > -5)


def test_any_linen_batch_norm_is_masked_and_nnx_is_refused():
  network = networks.from_linen(Normed())
  x = toy.draw(0, 5, 3)
  params, shared = toy.init(network, x)
  padded = PaddedInputs(jnp.concatenate([x, 100 + x]), jnp.repeat(jnp.array([1.0, 0.0]), 5))
  apply = toy.jit(network.apply)
  chex.assert_trees_all_close(apply(params, shared, padded)[:5], apply(params, shared, x), rtol=1e-7)
  folded = networks.from_linen(nn.Sequential([lambda x: x.reshape(-1, 1), nn.BatchNorm(use_running_average=False)]))
  with pytest.raises(ValueError, match=r"must see its 10 examples on the first axis; got the shape \(30, 1\)"):
    jax.eval_shape(folded.apply, *jax.eval_shape(folded.init, toy.key(), x), padded)
  plain = networks.from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
  params, shared = toy.init(plain, x)
  apply = toy.jit(plain.apply)
  chex.assert_trees_all_equal(apply(params, shared, padded), apply(params, shared, padded.x))
  normed = networks.from_nnx(lambda rngs: nnx.BatchNorm(3, rngs=rngs))
  params, shared = toy.init(normed, x)
  for call in (normed.apply, lambda params, shared, x: normed.apply_with_stats(params, shared, None, x)):
    with pytest.raises(ValueError, match=r"padded batches must not meet an nnx\.BatchNorm"):
      call(params, shared, padded)
  _, stats = toy.jit(normed.apply_with_stats)(params, shared, None, x.astype(jnp.float32))
  assert jax.eval_shape(normed.apply_with_stats, params, shared, stats, padded)[0].shape == (10, 3)


def test_what_cannot_be_padded_is_refused():
  x, y = vectors(4)
  for size, count in ((3, 4), (3, 0)):
    with pytest.raises(ValueError, match=rf"1 to size=3 examples to be padded; got {count}"):
      pad(x[:count], y[:count], size)
  with pytest.raises(ValueError, match=r"as many examples; got the shapes \[\(4, 2\), \(3,\)\]"):
    pad(x, y[:3], 5)
  with pytest.raises(ValueError, match="at least one task"):
    pad_tasks([])
  tasks = [Task((x, y), (x, y)), Task((x[:2], y[:2]), (x, y))]
  chex.assert_trees_all_equal(pad_tasks(iter(tasks)), pad_tasks(tasks))
  with pytest.raises(ValueError, match=r"must be Task\(\(x, y\), \(x, y\)\); got another in place 1"):
    pad_tasks([Task((x, y), (x, y)), ((x, y), (x, y))])
  with pytest.raises(ValueError, match="support=3 must be at least the support examples of every task; task 1 has 4"):
    pad_tasks(reversed(tasks), support=3)


def test_what_a_loss_is_not_given_rightly_is_refused():
  x, y = vectors(4)
  loss_fn = losses.classification(linear)
  with pytest.raises(
    ValueError, match=r"must be a pair \(x, y\), or padding\.Padded\(x, y, weights\); got a tuple of 3"
  ):
    loss_fn(toy.initial(), toy.shared(), (x, y, np.ones(4)))
  with pytest.raises(TypeError) as caught:
    loss_fn(toy.initial(), toy.shared(), pad(x, y, 5))
  assert "padding.per_example(apply)" in caught.value.__notes__[0]
  with pytest.raises(AttributeError) as caught:
    losses.regression(lambda params, shared, x: x.reshape(-1))((), (), pad(x, x, 5))
  assert "padding.per_example(apply)" in caught.value.__notes__[0]
  with pytest.raises(ValueError, match="PaddedInputs") as caught:
    losses.regression(lambda params, shared, x: jnp.einsum("bi->b", x))((), (), pad(x, x, 5))
  assert any("padding.per_example(apply)" in note for note in caught.value.__notes__)
  assert padding.inputs((x, y)) is x
