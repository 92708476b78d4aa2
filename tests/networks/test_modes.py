"""Users' modules with flags: batch norm that would not normalise is refused, and dropout draws from keys in batches."""

from __future__ import annotations

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import warpjax as wj
from tests import toy
from warpjax import losses, meta_gradients, networks, rules, training
from warpjax.networks import from_linen, from_nnx
from warpjax.tasks import augment

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (6, 3))

_COMPILATIONS: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
  lambda event, duration, **kw: _COMPILATIONS.append(event) if "backend_compile" in event else None
)


class Idiom(nn.Module):
  """The commonest one."""

  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(2)(nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))))


class Block(nn.Module):
  """Given as an argument of the call, two modules down."""

  @nn.compact
  def __call__(self, x, training):
    return nn.BatchNorm(name="norm")(nn.Dense(4)(x), use_running_average=not training)


class Nested(nn.Module):
  @nn.compact
  def __call__(self, x, *, training: bool = False):
    return nn.Dense(2)(nn.remat(Block, static_argnums=(2,))(name="block")(x, training))


class Deterministic(nn.Module):
  @nn.compact
  def __call__(self, x, deterministic=True):
    x = nn.BatchNorm(use_running_average=deterministic)(nn.Dense(4)(x))
    return nn.Dense(2)(nn.Dropout(0.5)(x, deterministic=deterministic))


class HandWritten(nn.Module):
  """A batch norm of the user's own."""

  @nn.compact
  def __call__(self, x, mode=None, is_training=None):
    mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
    return nn.Dense(2)(x - (x.mean(0) if is_training else jax.lax.stop_gradient(mean.value)))


class IdiomNnx(nnx.Module):
  def __init__(self, rngs):
    self.dense, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
    self.head, self.dropout = nnx.Linear(4, 2, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x, train=False):
    x = self.norm(self.dense(x), use_running_average=not train)
    return self.head(self.dropout(x, deterministic=not train))


MODULES = {
  "module": Idiom(),
  "nested": Nested(),
  "deterministic": Deterministic(),
  "hand-written": HandWritten(),
  "nnx": IdiomNnx,
}


@pytest.mark.parametrize(
  ("name", "where", "call"),
  [
    ("module", "BatchNorm_0", "from_linen(module, train=True)"),
    ("nested", "block/norm", "from_linen(module, training=True)"),
    ("deterministic", "BatchNorm_0", "from_linen(module, takes_key=True, deterministic=False)"),
    ("hand-written", "mean", "from_linen(module, is_training=True)"),
    ("nnx", "norm", "from_nnx(factory, takes_key=True, train=True)"),
  ],
)
def test_a_norm_that_would_not_normalise_is_refused_with_the_call_to_write(name, where, call):
  adapt = from_nnx if name == "nnx" else from_linen
  np.asarray(X)
  before = len(_COMPILATIONS)
  with pytest.raises(ValueError, match=rf"statistics that it keeps at \['{where}'\].* Pass {re.escape(call)}, so"):
    adapt(MODULES[name]).init(KEY, X)
  assert len(_COMPILATIONS) == before, "it compiled before it refused"
  network = eval(call, {"from_linen": from_linen, "from_nnx": from_nnx, "module": MODULES[name], "factory": IdiomNnx})
  params, shared = toy.init(network, X)
  apply = toy.jit(network.apply)
  np.testing.assert_allclose(apply(params, shared, X + 5), apply(params, shared, X), atol=1e-4)


class AttributeMode(nn.Module):
  train: bool = False

  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=not self.train)(nn.Dense(4)(x))


class TextMode(nn.Module):
  @nn.compact
  def __call__(self, x, mode="eval"):
    return nn.BatchNorm(use_running_average=mode == "eval")(nn.Dense(4)(x))


@pytest.mark.parametrize(
  ("wrong", "right", "said"),
  [
    (
      AttributeMode(),
      AttributeMode(train=True),
      r"Construct it in training mode, such as AttributeMode\(train=True\)\.",
    ),
    (nn.BatchNorm(True), nn.BatchNorm(False), r"such as BatchNorm\(use_running_average=False\)\."),
    (TextMode(), None, "Pass its mode, if it is one of mode, or use a layer"),
  ],
  ids=["attribute", "layer", "text"],
)
def test_a_mode_that_no_flag_of_the_call_sets_is_refused_with_what_can_be_done(wrong, right, said):
  with pytest.raises(ValueError, match=said):
    from_linen(wrong).init(KEY, X)
  network = from_linen(TextMode(), mode="train") if right is None else from_linen(right)
  jax.eval_shape(network.init, KEY, X)


def test_a_flag_set_to_the_wrong_side_by_hand_is_refused_too():
  with pytest.raises(ValueError, match=r"Pass from_linen\(module, train=True\)"):
    from_linen(Idiom(), train=False).init(KEY, X)
  always = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=True)])
  with pytest.raises(ValueError, match=r"at \['layers_1'\].* Use a layer without them"):
    from_linen(always).init(KEY, X)
  with pytest.raises(ValueError, match=r"at \['batch_stats'\]"):
    from_nnx(lambda rngs: nnx.SpectralNorm(nnx.Linear(3, 2, rngs=rngs), rngs=rngs)).init(KEY, X)


def test_arguments_of_the_call_are_checked():
  with pytest.raises(ValueError, match=r"Idiom.__call__ has no argument training; it has train"):
    from_linen(Idiom(), training=True).init(KEY, X)
  with pytest.raises(ValueError, match=r"Block.__call__ needs training besides x: .* from_linen\(module, training="):
    from_linen(Block()).init(KEY, X)


def test_init_works_inside_jit_and_on_shapes():
  network = from_linen(Idiom(), train=True)
  params, _ = toy.init(network, X)
  chex.assert_trees_all_equal_shapes(params, jax.eval_shape(network.init, KEY, X)[0])


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_batch_norm_frozen_at_given_statistics(name):
  flags = {"train": True, "takes_key": True, "inference_kwargs": {"train": False}}
  network = from_nnx(IdiomNnx, **flags) if name == "nnx" else from_linen(Idiom(), **{**flags, "takes_key": False})
  params, shared = toy.init(network, X)
  stats = toy.jit(lambda x: network.apply_with_stats(params, shared, None, x)[1])(X)
  frozen = toy.jit(lambda x: network.apply_with_stats(params, shared, stats, x)[0])
  whole = frozen(X)
  np.testing.assert_allclose(whole, toy.jit(network.apply)(params, shared, X), atol=1e-3)
  np.testing.assert_allclose(frozen(X[:2]), whole[:2], atol=1e-5)


class Drops(nn.Module):
  """Dropout and batch norm under one flag."""

  rate: float = 0.4

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
    return nn.Dense(2)(nn.Dropout(self.rate, deterministic=not train)(jnp.tanh(x)))


class DropsNnx(nnx.Module):
  def __init__(self, rngs, rate=0.4):
    self.dense, self.head = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
    self.norm, self.first = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(rate, rngs=rngs)
    self.second = nnx.Dropout(rate, rngs=rngs)

  def __call__(self, x):
    return self.head(self.second(jnp.tanh(self.norm(self.dense(self.first(x))))))


class Attends(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.MultiHeadDotProductAttention(1, dropout_rate=0.4, deterministic=False)(x)


DROPS = {
  "linen": from_linen(Drops(), takes_key=True, train=True),
  "attention": from_linen(Attends(), takes_key=True),
  "nnx": from_nnx(DropsNnx, takes_key=True),
  "nnx attention": from_nnx(
    lambda rngs: nnx.MultiHeadAttention(1, 3, dropout_rate=0.4, decode=False, rngs=rngs), takes_key=True
  ),
}


def data(seed):
  return jax.random.key_data(jax.random.key(seed))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "attention" in n else ()) for n in DROPS])
def test_dropout_draws_from_the_key_that_rides_with_x_and_drops_nothing_without(name):
  network, x = DROPS[name], X[None] if "attention" in name else X
  params, shared = toy.init(network, x)
  assert network.takes_key
  apply = toy.jit(lambda x: network.apply(params, shared, x))
  first, other = apply((x, data(0))), apply((x, data(1)))
  np.testing.assert_array_equal(first, apply((x, data(0))))
  assert np.abs(first - other).max() > 1e-2
  np.testing.assert_array_equal(apply(x), apply(x))
  assert np.abs(first - apply(x)).max() > 1e-2


def test_the_linen_key_is_flaxs_dropout_stream():
  network = DROPS["linen"]
  params, _ = toy.init(network, X)
  rngs = {"dropout": jax.random.key(5)}
  expected, _ = Drops().apply({"params": params}, X, train=True, rngs=rngs, mutable=["batch_stats"])
  np.testing.assert_array_equal(network.apply(params, (), (X, data(5))), expected)
  undropped, _ = Drops(rate=0.0).apply({"params": params}, X, train=True, mutable=["batch_stats"])
  np.testing.assert_array_equal(network.apply(params, (), X), undropped)


def test_two_dropouts_of_an_nnx_module_draw_apart():
  network = from_nnx(
    lambda rngs: nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), *[nnx.Dropout(0.5, rngs=rngs) for _ in range(2)]),
    takes_key=True,
  )
  params, shared = toy.init(network, X)
  kept = np.mean(toy.jit(network.apply)(params, shared, (jnp.tile(X, (50, 1)), data(0))) != 0)
  assert 0.2 < kept < 0.3  # a quarter; half if both had one mask


def test_draws_that_nothing_asked_for_and_keys_that_nothing_reads_are_refused():
  with pytest.raises(ValueError, match=r"draws random numbers.*from_linen\(module, takes_key=True, train=True\)"):
    from_linen(Drops(), train=True).init(KEY, X)
  with pytest.raises(ValueError, match=r"draws random numbers.*from_nnx\(factory, takes_key=True\)"):
    from_nnx(DropsNnx).init(KEY, X)

  class Off(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return nn.Dropout(0.5, deterministic=not train)(nn.Dense(2)(x))

  with pytest.raises(ValueError, match=r"draws nothing as it is called: pass from_linen\(module, takes_key=True, tr"):
    from_linen(Off(), takes_key=True).init(KEY, X)
  jax.eval_shape(from_linen(Off()).init, KEY, X)  # a network without dropout, which is no error
  swept_to_zero = Drops(rate=0.0)
  jax.eval_shape(from_linen(swept_to_zero, takes_key=True, train=True).init, KEY, X)

  class Noise(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(2)(x) + jax.random.normal(self.make_rng("noise"), (2,))

  with pytest.raises(ValueError, match=r"draws .* without a key too.*has_rng\('dropout'\)"):
    from_linen(Noise(), takes_key=True).init(KEY, X)


@pytest.mark.parametrize(
  "factory",
  [
    lambda rngs: nnx.RNN(nnx.LSTMCell(3, 4, rngs=rngs), rngs=rngs),
    pytest.param(lambda rngs: nnx.RNN(nnx.GRUCell(3, 4, rngs=rngs), rngs=rngs), marks=pytest.mark.slow),
    lambda rngs: nnx.MultiHeadAttention(1, 3, dropout_rate=0.5, deterministic=True, decode=False, rngs=rngs),
    lambda rngs: nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.Dropout(0.0, rngs=rngs)),
  ],
  ids=["lstm", "gru", "attention", "dropout of rate 0"],
)
def test_an_nnx_module_that_holds_a_stream_and_draws_nothing_works(factory):
  network, x = from_nnx(factory), X[None]
  params, shared = toy.init(network, x)
  expected = nnx.eval_shape(lambda: factory(nnx.Rngs(KEY))(x)).shape
  apply = toy.jit(network.apply)
  assert apply(params, shared, x).shape == expected
  np.testing.assert_array_equal(apply(params, shared, x), apply(params, shared, x))


def inner_loop(network, num_steps=2, keyed=True):
  loss = losses.regression(network.apply)
  inner = wj.InnerLoop(loss, rules.sgd(0.3), num_steps)
  if not keyed:
    return inner
  return inner._replace(
    batch_fn=augment.keyed(inner.batch_fn), query_batch_fn=augment.keyed_query(inner.query_batch_fn)
  )


def tasks(count, dtype=jnp.float32):
  x, y = toy.draw(5, count, 2, 6, 3, dtype=dtype), toy.draw(6, count, 2, 6, 2, dtype=dtype)
  return wj.Task((x[:, 0], y[:, 0]), (x[:, 1], y[:, 1]))


def test_draws_differ_by_task_step_and_point_and_repeat_themselves():
  seen = []

  def apply(params, shared, x):
    jax.debug.callback(lambda data: seen.append(tuple(np.asarray(data).tolist())), x[1], ordered=True)
    return x[0] @ params

  inner = inner_loop(networks.Network(None, apply, takes_key=True))
  one = jax.tree.map(lambda leaf: leaf[0], tasks(1))
  adapt = toy.jit(lambda key: wj.adapt(inner, wj.MetaParams(jnp.zeros((3, 2))), one, key).final.params)
  run = lambda seed: adapt(jax.random.key(seed))
  run(0), run(0), run(1)
  jax.effects_barrier()
  # The loss is traced and run once a step.
  first, again, other = seen[:2], seen[2:4], seen[4:]
  assert first == again and len({*first, *other}) == 4
  query = augment.keyed_query(wj.full_query)
  keys = {tuple(query(jax.random.fold_in(KEY, i), one, None, None)[0][1].tolist()) for i in range(3)}
  assert len(keys) == 3


@pytest.mark.parametrize("name", ["linen", pytest.param("nnx", marks=pytest.mark.slow)])
def test_chunks_of_tasks_draw_the_same(name):
  network = DROPS[name]
  params, shared = toy.init(network, X)
  inner, optimizer = inner_loop(network, num_steps=1), optax.sgd(0.1)
  state = training.init(KEY, inner.rule, params, shared, optimizer)

  def loss(chunk, inner=inner):
    step = training.meta_step(meta_gradients.unrolled(inner, "first_order"), optimizer, task_chunk=chunk)
    return float(toy.jit(step)(state, tasks(3))[1]["loss"])

  one = loss(1)
  assert one == pytest.approx(loss(3), rel=1e-6)
  assert one != pytest.approx(loss(1, inner_loop(network, num_steps=1, keyed=False)), rel=1e-3)


def test_evaluation_without_keys_is_deterministic_and_undropped():
  network = DROPS["linen"]
  params, shared = toy.init(network, X)
  inner = inner_loop(network, num_steps=1, keyed=False)
  results = [
    wj.evaluation.evaluate(inner, wj.MetaParams(params, shared), tasks(2), key, num_tasks=2, metric="mse").per_task
    for key in jax.random.split(KEY)
  ]
  np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ["linen", pytest.param("nnx", marks=pytest.mark.slow)])
def test_the_meta_gradient_through_dropout(name, x64):
  network = {"linen": DROPS["linen"], "nnx": from_nnx(DropsNnx, takes_key=True)}[name]
  params, shared = toy.init(network, X.astype(float))
  params = jax.tree.map(lambda leaf: leaf.astype(float), params)
  inner, meta_params = inner_loop(network), wj.MetaParams(params, shared)
  task = jax.tree.map(lambda leaf: leaf[0], tasks(1, float))

  def query(meta_params):
    return meta_gradients.unrolled(inner, "first_order")(meta_params, task, KEY)[0][0]

  mixed, reverse = (
    toy.jit(meta_gradients.unrolled(inner, derivative))(meta_params, task, KEY)[1]
    for derivative in ("mixed", "reverse")
  )
  chex.assert_trees_all_close(mixed, reverse, rtol=1e-9, atol=1e-11)
  toy.assert_slopes(toy.jit(query), meta_params, mixed, rtol=1e-6)
