"""Rules made of rules: chain, masked, freeze."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled

pytestmark = pytest.mark.usefixtures("strict")

ONLY_W = {"b": False, "w": True}
ONLY_B = {"b": True, "w": False}


def adapted(rule, meta_params, task):
  return toy.jit(lambda m, t: wj.adapt(toy.loop(rule), m, t, toy.key()).final.params)(meta_params, task)


def test_chain_is_one_rule_after_another():
  rule = rules.chain(rules.meta_sgd(0.5), rules.from_optax(optax.scale(0.2)))
  meta_params, task = toy.meta_params(rule), toy.task()
  toy.assert_close(adapted(rule, meta_params, task), adapted(rules.sgd(0.1), toy.meta_params(), task))


def test_a_chain_without_parameters_needs_none():
  rule = rules.chain(rules.from_optax(optax.clip(1.0)), rules.sgd(0.1))
  point, task = toy.meta_params(rule), toy.task()
  toy.assert_close(adapted(rule, point._replace(rule=()), task), adapted(rule, point, task))


def test_chain_keeps_the_parameters_of_its_rules_apart():
  params, bounds = toy.initial(), (0.0, 1.0)
  rule = rules.chain(rules.meta_sgd(bounds), rules.sgd(0.1), rules.meta_sgd(bounds))
  first, nothing, last = rule.init(toy.key(), params)
  assert nothing == () and jax.tree.structure(first) == jax.tree.structure(last) == jax.tree.structure(params)
  assert all(np.all(a != b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(last), strict=True))


def test_chain_can_be_unrolled_when_all_of_it_can():
  assert rules.chain(rules.sgd(0.1), rules.meta_sgd(0.1)).differentiable
  assert not rules.chain(rules.sgd(0.1), rules.newton_cg(1)).differentiable


@pytest.mark.parametrize(("bad", "got"), [((), "None"), ((optax.sgd(0.1),), "GradientTransformation"), ((0.1,), "0.1")])
def test_chain_takes_rules(bad, got):
  with pytest.raises(ValueError, match=f"chain takes one UpdateRule or more; got {got}"):
    rules.chain(*bad)


def test_masked_takes_a_rule():
  with pytest.raises(ValueError, match="masked takes an UpdateRule and a mask; got 0.1"):
    rules.masked(0.1, {"w": True})


def test_masked_passes_the_rest_unchanged_as_optax_does():
  rule = rules.masked(rules.sgd(0.1), ONLY_W)
  transform, grads = rule.transform(()), toy.draw(5, 3)
  updates, _ = transform.update({"b": grads, "w": grads}, transform.init({"b": grads, "w": grads}))
  toy.assert_close(updates, {"b": grads, "w": -0.1 * grads})


@pytest.mark.parametrize("mask", [ONLY_W, lambda params: {name: name == "w" for name in params}])
def test_masked_has_rule_parameters_for_what_it_moves_alone(mask):
  rule = rules.masked(rules.meta_sgd(0.1), mask)
  (alpha,) = jax.tree.leaves(rule.init(toy.key(), toy.initial()))
  assert alpha.shape == toy.initial()["w"].shape


@pytest.mark.parametrize("base", [rules.adam(0.1), rules.sgd(0.1, 0.9)], ids=["adam", "momentum"])
def test_frozen_leaves_stay_exact(base):
  rule = rules.chain(base, rules.freeze(ONLY_B))
  meta_params, task = toy.meta_params(rule), toy.task()
  final = adapted(rule, meta_params, task)
  np.testing.assert_array_equal(final["b"], meta_params.initial["b"])
  assert np.all(final["w"] != meta_params.initial["w"])


def test_a_mask_may_be_a_prefix():
  params = {"body": {"a": jnp.ones(2), "b": jnp.ones(2)}, "head": jnp.ones(2)}
  transform = rules.chain(rules.sgd(1.0), rules.freeze({"body": True, "head": False})).transform(((), ()))
  updates, _ = transform.update(params, transform.init(params))
  toy.assert_zero(updates["body"])
  np.testing.assert_array_equal(updates["head"], -np.ones(2))


def test_frozen_leaves_have_a_meta_gradient_but_their_step_sizes_have_none():
  """Everything as if the frozen parameters were shared; the rule's parameters for them get exact zeros."""
  frozen = rules.chain(rules.meta_sgd(0.2), rules.freeze(ONLY_B))
  meta_params, task = toy.meta_params(frozen), toy.task()
  value, grads = toy.run(unrolled(toy.loop(frozen)), meta_params, task)
  alpha, _ = grads.rule
  toy.assert_zero(alpha["b"])
  assert np.all(alpha["w"] != 0)

  def loss_fn(params, shared, batch):
    warp, b = shared
    return toy.loss_fn({"b": b, "w": params["w"]}, warp, batch)

  moved = meta_params._replace(
    initial={"w": meta_params.initial["w"]},
    shared=(meta_params.shared, meta_params.initial["b"]),
    rule={"w": meta_params.rule[0]["w"]},
  )
  loop = toy.loop(rules.meta_sgd(0.2), loss_fn=loss_fn)
  other_value, other = toy.run(unrolled(loop), moved, task)
  mine = (grads.initial["w"], (grads.shared, grads.initial["b"]), alpha["w"])
  toy.assert_close((value, *mine), (other_value, other.initial["w"], other.shared, other.rule["w"]))


def test_masked_meta_sgd_is_frozen_meta_sgd_without_the_step_sizes_of_the_frozen():
  masked = rules.chain(rules.masked(rules.meta_sgd(0.2), ONLY_W), rules.freeze(ONLY_B))
  whole = rules.chain(rules.meta_sgd(0.2), rules.freeze(ONLY_B))
  results = [toy.run(unrolled(toy.loop(rule)), toy.meta_params(rule), toy.task()) for rule in (masked, whole)]
  (value, grads), (other_value, other) = results
  toy.assert_close((value, grads[:2]), (other_value, other[:2]))
  (alpha,) = jax.tree.leaves(grads.rule)
  np.testing.assert_allclose(alpha, other.rule[0]["w"], rtol=1e-10)
