"""The preconditioner of a warp: its definition, its action, and Eq. 9."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.diagnostics import geometry


def omega(phi, theta):
  """An explicit warp of three numbers, far from linear."""
  return theta + jnp.tanh(theta @ phi["w1"]) @ phi["w2"]


def surface(gamma):
  return jnp.sum(jnp.sin(gamma) + 0.3 * gamma**4) + gamma[0] * gamma[1]


def draw(seed=0, size=3, hidden=7):
  keys = jax.random.split(jax.random.key(seed), 4)
  phi = {
    "w1": jax.random.normal(keys[0], (size, hidden), float),
    "w2": jax.random.normal(keys[1], (hidden, size), float),
  }
  return phi, *(0.5 * jax.random.normal(key, (size,), float) for key in keys[2:])


def test_dense_preconditioner_is_the_action_on_a_basis():
  with jax.enable_x64(True):
    phi, theta, _ = draw()
    warp = lambda point: omega(phi, point)
    columns = toy.jit(jax.vmap(lambda v: geometry.precondition(warp, theta, v)))(jnp.eye(3))
    dense = np.asarray(toy.jit(lambda theta: geometry.preconditioner(warp, theta))(theta))
    np.testing.assert_allclose(columns, dense, rtol=1e-12)
    np.testing.assert_allclose(dense, dense.T)
    assert np.all(np.linalg.eigvalsh(dense) > 0)


def test_it_is_the_identity_for_the_identity_warp():
  theta = jnp.array([1.0, 2.0])
  np.testing.assert_array_equal(geometry.preconditioner(lambda point: point, theta), np.eye(2))
  assert float(geometry.spread(lambda point: 3.0 * point, theta)["condition"]) == pytest.approx(1.0)


@toy.jit
def eq9_error(alpha, first_order_term=1.0):
  phi, theta, _ = draw()
  warp = lambda point: omega(phi, point)
  gamma = warp(theta)
  in_theta = theta - alpha * jax.grad(lambda point: surface(warp(point)))(theta)
  in_gamma = gamma - first_order_term * alpha * geometry.precondition(warp, theta, jax.grad(surface)(gamma))
  return jnp.abs(surface(warp(in_theta)) - surface(in_gamma))


def slope(errors, alphas):
  return np.polyfit(np.log(alphas), np.log(errors), 1)[0]


def test_equation_9_holds_to_second_order():
  with jax.enable_x64(True):
    alphas = np.geomspace(1e-5, 1e-3, 9)
    assert slope([eq9_error(a) for a in alphas], alphas) == pytest.approx(2.0, abs=0.1)
    # A wrong preconditioner is wrong to first order, so the slope can tell.
    assert slope([eq9_error(a, 1.1) for a in alphas], alphas) == pytest.approx(1.0, abs=0.1)


def test_a_linear_warp_layer_preconditions_by_its_gram_matrix():
  """A dense layer W followed by a linear warp T is descent on W T preconditioned by `x T^T T`: T-Nets' statement."""
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(0), 2)
    transform = jax.random.normal(keys[0], (3, 3), float)
    weights = jax.random.normal(keys[1], (2, 3), float)
    dense = geometry.preconditioner(lambda w: w @ transform, weights)
    np.testing.assert_allclose(dense, np.kron(np.eye(2), transform.T @ transform), rtol=1e-10, atol=1e-12)


def test_explicit_preconditioned_descent_is_warped_descent_for_a_linear_warp():
  """For linear Omega the O(alpha^2) term vanishes, so the rule `preconditioned` on gamma is descent on theta."""
  with jax.enable_x64(True):
    transform = jax.random.normal(jax.random.key(1), (3, 3), float)
    warp = lambda theta: transform @ theta
    start, task, key = draw()[1], wj.Task(0.0, 0.0), jax.random.key(0)
    on_theta = wj.InnerLoop(lambda theta, shared, batch: (surface(warp(theta)), {}), rules.sgd(0.01), 10)
    matvec = lambda rule_params, gamma, grads: geometry.precondition(warp, start, grads)
    rule = rules.preconditioned(matvec, 0.01)
    on_gamma = wj.InnerLoop(lambda gamma, shared, batch: (surface(gamma), {}), rule, 10)
    end = lambda inner, start: wj.adapt(inner, wj.MetaParams(start), task, key).final.params
    ends = toy.jit(lambda start: (warp(end(on_theta, start)), end(on_gamma, warp(start))))(start)
    np.testing.assert_allclose(*ends, rtol=1e-10)


def test_the_output_space_preconditioner_predicts_a_step_of_a_warped_network():
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(2), 4)
    x = jax.random.normal(keys[0], (5, 2), float)
    params = {"w1": jax.random.normal(keys[1], (2, 4), float), "w2": jax.random.normal(keys[2], (4, 1), float)}
    shared = {"warp": jax.random.normal(keys[3], (4, 4), float)}
    warp = geometry.network_warp(lambda p, s, x: jnp.tanh(x @ p["w1"]) @ s["warp"] @ p["w2"], shared, x)
    loss = lambda outputs: jnp.mean((outputs - 1.0) ** 2)

    @toy.jit
    def step(params):
      grads = jax.grad(lambda p: loss(warp(p)))(params)
      upstream = jax.grad(loss)(warp(params))
      moved = warp(jax.tree.map(lambda p, g: p - 1e-6 * g, params, grads)) - warp(params)
      pulled = geometry.pull_back(warp, params, upstream)
      return grads, pulled, moved, geometry.precondition(warp, params, upstream)

    grads, pulled, moved, preconditioned = step(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), pulled, grads)
    np.testing.assert_allclose(moved, -1e-6 * preconditioned, rtol=1e-4)
    assert jax.eval_shape(lambda params: geometry.preconditioner(warp, params), params).shape == (5, 5)


def test_the_unit_ball_is_the_image_of_the_circle():
  matrix = jnp.array([[2.0, 0.0], [0.0, 0.5]])
  ball = geometry.unit_ball(lambda theta: matrix @ theta, jnp.zeros(2))
  np.testing.assert_allclose((ball[:, 0] / 2) ** 2 + (ball[:, 1] / 0.5) ** 2, 1.0, rtol=1e-5)
  with pytest.raises(ValueError, match="two numbers"):
    geometry.unit_ball(lambda theta: theta, jnp.zeros(3))
