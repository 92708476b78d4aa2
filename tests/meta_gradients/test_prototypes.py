"""ProtoMAML: its start is the prototype classifier, and the meta-gradient flows through it; `from_start` in general."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import evaluation, losses, meta_gradients, networks, padding, rules
from warpjax.meta_gradients import along_trajectory, from_start, prototypes, reptile, unrolled
from warpjax.meta_gradients.from_start import begun
from warpjax.problem import Problem
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")

WAYS, FEATURES = 3, 4
NETWORK = networks.from_linen(networks.MLP((FEATURES,), num_outputs=WAYS, activation="tanh"))
START = prototypes(NETWORK.apply)
LABELS = jnp.array([2, 0, 1, 1, 0, 2, 2])  # uneven, and not in order


def task(seed=3):
  draw = lambda seed, count: toy.draw(seed, count, 2)
  return Task((draw(seed, 7), LABELS), (draw(seed + 1, 4), jnp.array([0, 1, 2, 1])))


def meta_params(rule=None):
  params, _ = toy.init(NETWORK, jnp.ones((1, 2)))
  return MetaParams(params, (), rule.init(toy.key(), params) if rule else ())


def loop(rule=None, num_steps=2):
  return wj.InnerLoop(losses.classification(NETWORK.apply), rule or rules.sgd(0.2), num_steps)


def features(params, x):
  return np.tanh(np.asarray(x) @ np.asarray(params["dense_0"]["kernel"]) + np.asarray(params["dense_0"]["bias"]))


def centres(params, support):
  h = features(params, support[0])
  return np.stack([h[np.asarray(support[1]) == k].mean(0) for k in range(WAYS)])


def test_with_no_step_it_is_the_prototype_classifier():
  """By the evaluation, after 0 steps; by a rule that does not move, through the estimator."""
  point, one = meta_params(), task()
  of = centres(point.initial, one.support)
  distances = np.sum((features(point.initial, one.query[0])[:, None] - of[None]) ** 2, axis=-1)
  logits = -distances - np.log(np.exp(-distances).sum(-1, keepdims=True))
  nearest = np.mean(distances.argmin(-1) == np.asarray(one.query[1]))
  expected = -np.mean(logits[np.arange(4), np.asarray(one.query[1])])
  stored = jax.tree.map(lambda leaf: leaf[None], one)
  for metric, value in (("loss", expected), ("accuracy", nearest)):
    found = evaluation.evaluate(loop(), point, stored, toy.key(), num_tasks=1, metric=metric, start=START)
    np.testing.assert_allclose(found.per_task[0, 0], value, rtol=1e-10)
  still = rules.meta_sgd(0.0)
  estimate = from_start(loop(still), unrolled(loop(still)), START)
  np.testing.assert_allclose(toy.run(estimate, meta_params(still), one)[0][0], expected, rtol=1e-10)


def test_the_evaluation_measures_what_the_estimator_does():
  point, tasks = meta_params(), jax.tree.map(lambda *leaves: jnp.stack(leaves), task(3), task(5))
  found = evaluation.evaluate(loop(), point, tasks, toy.key(), num_tasks=2, metric="loss", start=START)
  estimate = from_start(loop(), unrolled(loop()), START)
  value, _ = toy.jit(jax.vmap(estimate, in_axes=(None, 0, None)))(point, tasks, toy.key())
  np.testing.assert_allclose(found.per_task[:, -1], value[0], rtol=1e-10)


@pytest.mark.parametrize("derivative", ["mixed", pytest.param("reverse", marks=pytest.mark.slow)])
def test_meta_gradient_by_finite_differences(derivative):
  """Eager, compiled and under vmap; the head that is replaced learns nothing, exactly."""
  point, one = meta_params(), task()
  estimate = from_start(loop(), unrolled(loop(), derivative), START)
  compiled = toy.jit(estimate)
  result = compiled(point, one, toy.key())
  toy.assert_slopes(lambda at: compiled(at, one, toy.key())[0][0], point, result[1])
  toy.assert_zero(result[1].initial["head"])
  if derivative == "mixed":
    toy.assert_close(result, estimate(point, one, toy.key()), rtol=1e-9)
  tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), task(5), one)
  mapped = toy.jit(jax.vmap(estimate, in_axes=(None, 0, None)))(point, tasks, toy.key())
  toy.assert_close(jax.tree.map(lambda leaf: leaf[1], mapped), result, rtol=1e-9)


def test_the_gradient_flows_through_the_prototypes():
  """Without that path, at the same point, it is another one."""
  point, one = meta_params(), task()
  through = toy.run(from_start(loop(), unrolled(loop()), START), point, one)
  at = begun(Problem(loop(), point, one, toy.key()), START).meta_params
  held = toy.run(unrolled(loop()), at, one)
  toy.assert_close(through[0], held[0])
  body = [np.asarray(grads.initial["dense_0"]["kernel"]) for _, grads in (through, held)]
  assert np.abs(body[0] - body[1]).max() > 1e-3


def test_padding_is_in_no_prototype():
  point, one = meta_params(), task()
  more = jnp.concatenate([one.support[0], jnp.full((2, 2), 9.0)]), jnp.append(LABELS, jnp.array([0, 1]))
  padded = one._replace(support=padding.Padded(*more, jnp.append(jnp.ones(7), jnp.zeros(2))))
  loss_fn = losses.classification(padding.per_example(NETWORK.apply))
  starts = (
    prototypes(padding.per_example(NETWORK.apply))(Problem(loop()._replace(loss_fn=loss_fn), point, each, toy.key()))
    for each in (one, padded)
  )
  toy.assert_close(*starts)


def test_any_estimator_by_the_chain_rule():
  """A start that scales: Reptile's estimate is scaled with it, and its adaptation starts there."""
  inner = toy.loop()
  scale = lambda problem: problem.meta_params._replace(initial=optax.tree.scale(0.5, problem.meta_params.initial))
  estimator, point = along_trajectory(inner, reptile()), toy.meta_params()
  value, grads = toy.run(from_start(inner, estimator, scale), point, toy.task())
  halved = point._replace(initial=optax.tree.scale(0.5, point.initial))
  expected, plain = toy.run(estimator, halved, toy.task())
  toy.assert_close((value, grads.initial), (expected, optax.tree.scale(0.5, plain.initial)))


def test_the_start_sees_the_batch_of_the_first_step():
  """As for images that a batch function turns into numbers in [0, 1]."""
  point, one = meta_params(), task()
  halved = loop()._replace(batch_fn=lambda key, support, step, params, shared: (support[0] * (0.5 + step), support[1]))
  found = START(Problem(halved, point, one, toy.key())).initial["head"]["kernel"]
  np.testing.assert_allclose(found.T, 2 * centres(point.initial, (one.support[0] * 0.5, LABELS)), rtol=1e-10)


def test_bad_input():
  estimator = unrolled(toy.loop())
  with pytest.raises(ValueError, match=r"start must be a function \(problem\); got 3"):
    from_start(toy.loop(), estimator, 3)
  carried = along_trajectory(toy.loop(), reptile(), carry_optimizer=True)
  with pytest.raises(ValueError, match="grad_fn must be a function without state; got CarriedMetaGrad"):
    from_start(toy.loop(), carried, START)
  with pytest.raises(ValueError, match="start must return meta-parameters of the shapes of its problem's"):
    other = from_start(toy.loop(), estimator, lambda problem: problem.meta_params._replace(initial={"w": jnp.ones(2)}))
    other(toy.meta_params(), toy.task(), toy.key())
  with pytest.raises(ValueError, match="head must be an entry of initial with a kernel and a bias; got 'head' of b, w"):
    from_start(toy.loop(), estimator, START)(toy.meta_params(), toy.task(), toy.key())
  with pytest.raises(ValueError, match="apply must be a function"):
    meta_gradients.prototypes(NETWORK)
