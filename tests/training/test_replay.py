"""Offline WarpGrad against the online algorithm, against Algorithm 2 written out, and how blocks are updated."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import meta_gradients, rules, training
from warpjax.meta_gradients.warp import point_gradient
from warpjax.problem import Problem
from warpjax.training import checkpoints, optimizers, parallel, replay

NUM_TASKS, NUM_STEPS = 4, 3


def loss_fn(params, shared, batch):
  x, y = batch
  hidden = jnp.tanh(x @ params["w1"]) @ shared["warp"]
  loss = jnp.mean((hidden @ params["w2"] - y) ** 2)
  return loss, {"mse": loss}


def query(key, task, params, shared):
  del params, shared
  return toy.some(key, task.query, 4)


@functools.cache
def loop(rule=rules.sgd(0.05)):  # noqa: B008
  return wj.InnerLoop(loss_fn, rule, NUM_STEPS, batch_fn=toy.pair, query_batch_fn=query)


def start(optimizer, inner, width=3):
  params = {"w1": 2 * toy.draw(0, 2, width), "w2": 2 * toy.draw(1, width, 1)}
  begin = lambda params, shared: training.init(jax.random.key(7), inner.rule, params, shared, optimizer)
  x = np.random.default_rng(3).standard_normal((NUM_TASKS, 16, 2))
  y = np.sin(x @ np.random.default_rng(4).standard_normal((NUM_TASKS, 2, 1)))
  task = wj.Task((x[:, :8], y[:, :8]), (x[:, 8:], y[:, 8:]))
  state = jax.jit(begin)(params, {"warp": 2 * toy.draw(2, width, width)})
  return state, jax.tree.map(lambda leaf: jnp.asarray(leaf, float), task)


def scalar(optimizer):
  """Two tasks of a number behind a number, as what an optimizer does with its blocks depends on no more."""
  inner = wj.InnerLoop(lambda w, shared, batch: ((shared * w - batch) ** 2, {}), rules.sgd(0.1), 2)
  state = training.init(jax.random.key(0), inner.rule, jnp.array(0.5), jnp.array(1.0), optimizer)
  return inner, state, wj.Task(jnp.array([1.0, 2.0]), jnp.array([1.5, 0.5]))


@functools.cache
def recorded(inner):
  return jax.jit(lambda *args: wj.adapt(inner, *args, record=True).steps)


@functools.cache
def gradient_at(inner):
  return jax.jit(lambda at, *args: point_gradient(Problem(inner, *args[:3]), at, args[3], "full")[0]["warp"])


@jax.jit
def item(tree, index):
  return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_close(one, other, rtol):
  chex.assert_trees_all_close(one, other, rtol=rtol, atol=1e-14)


SGD = optimizers.per_block(optax.sgd(0.1))


@pytest.mark.parametrize(
  ("rule", "objective", "initial"),
  [
    pytest.param(rules.sgd(0.05), "full", meta_gradients.leap(), marks=pytest.mark.slow),
    (rules.sgd(0.05), "first_order", meta_gradients.reptile()),
    (rules.chain(rules.meta_sgd((0.5, 1.0)), rules.sgd(0.05, momentum=0.9)), "full", meta_gradients.leap(loss=False)),
  ],
  ids=["full", "first_order_and_reptile", "rule_parameters_and_momentum"],
)
def test_all_points_at_once_are_the_online_algorithm(rule, objective, initial):
  with jax.enable_x64(True):
    inner = loop(rule)
    state, tasks = start(SGD, inner)
    contributions = initial, meta_gradients.warp(objective)
    online = training.meta_step(meta_gradients.along_trajectory(inner, *contributions), SGD)
    offline = replay.meta_step(inner, SGD, objective=objective, eta=None, initial=initial)
    (one, metrics), (other, others) = jax.jit(online)(state, tasks), jax.jit(offline)(state, tasks)
    assert_close(one.meta_params, other.meta_params, rtol=1e-12)
    assert_close([metrics[k] for k in ("loss", "mse")], [others[k] for k in ("loss", "mse")], rtol=1e-12)
    assert metrics.keys() == others.keys()
    assert not np.allclose(one.meta_params.shared["warp"], state.meta_params.shared["warp"], atol=1e-4)
    assert not np.allclose(one.meta_params.initial["w1"], state.meta_params.initial["w1"], atol=1e-4)


def by_hand(inner, state, tasks, order, eta, rate):
  """Algorithm 2, line by line, in Python: the warp's parameters after each update."""
  fold = jax.random.fold_in
  keys = jax.jit(lambda: jnp.stack([fold(fold(fold(state.key, 2), state.step), i) for i in range(NUM_TASKS)]))()
  buffer = []
  for i in range(NUM_TASKS):
    task, key = item((tasks, keys), i)
    steps = recorded(inner)(state.meta_params, task, key)
    buffer += [(task, key, item(steps.state, k), k) for k in range(NUM_STEPS)]
  meta_params, total, gradient = state.meta_params, 0.0, gradient_at(inner)
  for count, point in enumerate(order, 1):
    task, key, at, k = buffer[point]
    total = total + gradient(at, meta_params, task, key, k)
    if count % eta == 0:
      warp = meta_params.shared["warp"] - rate * total / eta
      meta_params, total = meta_params._replace(shared={"warp": warp}), 0.0
  return meta_params


@pytest.mark.parametrize("eta", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_it_is_algorithm_2_written_out(eta):
  with jax.enable_x64(True):
    inner = loop()
    state, tasks = start(SGD, inner)
    order = np.asarray(jax.jit(lambda: replay._draws(state, NUM_TASKS * NUM_STEPS, eta, None))()).ravel()
    assert sorted(order) == list(range(NUM_TASKS * NUM_STEPS))
    expected = by_hand(inner, state, tasks, order, eta, 0.1)
    new, _ = jax.jit(replay.meta_step(inner, SGD, eta=eta, initial=None))(state, tasks)
    assert_close(new.meta_params, expected, rtol=1e-12)


def test_the_order_changes_from_step_to_step():
  state, _ = start(SGD, loop())
  draws = jax.jit(lambda step: replay._draws(state._replace(step=step), 12, 1, None))
  orders = [draws(jnp.int32(s)) for s in (0, 1)]
  assert not np.array_equal(*orders)


def test_each_block_counts_its_own_updates():
  optimizer = optimizers.per_block(initial=optax.adam(1e-2), shared=optax.adam(1e-3))
  inner, state, tasks = scalar(optimizer)
  step = jax.jit(replay.meta_step(inner, optimizer, eta=2))
  for _ in range(3):
    state, _ = step(state, tasks)
  assert int(state.step) == 3
  assert int(state.opt_state.initial[0].count) == 3
  assert int(state.opt_state.shared[0].count) == 3 * 2 * 2 // 2


def test_momentum_does_not_move_a_block_that_is_not_updated():
  optimizer = optimizers.per_block(optax.sgd(0.1, momentum=0.9))
  inner, state, tasks = scalar(optimizer)
  state, _ = jax.jit(replay.meta_step(inner, optimizer))(state, tasks)  # gives `initial` momentum
  after, _ = jax.jit(replay.meta_step(inner, optimizer, initial=None))(state, tasks)
  assert state.meta_params.initial != 0.5
  chex.assert_trees_all_equal(after.meta_params.initial, state.meta_params.initial)
  chex.assert_trees_all_equal(after.opt_state.initial, state.opt_state.initial)


@pytest.mark.slow
def test_per_block_without_blocks_is_optax_partition():
  parts = {"initial": optax.sgd(0.1), "shared": optax.adam(1e-2), "rule": optax.sgd(1.0)}
  partition = optax.partition(parts, wj.MetaParams("initial", "shared", "rule"))
  results = []
  for optimizer in (optimizers.per_block(**parts), partition):
    inner, state, tasks = scalar(optimizer)
    step = jax.jit(
      training.meta_step(
        meta_gradients.along_trajectory(inner, meta_gradients.leap(), meta_gradients.warp()), optimizer
      )
    )
    results.append(step(step(state, tasks)[0], tasks)[0].meta_params)
  assert_close(*results, rtol=1e-6)


def test_released_approximation_takes_no_step():
  with jax.enable_x64(True):
    inner = loop()
    state, tasks = start(SGD, inner)
    keys = jax.random.split(jax.random.key(0), NUM_TASKS)

    def estimate(meta_params):
      found, _ = replay.collect(inner, meta_params, tasks, keys)
      return found, replay.warp_gradient(inner, meta_params, found, jnp.array([5]), "released_approx")

    def by_hand(meta_params, theta, task, key):
      batch = Problem(inner, meta_params, task, key).batch(theta, 2)
      return jax.grad(lambda shared: loss_fn(theta, shared, batch)[0])(meta_params.shared)

    found, grads = jax.jit(estimate)(state.meta_params)
    theta = jax.tree.map(lambda leaf: leaf[1, 2], found.states.params)
    expected = jax.jit(by_hand)(state.meta_params, theta, *item((tasks, keys), 1))
    assert_close(grads.shared, expected, rtol=1e-12)


def test_collect_keeps_every_iterate_but_the_last():
  inner = loop()
  state, tasks = start(SGD, inner)
  keys = jax.random.split(jax.random.key(0), NUM_TASKS)
  found, _ = jax.jit(lambda *args: replay.collect(inner, *args, task_chunk=3))(state.meta_params, tasks, keys)
  for i in range(NUM_TASKS):
    steps = recorded(inner)(state.meta_params, *item((tasks, keys), i))
    np.testing.assert_allclose(found.states.params["w1"][i], steps.state.params["w1"], rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("kwargs", [{"memory": "host"}, {"task_chunk": 3}], ids=str)
def test_where_the_replay_waits_and_how_it_is_cut_change_nothing(kwargs):
  with jax.enable_x64(True):
    inner = loop()
    state, tasks = start(SGD, inner)
    plain, _ = jax.jit(replay.meta_step(inner, SGD, eta=6))(state, tasks)
    other, _ = jax.jit(replay.meta_step(inner, SGD, eta=6, **kwargs))(state, tasks)
    assert_close(plain.meta_params, other.meta_params, rtol=1e-12)


@pytest.mark.parametrize("eta", [None, pytest.param(4, marks=pytest.mark.slow)])
def test_tasks_over_an_axis(eta):
  """Over an axis the draws differ, unless every point is drawn at once; parameters agree on all devices."""
  with jax.enable_x64(True):
    inner = loop()
    state, tasks = start(SGD, inner)
    whole, _ = jax.jit(replay.meta_step(inner, SGD, eta=eta))(state, tasks)
    split = jax.tree.map(lambda leaf: leaf.reshape(2, NUM_TASKS // 2, *leaf.shape[1:]), tasks)
    step = jax.vmap(replay.meta_step(inner, SGD, eta=eta, axis_name="devices"), (None, 0), axis_name="devices")
    parts, metrics = jax.jit(step)(state, split)
    assert_close(*(jax.tree.map(lambda leaf: leaf[i], parts.meta_params) for i in (0, 1)), rtol=1e-12)  # noqa: B023
    first = jax.tree.map(lambda leaf: leaf[0], parts.meta_params)
    assert_close(whole.meta_params.initial, first.initial, rtol=1e-12)
    if eta is None:
      assert_close(whole.meta_params, first, rtol=1e-12)
    else:
      assert np.all(np.isfinite(first.shared["warp"]))


@pytest.mark.slow
def test_one_device_mesh():
  inner = loop()
  state, tasks = start(SGD, inner)
  step = parallel.over_devices(replay.meta_step(inner, SGD, axis_name="devices"), parallel.device_mesh(1))
  plain = jax.jit(replay.meta_step(inner, SGD))
  chex.assert_trees_all_close(*(run(state, tasks)[0].meta_params for run in (step, plain)), rtol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
  optimizer = optimizers.per_block(initial=optax.sgd(0.1, momentum=0.9), shared=optax.adam(1e-2))
  inner, state, _ = scalar(optimizer)
  step, draw = replay.meta_step(inner, optimizer, eta=3), lambda key: wj.Task(*jax.random.normal(key, (2,)))
  two = jax.jit(training.many_steps(step, draw, tasks_per_step=3, num_steps=2))
  middle = two(state)[0]
  straight = two(middle)[0]
  with checkpoints.open_manager(tmp_path / "checkpoints") as manager:
    checkpoints.save(manager, 2, middle, {})
    restored = checkpoints.restore_latest(manager, state).state
  resumed = two(restored)[0]
  chex.assert_trees_all_equal(straight.meta_params, resumed.meta_params)
  chex.assert_trees_all_equal(straight.opt_state, resumed.opt_state)


@pytest.mark.slow
def test_the_replay_is_what_memory_goes_to():
  """Temporaries grow with the steps by the recorded states and little else."""
  with jax.enable_x64(True):
    sizes = []
    for num_steps in (10, 40):
      inner = loop()._replace(num_steps=num_steps)
      state, tasks = start(SGD, inner, width=48)
      compiled = jax.jit(replay.meta_step(inner, SGD)).lower(state, tasks).compile()
      sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    states = NUM_TASKS * 30 * 8 * (2 * 48 + 48)
    assert states <= sizes[1] - sizes[0] <= 2.5 * states


def test_a_plain_optimizer_is_refused():
  inner, plain = loop(), optax.adam(1e-3)
  state, tasks = start(plain, inner)
  with pytest.raises(ValueError, match="per_block"):
    jax.eval_shape(replay.meta_step(inner, plain), state, tasks)
  remembers = optax.chain(optax.trace(0.9), SGD)
  with pytest.raises(ValueError, match="per_block"):
    jax.eval_shape(replay.meta_step(inner, remembers), start(remembers, inner)[0], tasks)


def test_a_clip_may_be_chained():
  clipped = optax.chain(optax.clip_by_global_norm(1e-9), SGD)
  inner, state, tasks = scalar(clipped)
  new, _ = jax.jit(replay.meta_step(inner, clipped))(state, tasks)
  chex.assert_trees_all_close(new.meta_params, state.meta_params, rtol=0, atol=1e-6)


def test_eta_must_divide_the_points():
  inner = loop()
  state, tasks = start(SGD, inner)
  with pytest.raises(ValueError, match="12 points.*got 5"):
    jax.eval_shape(replay.meta_step(inner, SGD, eta=5), state, tasks)


@pytest.mark.parametrize(
  "kwargs, named",
  [
    ({"objective": "second"}, "objective"),
    ({"eta": 0}, "eta"),
    ({"memory": "disk"}, "memory"),
    ({"initial": "leap"}, "initial"),
    ({"task_chunk": 0}, "task_chunk"),
  ],
)
def test_errors_name_the_argument(kwargs, named):
  with pytest.raises(ValueError, match=named):
    replay.meta_step(loop(), SGD, **kwargs)


def test_a_block_without_an_optimizer_is_an_error():
  with pytest.raises(ValueError, match="shared"):
    optimizers.per_block(initial=optax.sgd(0.1))


@pytest.mark.parametrize("objective", ["full", "first_order", "released_approx"])
def test_nothing_to_learn_is_refused(objective):
  inner = wj.InnerLoop(lambda w, shared, batch: (0.5 * (w - batch) ** 2, {}), rules.sgd(0.1), 2)
  state = training.init(jax.random.key(0), inner.rule, jnp.array(0.0), (), SGD)
  with pytest.raises(ValueError, match=f"{objective}.* to learn; got none"):
    jax.eval_shape(replay.meta_step(inner, SGD, objective=objective), state, wj.Task(jnp.ones(2), jnp.ones(2)))
