"""Text by chunks: what each step sees, what is held out, and the meta-gradient through a transformer that learns it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import networks, rules
from warpjax.diagnostics import cost
from warpjax.meta_gradients import unrolled
from warpjax.tasks import text

CHUNKS = text.Chunks(num_chunks=3, chunk=4, context=2)
TEXT = np.arange(40, dtype=np.uint8)


def test_each_step_predicts_its_chunk_from_the_bytes_before_it():
  task = jax.tree.map(lambda leaf: leaf[1], text.windows(TEXT, CHUNKS))
  assert task.support[0].tolist() == list(range(12, 27)) and task.support[0].dtype == jnp.int32
  for step in (0, 1, 2, 3):  # the last chunk stays
    x, y = CHUNKS.batch_fn(None, task.support, step, (), ())
    first = 12 + 4 * min(step, 2)
    assert x.tolist() == list(range(first, first + 6)) and y.tolist() == list(range(first + 3, first + 7))
    np.testing.assert_array_equal(CHUNKS.query_batch_fn(None, task, (), (), step)[1], y)


def test_windows_predict_every_byte_once():
  whole = text.windows(TEXT, CHUNKS)
  predicted = np.concatenate(
    [CHUNKS.batch_fn(None, (row,), k, (), ())[1] for row in whole.support[0] for k in range(3)]
  )
  assert predicted.tolist() == list(range(3, 39))


def test_a_sampler_draws_every_place_and_no_other():
  short = TEXT[:18]
  tasks = jax.vmap(text.sampler(short, CHUNKS))(jax.random.split(jax.random.key(0), 100))
  firsts = np.asarray(tasks.support[0])[:, 0]
  assert set(firsts.tolist()) == {0, 1, 2, 3}
  np.testing.assert_array_equal(tasks.query[0], firsts[:, None] + np.arange(15))


@pytest.mark.parametrize(
  ("chunks", "message"),
  [
    (CHUNKS._replace(chunk=0), "chunk must be .* at least 1; got 0"),
    (CHUNKS._replace(context=-1), "context must be .* at least 0; got -1"),
    (CHUNKS._replace(num_chunks=10), "text must have at least the 43 bytes of a task; got 40"),
  ],
)
def test_chunks_that_do_not_fit_are_refused(chunks, message):
  for make in (text.sampler, text.windows):
    with pytest.raises(ValueError, match=message):
      make(TEXT, chunks)


def test_the_loss_is_that_of_the_last_bytes_in_bits(x64):
  logits = toy.draw(0, 6, 256)
  y = jnp.array([3, 0, 255, 7])
  loss, aux = text.next_byte(lambda params, shared, x: logits)((), (), (jnp.zeros(6, jnp.int32), y))
  each = [math.log(np.exp(row).sum()) - row[label] for row, label in zip(np.asarray(logits[2:]), y, strict=True)]
  np.testing.assert_allclose([loss, aux["bits_per_byte"]], [np.mean(each), np.mean(each) / math.log(2)], rtol=1e-12)


def learner(chunks, *, learning_rate=0.5, vocabulary=256, **settings):
  """An inner loop over chunks with a small transformer, and a task of made text."""
  module = networks.Transformer(vocabulary, **settings)
  network = networks.from_linen(module, is_shared=networks.last_mlps(module))
  inner = wj.InnerLoop(
    text.next_byte(network.apply), rules.sgd(learning_rate), chunks.num_chunks, chunks.batch_fn, 0.0,
    chunks.query_batch_fn,
  )  # fmt: skip
  x = jnp.asarray(np.random.default_rng(0).integers(0, vocabulary, chunks.length), jnp.int32)
  return network, inner, wj.Task((x,), (x,))


TINY = {"vocabulary": 5, "num_blocks": 2, "width": 4, "num_heads": 1, "hidden": 4, "window": 3}


# With warp-layers it has every parameter that it has without.
@pytest.mark.parametrize(
  "warp",
  [
    pytest.param(None, marks=pytest.mark.slow, id="plain"),
    pytest.param(networks.WarpSpec("linear", identity_init=True), id="warp"),
  ],
)
def test_the_meta_gradient_agrees_with_finite_differences(warp, x64):
  network, inner, task = learner(CHUNKS, warp=warp, **TINY)
  drawn = toy.init(network, task.support[0])
  # Away from the start, where norms are ones, the head is small and warp-layers are the identity.
  meta_params = wj.MetaParams(*jax.tree.map(lambda leaf: leaf + toy.draw(leaf.size, *leaf.shape), drawn))
  estimate = toy.jit(unrolled(inner, online=True))
  (value, _), grads = estimate(meta_params, task, toy.key())
  toy.assert_slopes(lambda point: estimate(point, task, toy.key())[0][0], meta_params, grads, rtol=1e-6)

  def by_hand(meta_params):
    params, losses = meta_params.initial, []
    for step in range(CHUNKS.num_chunks):
      loss = lambda params, step=step: inner.loss_fn(
        params, meta_params.shared, CHUNKS.batch_fn(None, task.support, step, (), ())
      )[0]
      found, slope = jax.value_and_grad(loss)(params)
      losses.append(found)
      params = jax.tree.map(lambda p, g: p - 0.5 * g, params, slope)
    return sum(losses) / len(losses)

  toy.assert_close((value, grads), toy.jit(jax.value_and_grad(by_hand))(meta_params))


def test_an_evaluation_reports_each_chunk_before_the_step_on_it(x64):
  network, inner, task = learner(CHUNKS, **TINY)
  meta_params = wj.MetaParams(*toy.init(network, task.support[0]))
  stored = jax.tree.map(lambda leaf: leaf[None], task)
  measured = wj.evaluation.evaluate(
    inner, meta_params, stored, toy.key(), num_tasks=1, num_steps=CHUNKS.num_chunks - 1, metric="bits_per_byte"
  )
  mean = toy.run(unrolled(inner, online=True), meta_params, task)[0][0]
  np.testing.assert_allclose(np.mean(measured.per_task) * math.log(2), mean, rtol=1e-12)
  frozen = inner._replace(rule=rules.freeze(True))
  without = toy.run(unrolled(frozen, online=True), meta_params, task)[0][0]
  assert abs(float(without - mean)) > 1e-4


@pytest.mark.slow
def test_mixed_mode_takes_a_quarter_of_the_memory_of_reverse_mode():
  """With 16 blocks in a loop, each of which adapts: of what double remat takes, that of each step and of each block."""
  chunks = text.Chunks(num_chunks=16, chunk=256, context=128)
  settings = {"vocabulary": 256, "num_blocks": 16, "num_adapting": 16, "width": 32, "num_heads": 4, "hidden": 128}
  network, inner, task = learner(chunks, scan=True, remat=True, **settings)
  meta_params = wj.MetaParams(*toy.init(network, task.support[0]))
  mixed, twice = unrolled(inner, online=True), unrolled(inner, "reverse", online=True, memory="recompute")
  used = [cost.compiled_cost(each, meta_params, task, toy.key()).temp_bytes for each in (mixed, twice)]
  assert 4 * used[0] <= used[1], used
  toy.assert_close(*(toy.run(each, meta_params, task) for each in (mixed, twice)), rtol=1e-3, atol=1e-5)


def test_mixed_mode_and_double_remat_have_one_meta_gradient(x64):
  chunks = text.Chunks(num_chunks=16, chunk=4, context=2)
  network, inner, task = learner(chunks, num_adapting=2, scan=True, remat=True, **TINY)
  meta_params = wj.MetaParams(*toy.init(network, task.support[0]))
  estimates = unrolled(inner, online=True), unrolled(inner, "reverse", online=True, memory="recompute")
  toy.assert_close(*(toy.run(each, meta_params, task) for each in estimates))
