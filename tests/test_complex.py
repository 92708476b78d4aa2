"""Complex parameters are their real and imaginary parts: every estimator, rule and solve is held to the real problem.

JAX's gradient of a real loss is `d/d re - i d/d im`, the conjugate of the direction of ascent, so that descent
conjugates it. What is written by hand must do the same as what is derived automatically.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, meta_gradients, rl, rules, training
from warpjax.diagnostics import geometry
from warpjax.meta_gradients import along_trajectory, implicit, leap, reptile, warp
from warpjax.rl import trpo
from warpjax.training import replay
from warpjax.training.optimizers import per_block
from warpjax.types import CarriedMetaGrad, MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")

conjugate = optax.stateless(lambda updates, params: optax.tree.conj(updates))


def conjugated(rule):
  return rules.chain(rules.from_optax(conjugate)._replace(finite_at_zero=True), rule)


def draw(seed, *shape):
  return toy.draw(seed, *shape) + 1j * toy.draw(seed + 50, *shape)


def task(seed=3):
  support_x, support_y, query_x, query_y = draw(seed, 4, 4, 2)
  return Task((support_x, support_y), (query_x, query_y))


def start(rule=None):
  initial = {"b": draw(0, 3), "w": draw(1, 2, 3)}
  return MetaParams(initial, {"warp": draw(2, 3, 2)}, rule.init(toy.key(), initial) if rule else ())


def complex_loss(params, shared, batch):
  x, y = batch
  hidden = x @ params["w"] + params["b"][None]
  # Not holomorphic, so that a missing conjugate shows.
  error = (hidden + 0.3 * hidden * jnp.conj(hidden)) @ shared["warp"] - y
  value = jnp.mean(jnp.real(error * jnp.conj(error)))
  return value, {"mse": value}


def split(tree):
  return {"re": jax.tree.map(jnp.real, tree), "im": jax.tree.map(jnp.imag, tree)}


def join(parts, sign=1):
  return jax.tree.map(lambda re, im: re + sign * 1j * im, parts["re"], parts["im"])


def real_loss(params, shared, batch):
  return complex_loss(join(params), join(shared), batch)


def both(make, rule=None, num_steps=3, **fields):
  """The complex meta-gradient, and that of the real and imaginary parts as one complex number."""
  rule, results = rule or rules.sgd(0.1), []
  for loss_fn, mine, point in (
    (complex_loss, conjugated(rule), start()),
    (real_loss, rule, MetaParams(split(start().initial), split(start().shared))),
  ):
    estimator = make(wj.InnerLoop(loss_fn, mine, num_steps, **fields))
    point = point._replace(rule=mine.init(toy.key(), point.initial))
    if isinstance(estimator, CarriedMetaGrad):
      estimator = lambda at, *args, one=estimator: one.grad(at, *args, one.init(at))[0]
    results.append(toy.run(estimator, point, task()))
  (value, grads), (real_value, real_grads) = results
  return (value, tuple(grads[:2])), (real_value, (join(real_grads.initial, -1), join(real_grads.shared, -1)))


PROX = {"prox": 0.7}
ESTIMATORS = {
  "mixed": (meta_gradients.unrolled, {}),
  "mixed_prox": (meta_gradients.unrolled, PROX),
  "reverse_prox": (lambda inner: meta_gradients.unrolled(inner, "reverse"), PROX),
  "first_order_prox": (lambda inner: meta_gradients.unrolled(inner, "first_order"), PROX),
  "bootstrapped": (lambda inner: meta_gradients.bootstrapped(inner, 0.1, 2), PROX),
  "truncated_unroll": (lambda inner: meta_gradients.truncated_unroll(inner, 3, "mixed"), PROX),
  "reptile": (lambda inner: along_trajectory(inner, reptile()), PROX),
  "reptile_carried": (lambda inner: along_trajectory(inner, reptile(), carry_optimizer=True), {}),
  "reptile_weighted": (lambda inner: along_trajectory(inner, reptile((0.5, 2.0, 1.0))), {}),
  "leap": (lambda inner: along_trajectory(inner, leap()), {}),
  "leap_energy": (lambda inner: along_trajectory(inner, leap(norm=False, stabilizer=False, all_segments=False)), PROX),
  "warp": (lambda inner: along_trajectory(inner, warp()), PROX),
  "warp_first_order": (lambda inner: along_trajectory(inner, warp("first_order")), {}),
  "one_step": (lambda inner: along_trajectory(inner, meta_gradients.one_step()), PROX),
  "cg": (lambda inner: along_trajectory(inner, implicit(linear_solve.cg(4))), PROX),
  "neumann": (lambda inner: along_trajectory(inner, implicit(linear_solve.neumann(3, step_size=0.2))), PROX),
  "nystrom": (lambda inner: along_trajectory(inner, implicit(linear_solve.nystrom(18))), PROX),
  "released": (lambda inner: along_trajectory(inner, meta_gradients.implicit_released()), PROX),
  "identity": (lambda inner: along_trajectory(inner, implicit(linear_solve.identity(0.3))), PROX),
  "warm": (lambda inner: meta_gradients.warm_implicit(inner, linear_solve.cg(2)), PROX),
  "penalty": (lambda inner: meta_gradients.penalty(inner, 2.0), PROX),
  "sama": (lambda inner: along_trajectory(inner, meta_gradients.sama()), PROX),
  "soba": (lambda inner: meta_gradients.soba(inner, 0.2), PROX),
  "online": (rl.online, {}),
}
RULES = {
  "adam": rules.adam(0.05),
  "rmsprop": rules.rmsprop(0.05),
  "meta_sgd": rules.meta_sgd(0.1),
  "per_step_sgd": rules.per_step_sgd(0.1, 2),
  "learned": rules.learned(rules.adamw, learning_rate=0.05, weight_decay=0.1),
  "clip": rules.chain(rules.clip_by_global_norm(0.5), rules.sgd(0.1)),
}


# The quick tests have these with other settings.
SLOW = ("mixed", "reverse_prox", "reptile", "reptile_weighted", "leap_energy", "warp_first_order", "neumann")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in ESTIMATORS])
def test_estimators(name):
  make, fields = ESTIMATORS[name]
  toy.assert_close(*both(make, **fields), rtol=1e-8)


@pytest.mark.parametrize("name", ["meta_sgd", pytest.param("per_step_sgd", marks=pytest.mark.slow), "clip"])
def test_rules(name):
  toy.assert_close(*both(meta_gradients.unrolled, RULES[name]), rtol=1e-8)


@pytest.mark.parametrize("name", [pytest.param("adam", marks=pytest.mark.slow), "learned"])
def test_adam_averages_the_square_of_the_modulus(name):
  """So complex Adam is not that of the parts, and differences are the judge of its meta-gradient."""
  rule = conjugated(RULES[name])
  estimate = toy.jit(meta_gradients.unrolled(wj.InnerLoop(complex_loss, rule, 2)))
  (_, gradient), loss = estimate(start(rule), task(), toy.key()), lambda at: estimate(at, task(), toy.key())[0][0]
  along = jax.tree.map(lambda leaf: draw(5, *leaf.shape) if jnp.iscomplexobj(leaf) else leaf, start(rule))
  expected = float(jnp.real(optax.tree.vdot(optax.tree.conj(gradient), along)))
  np.testing.assert_allclose(expected, toy.slope(loss, start(rule), along, 1e-5), rtol=1e-6)


def test_newton_cg():
  """One step of a quadratic is the solution, prox and all: (b + 2 w) / 3 for |w - b|^2 and prox 4."""
  loss = lambda w, shared, batch: (jnp.sum(jnp.real((w - batch) * jnp.conj(w - batch))), {})
  inner = wj.InnerLoop(loss, rules.newton_cg(3), 1, prox=4.0)
  w, target = jnp.array([0.3 + 0.2j, 1.0]), jnp.array([1.0 - 1.0j, 2.0j])
  final = toy.jit(lambda w: wj.adapt(inner, MetaParams(w), Task(target, target), toy.key()).final.params)(w)
  np.testing.assert_allclose(final, (target + 2 * w) / 3, rtol=1e-10)


@pytest.mark.parametrize("num_steps", [30, 60])
def test_the_prox_term_of_the_report(num_steps):
  """Each step leaves 1 - 0.1 (2 + 4) = 0.4 of the way to 0.5333 - 0.2i; a term without its conjugate ends elsewhere."""
  loss = lambda w, shared, batch: (jnp.real((w - batch) * jnp.conj(w - batch)), {})
  rule = conjugated(rules.sgd(0.1))
  inner = wj.InnerLoop(loss, rule, num_steps, prox=4.0)
  target = jnp.array(1.0 - 1.0j)
  final = wj.adapt(
    inner, MetaParams(jnp.array(0.3 + 0.2j), rule=((), ())), Task(target, target), toy.key()
  ).final.params
  np.testing.assert_allclose(final, 1.6 / 3 - 0.2j, rtol=1e-10)


def test_random_directions_hold_both_parts():
  """With as many orthogonal directions as real coordinates both are exact, the second up to its smoothing."""
  rule = conjugated(rules.sgd(0.1))
  inner, point = wj.InnerLoop(complex_loss, rule, 2), start(rule)
  exact = toy.run(meta_gradients.unrolled(inner), point, task())
  forward = meta_gradients.forward_gradient(inner, 30, distribution="orthogonal")
  toy.assert_close(toy.run(forward, point, task())[1][:2], exact[1][:2], rtol=1e-8)
  smoothed = meta_gradients.evolution_strategies(inner, 1e-4, 30, distribution="orthogonal")
  toy.assert_close(toy.run(smoothed, point, task())[1][:2], exact[1][:2], rtol=1e-3, atol=1e-4)


def test_offline_replay_of_all_points_is_the_online_gradient():
  rule, optimizer = conjugated(rules.sgd(0.1)), per_block(optax.chain(conjugate, optax.sgd(1.0)))
  inner = wj.InnerLoop(complex_loss, rule, 3)
  state = training.init(toy.key(), rule, start().initial, start().shared, optimizer)
  tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), task(10), task(11))
  online = training.meta_step(along_trajectory(inner, leap(), warp()), optimizer)
  steps = [toy.jit(step)(state, tasks)[0] for step in (online, replay.meta_step(inner, optimizer, eta=None))]
  toy.assert_close(*[tuple(step.meta_params[:2]) for step in steps], rtol=1e-9)


def test_trust_region():
  """A natural-gradient step of complex parameters is that of their parts."""
  settings, here = trpo.Settings(max_kl=0.01, cg_steps=6, damping=0.0), draw(0, 3)
  matrix, slope = jnp.real(draw(1, 6, 6)), jnp.real(draw(2, 6))

  @functools.partial(jax.jit, static_argnums=1)
  def step(here, flatten):
    # Below the quadratic that the step is made for, so that rounding does not decide whether it is allowed.
    divergence = lambda at: jnp.log1p(0.5 * jnp.sum((matrix @ (flatten(at) - flatten(here))) ** 2))
    judge = lambda at: (flatten(at) @ slope, {"kl": divergence(at)})
    curvature = lambda vector: jax.jvp(jax.grad(divergence), (here,), (vector,))[1]
    return trpo.trust_region(settings, here, jax.grad(lambda at: judge(at)[0])(here), curvature, judge)[0]

  parts = lambda z: jnp.concatenate([z.real, z.imag])
  moved = step(here, parts)
  assert bool(jnp.any(moved != here))
  np.testing.assert_allclose(parts(moved), step(parts(here), lambda at: at), rtol=1e-7)


def test_the_preconditioner_of_a_warp():
  """A step along a gradient behind a warp moves gamma by `-alpha G^{-1} g`, up to alpha^2."""
  matrix, point, target = draw(0, 2, 3), draw(1, 3), draw(2, 2)
  omega = lambda theta: matrix @ theta + 0.2 * jnp.conj(matrix @ theta) * (matrix @ theta)
  loss = lambda gamma: jnp.sum(jnp.real((gamma - target) * jnp.conj(gamma - target)))
  size = 1e-6

  @toy.jit
  def both(point):
    moved = omega(point - size * jnp.conj(jax.grad(lambda theta: loss(omega(theta)))(point))) - omega(point)
    return moved, geometry.precondition(omega, point, jax.grad(loss)(omega(point)))

  moved, predicted = both(point)
  np.testing.assert_allclose(moved, -size * predicted, rtol=1e-4)


@pytest.mark.parametrize("rule", [rules.meta_lstm(3), rules.l2l_lstm((3,))])
def test_rules_that_read_signs_refuse_complex_parameters(rule):
  with pytest.raises(ValueError, match=rf"{rule.name} takes real parameters; got complex128 at params\['b'\]"):
    rule.init(toy.key(), start().initial)
