"""Losses against their formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import losses
from warpjax.types import Task

pytestmark = pytest.mark.usefixtures("strict")

LABELS = jnp.array([0, 2, 1, 2])


def apply(params, shared, x):
  """Logits that depend on the rest of the batch, as batch statistics make them."""
  return ((x - jnp.mean(x, axis=0, keepdims=True)) @ params) * shared


def cross_entropy(logits, labels):
  logits = np.asarray(logits)
  log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -log_probabilities[np.arange(len(labels)), np.asarray(labels)].mean()


def test_classification_is_mean_cross_entropy_with_accuracy():
  params, x = toy.draw(0, 2, 3), toy.draw(1, 4, 2)
  loss, aux = losses.classification(apply)(params, 2.0, (x, LABELS))
  logits = apply(params, 2.0, x)
  np.testing.assert_allclose(loss, cross_entropy(logits, LABELS), rtol=1e-12)
  assert aux == {"accuracy": np.mean(np.argmax(logits, -1) == LABELS)}


def test_classification_counts_what_is_right():
  logits = jnp.eye(3)[jnp.array([0, 2, 0, 1])]
  _, aux = losses.classification(lambda params, shared, x: x)((), (), (logits, LABELS))
  assert aux["accuracy"] == 0.5


def test_regression_is_the_mean_over_every_element():
  params, x, y = toy.draw(0, 2, 3), toy.draw(1, 4, 2), toy.draw(2, 4, 3)
  loss, aux = losses.regression(apply)(params, 1.0, (x, y))
  np.testing.assert_allclose(loss, np.mean((np.asarray(apply(params, 1.0, x)) - np.asarray(y)) ** 2), rtol=1e-12)
  assert aux["mse"] == loss


def test_regression_refuses_to_broadcast():
  # [4, 3] against [4] would broadcast, or fail far from its cause.
  with pytest.raises(
    ValueError, match=r"predictions must have the shape of y, \(4,\); got \(4, 1\); pass y\[\.\.\., None\]"
  ):
    losses.regression(lambda params, shared, x: x)((), (), (jnp.zeros((4, 1)), jnp.zeros(4)))


@pytest.mark.parametrize("examples", [2048, 18])  # all four batches of six side by side, or three and one
def test_support_plus_one_sees_one_query_example_at_a_time(monkeypatch, examples):
  monkeypatch.setattr(losses, "_EXAMPLES_AT_ONCE", examples)
  params = toy.draw(0, 2, 3)
  task = Task((toy.draw(1, 5, 2), None), (toy.draw(2, 4, 2), LABELS))
  loss, aux = losses.support_plus_one(apply)(params, 1.0, task)
  batches = [jnp.concatenate([task.support[0], x[None]]) for x in task.query[0]]
  logits = np.stack([apply(params, 1.0, batch)[-1] for batch in batches])
  np.testing.assert_allclose(loss, cross_entropy(logits, LABELS), rtol=1e-12)
  assert aux["accuracy"] == np.mean(np.argmax(logits, -1) == LABELS)
  together, _ = losses.classification(apply)(params, 1.0, task.query)
  assert abs(together - loss) > 1e-4
  other = Task(task.support, (task.query[0].at[0].add(1.0), LABELS))
  moved = losses.support_plus_one(apply)(params, 1.0, other)[0] - loss
  one = cross_entropy(apply(params, 1.0, batches[0].at[-1].add(1.0))[-1:], LABELS[:1])
  np.testing.assert_allclose(moved, (one - cross_entropy(logits[:1], LABELS[:1])) / 4, rtol=1e-9)


def test_whole_task_hands_over_support_and_query():
  task = toy.task()
  assert losses.whole_task(toy.key(), task, (), ()) is task


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_losses_are_of_float32_or_more(dtype):
  params, x = jnp.ones((2, 3), dtype), jnp.ones((4, 2), dtype)
  calls = {
    "classification": (losses.classification(apply), (x, LABELS)),
    "regression": (losses.regression(apply), (x, jnp.ones((4, 3), dtype))),
    "support_plus_one": (losses.support_plus_one(apply), Task((x, LABELS), (x, LABELS))),
  }
  for loss_fn, batch in calls.values():
    loss, aux = jax.eval_shape(lambda b, f=loss_fn: f(params, jnp.ones((), dtype), b), batch)
    measured = jnp.promote_types(dtype, jnp.float32)
    assert loss.shape == () and loss.dtype == measured
    assert all(leaf.shape == () and leaf.dtype == measured for leaf in jax.tree.leaves(aux))


def test_half_precision_rounds_neither_the_loss_nor_the_accuracy():
  labels = (jnp.arange(75) > 0).astype(int)
  logits = jnp.tile(jnp.array([[0.0, 1.0]], jnp.bfloat16), (75, 1))
  loss, aux = losses.classification(lambda params, shared, x: x)((), (), (logits, labels))
  np.testing.assert_allclose(aux["accuracy"], 74 / 75, rtol=1e-6)
  np.testing.assert_allclose(loss, cross_entropy(np.asarray(logits, float), labels), rtol=1e-6)
  errors = jnp.linspace(0.0, 1.0, 75).astype(jnp.bfloat16)
  mse, _ = losses.regression(lambda params, shared, x: x)((), (), (errors, jnp.zeros_like(errors)))
  np.testing.assert_allclose(mse, np.mean(np.asarray(errors, float) ** 2), rtol=1e-6)


def test_margins_are_probabilities_less_that_of_the_label_which_is_exactly_0():
  x, params = toy.draw(1, 50, 4), toy.draw(0, 4, 5)
  labels = jnp.arange(50) % 5
  loss, aux = jax.jit(losses.margins(lambda params, shared, x: x @ params))(params, (), (x, labels))
  logits = np.asarray(x @ params)
  probabilities = np.exp(logits) / np.sum(np.exp(logits), axis=-1, keepdims=True)
  own = probabilities[np.arange(50), labels]
  np.testing.assert_allclose(aux["margins"], probabilities - own[:, None], atol=1e-6)
  assert not np.any(aux["margins"][np.arange(50), labels])
  np.testing.assert_allclose(loss, cross_entropy(logits, labels), rtol=1e-6)
  assert float(aux["accuracy"]) == pytest.approx(np.mean(np.argmax(logits, -1) == np.asarray(labels)))
