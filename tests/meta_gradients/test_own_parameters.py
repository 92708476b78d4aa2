"""Parameters that each task draws for itself: the meta-gradient is that at the point drawn, zero for what was drawn."""

from __future__ import annotations

import jax
import optax
import pytest

from tests import toy
from warpjax import meta_gradients, rules
from warpjax.meta_gradients import along_trajectory, leap, own_parameters, reptile, unrolled
from warpjax.types import Task

pytestmark = pytest.mark.usefixtures("strict")


def own_bias(key, initial):
  return {"b": jax.random.normal(key, initial["b"].shape, initial["b"].dtype)}


@pytest.mark.parametrize("make", [unrolled, lambda inner: along_trajectory(inner, leap(), reptile())])
def test_it_is_the_estimator_at_the_point_drawn(make):
  """The point is read off the estimator, so that the test need not know which key draws it."""
  estimator = make(toy.loop())

  def tells_its_point(meta_params, task, key):
    (value, aux), grads = estimator(meta_params, task, key)
    return (value, {**aux, "point": meta_params}), grads

  meta_params, task = toy.meta_params(), toy.task()
  (value, aux), grads = toy.run(own_parameters(tells_its_point, own_bias), meta_params, task)
  drawn = aux.pop("point")
  assert (drawn.initial["b"] != meta_params.initial["b"]).all()
  toy.assert_close(drawn._replace(initial=drawn.initial["w"]), meta_params._replace(initial=meta_params.initial["w"]))
  (expected, expected_aux), full = toy.run(estimator, drawn, task)
  toy.assert_close((value, aux, grads.initial["w"]), (expected, expected_aux, full.initial["w"]))
  toy.assert_close((grads.shared, grads.rule), (full.shared, full.rule))
  toy.assert_zero(grads.initial["b"])
  assert (full.initial["b"] != 0).all()


def test_finite_differences_agree():
  estimate, task = own_parameters(unrolled(toy.loop()), own_bias), toy.task()
  value = jax.jit(lambda meta_params: estimate(meta_params, task, toy.key())[0][0])
  _, grads = toy.run(estimate, toy.meta_params(), task)
  toy.assert_slopes(value, toy.meta_params(), grads)


def test_where_training_starts_does_not_matter_for_what_is_drawn():
  meta_params, task = toy.meta_params(), toy.task()
  elsewhere = meta_params._replace(initial={**meta_params.initial, "b": meta_params.initial["b"] + 1})
  estimate = own_parameters(unrolled(toy.loop()), own_bias)
  toy.assert_close(toy.run(estimate, meta_params, task), toy.run(estimate, elsewhere, task), rtol=0, atol=0)


def test_every_task_draws_its_own():
  estimate = own_parameters(unrolled(toy.loop()), own_bias)
  one = toy.task()
  tasks = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * 3), one)
  same_key, keys = jax.numpy.stack([toy.key()] * 3), jax.random.split(toy.key(), 3)
  losses = lambda keys: toy.jit(jax.vmap(estimate, (None, 0, 0)))(toy.meta_params(), Task(*tasks), keys)[0][0]
  assert len(set(map(float, losses(same_key)))) == 1
  assert len(set(map(float, losses(keys)))) == 3


@pytest.mark.parametrize(
  ("draw", "message"),
  [
    (lambda key, initial: {"c": initial["b"]}, r"draw must return a dict of entries of initial, \['b', 'w'\]; got"),
    (lambda key, initial: initial["b"], "draw must return a dict of entries .*; got "),
    (lambda key, initial: {"b": initial["w"]}, r"draw must return 'b' with the shapes of initial, .*\(3,\).*; got"),
    (
      lambda key, initial: {"b": initial["b"].astype("float32")},
      "draw must return 'b' with .*float64.*; got .*float32",
    ),
    (lambda key, initial: {"b": {"b": initial["b"]}}, "draw must return 'b' with the shapes"),
  ],
)
def test_what_does_not_fit_is_refused(draw, message):
  with pytest.raises(ValueError, match=message):
    own_parameters(unrolled(toy.loop()), draw)(toy.meta_params(), toy.task(), toy.key())


def test_other_initial_parameters_are_refused():
  draw = lambda key, initial: {"b": initial}
  with pytest.raises(ValueError, match="draw must return a dict of entries of initial, "):
    own_parameters(unrolled(toy.loop()), draw)(
      toy.meta_params()._replace(initial=jax.numpy.ones(3)), toy.task(), toy.key()
    )


def test_a_meta_gradient_with_state_is_refused():
  carried = along_trajectory(toy.loop(rules.from_optax(optax.sgd(0.1, momentum=0.9))), reptile(), carry_optimizer=True)
  with pytest.raises(ValueError, match="grad_fn must be a function without state; got CarriedMetaGrad"):
    own_parameters(carried, own_bias)
  with pytest.raises(ValueError, match="draw must be a function"):
    own_parameters(unrolled(toy.loop()), {"b": 0})


def test_its_earlier_name_is_the_same_function():
  assert meta_gradients.redrawn is own_parameters
