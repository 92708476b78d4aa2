"""Data hyper-cleaning: what is corrupted, a closed form of the hypergradient, and that it finds wrong labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax.meta_gradients import unrolled
from warpjax.tasks import hyper_cleaning
from warpjax.types import MetaParams

NUM = 400


def task(**settings):
  rng = np.random.default_rng(0)
  y = rng.integers(0, 3, 1000)
  x = np.eye(3)[y] + 0.3 * rng.standard_normal((1000, 3))
  return hyper_cleaning.problem(
    toy.key(), jnp.asarray(x), jnp.asarray(y), num_train=NUM, num_val=300, num_classes=3, **settings
  ), (x, y)


def test_a_wrong_label_is_another_class_unless_as_in_released_codes():
  made, (x, y) = task()
  support, (val_x, val_y, clean) = made
  truth = {tuple(row): label for row, label in zip(x.round(6), y, strict=True)}
  true = lambda rows: np.array([truth[tuple(row)] for row in np.asarray(rows, float).round(6)])
  with jax.enable_x64(True):
    made, _ = task()
    support, (val_x, val_y, clean) = made
    np.testing.assert_array_equal(true(support[0]) == support[1], clean)
    np.testing.assert_array_equal(true(val_x), val_y)
    assert int(clean.sum()) == NUM // 2 and not set(map(tuple, np.asarray(val_x))) & set(
      map(tuple, support[0].tolist())
    )
    released, _ = task(always_changed=False)
    wrong = ~np.asarray(released.query[2])
    kept = np.mean(true(released.support[0])[wrong] == np.asarray(released.support[1])[wrong])
  assert 0.2 < kept < 0.5  # one class of three


def linear(params, shared, x):
  return x @ params


def loop(num_steps, learning_rate=0.5):
  return wj.InnerLoop(
    hyper_cleaning.training_loss(linear),
    wj.rules.sgd(learning_rate),
    num_steps,
    query_loss_fn=hyper_cleaning.query_loss(linear),
  )


def test_the_hypergradient_of_one_step_is_minus_the_product_of_gradients():
  """`-rate sigmoid'(x_i) / n grad l_i . grad L_val`, with the gradient of each example by itself."""
  with jax.enable_x64(True):
    made, _ = task()
    point = MetaParams(jnp.zeros((3, 3)), {"weights": toy.draw(0, NUM)})
    (_, aux), grads = toy.run(unrolled(loop(1)), point, made)
    (x, y, _), query = made
    each = jax.vmap(jax.grad(lambda w, x, y: -jax.nn.log_softmax(x @ w)[y]), (None, 0, 0))(point.initial, x, y)
    sigmoid = jax.nn.sigmoid(point.shared["weights"])
    after = point.initial - 0.5 * jnp.mean(sigmoid[:, None, None] * each, axis=0)
    outer = jax.grad(lambda w: hyper_cleaning.query_loss(linear)(w, point.shared, query)[0])(after)
    expected = -0.5 / NUM * sigmoid * (1 - sigmoid) * jnp.sum(each * outer, axis=(1, 2))
    np.testing.assert_allclose(grads.shared["weights"], expected, rtol=1e-9)


def test_the_sign_of_the_first_hypergradient_finds_the_wrong_labels():
  made, _ = task()
  point = MetaParams(jnp.zeros((3, 3)), {"weights": jnp.zeros(NUM)})
  (_, aux), grads = toy.run(unrolled(loop(20)), point, made)
  assert aux["f1"] == pytest.approx(2 / 3)
  assert hyper_cleaning.f1(-grads.shared["weights"], made.query[2]) > 0.9


def test_f1_against_its_definition():
  rng = np.random.default_rng(0)
  weights, clean = rng.standard_normal(50), rng.random(50) < 0.5
  called = weights >= 0
  precision, recall = (called & clean).sum() / called.sum(), (called & clean).sum() / clean.sum()
  expected = 2 * precision * recall / (precision + recall)
  np.testing.assert_allclose(hyper_cleaning.f1(jnp.asarray(weights), jnp.asarray(clean)), expected, rtol=1e-6)
  assert hyper_cleaning.f1(-jnp.ones(3), jnp.ones(3, bool)) == 0


def test_bad_input():
  with pytest.raises(ValueError, match=r"num_train \+ num_val must be at most the examples, 8; got 5 \+ 4"):
    hyper_cleaning.problem(toy.key(), jnp.ones((8, 2)), jnp.zeros(8, int), num_train=5, num_val=4)
  with pytest.raises(ValueError, match="corrupted must be between 0 and 1; got 2"):
    task(corrupted=2)
