"""Meta-Curvature: identities with SGD and with the Kronecker product written out."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled

pytestmark = pytest.mark.usefixtures("strict")


def test_identity_is_sgd_exactly():
  rule = rules.kronecker(0.5)
  meta_params, task = toy.meta_params(rule), toy.task()
  mine = toy.run(unrolled(toy.loop(rule)), meta_params, task)
  plain = toy.run(unrolled(toy.loop(rules.sgd(0.5))), meta_params._replace(rule=()), task)
  toy.assert_close((mine[0], tuple(mine[1][:2])), (plain[0], tuple(plain[1][:2])), rtol=1e-13)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (5, 2, 3), (3, 2, 2, 4)])
def test_it_is_the_kronecker_product_times_the_gradient(shape):
  rule, grad = rules.kronecker(0.1), toy.draw(1, *shape)
  shapes = jax.eval_shape(rule.init, toy.key(), {"w": grad})
  matrices, tree = jax.tree.map(lambda leaf: toy.draw(leaf.shape[0], *leaf.shape), shapes), {"w": grad}

  @toy.jit
  def step(matrices, tree):
    return rule.transform(matrices).update(tree, rule.transform(matrices).init(tree), tree)[0]

  updates = step(matrices, tree)
  product = functools.reduce(np.kron, [np.asarray(matrix) for matrix in matrices["w"]])
  np.testing.assert_allclose(updates["w"].ravel(), -0.1 * product @ np.ravel(grad), rtol=1e-12)


def test_the_sizes_of_the_matrices():
  params = {"conv": jnp.zeros((3, 3, 8, 16)), "dense": jnp.zeros((8, 5)), "bias": jnp.zeros(5)}
  sizes = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(rules.kronecker().init, toy.key(), params))
  assert sizes == {"conv": ((9, 9), (8, 8), (16, 16)), "dense": ((8, 8), (5, 5)), "bias": ((5, 5),)}


def test_the_meta_gradient_of_one_step_in_closed_form():
  """theta' = theta - a M_in G M_out^T, so dL/dM_in = -a Q M_out G^T and dL/dM_out = -a Q^T M_in G."""
  rule, task = rules.kronecker(0.1), toy.task()
  meta_params = toy.meta_params(rule)
  meta_params = meta_params._replace(rule=jax.tree.map(lambda m: m + toy.draw(m.shape[0], *m.shape), meta_params.rule))
  gradient = lambda params, batch: toy.jit(jax.grad(toy.loss_fn, has_aux=True))(params, meta_params.shared, batch)[0]
  inner = gradient(meta_params.initial, task.support)
  first, second = meta_params.rule["w"]
  moved = {
    "w": meta_params.initial["w"] - 0.1 * first @ inner["w"] @ second.T,
    "b": meta_params.initial["b"] - 0.1 * meta_params.rule["b"][0] @ inner["b"],
  }
  outer = gradient(moved, task.query)
  expected = {
    "w": (-0.1 * outer["w"] @ second @ inner["w"].T, -0.1 * outer["w"].T @ first @ inner["w"]),
    "b": (-0.1 * jnp.outer(outer["b"], inner["b"]),),
  }
  toy.assert_close(toy.run(unrolled(toy.loop(rule, 1)), meta_params, task)[1].rule, expected)


def test_bad_learning_rate():
  for bad in (0.0, -0.1, lambda step: 0.1):
    with pytest.raises(ValueError, match="learning_rate must be a positive number"):
      rules.kronecker(bad)
