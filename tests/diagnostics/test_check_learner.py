"""The sanity report: a sound learner passes, and each fault is found by its check."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import diagnostics, meta_gradients, rules
from warpjax.diagnostics import data
from warpjax.types import MetaParams, Task


def sampler(key):
  support, query = jax.random.normal(key, (2, 2, 4, 2))
  return Task(tuple(support), tuple(query))


def report(inner=None, meta_params=None, **kwargs):
  inner = inner or toy.loop(num_steps=2)
  return diagnostics.check_learner(inner, meta_params or toy.meta_params(), sampler, toy.key(), num_tasks=4, **kwargs)


@pytest.fixture(scope="module")
def sound():
  return report(held_out=lambda key: sampler(jax.random.fold_in(key, 9)))


def test_a_sound_learner_passes(sound):
  assert sound.ok
  assert {check.name: check.status for check in sound.checks} == {
    "finite differences": "passed",
    "order": "passed",
    "zero leaves": "passed",
    "rule at zero": "passed",
    "query batch": "passed",
    "keys": "passed",
    "examples": "passed",
    "classes": "skipped",
    "held out": "passed",
  }
  assert len(str(sound).splitlines()) == len(sound.checks)
  with pytest.raises(ValueError, match="name must be one of 'finite differences', .* got 'ordre'"):
    sound["ordre"]


def test_a_loss_that_stops_its_gradient_fails_the_finite_differences_and_leaves_a_zero_leaf():
  def loss_fn(params, shared, batch):
    value, aux = toy.loss_fn({**params, "b": jax.lax.stop_gradient(params["b"])}, shared, batch)
    return value, aux

  found = report(toy.loop(num_steps=2, loss_fn=loss_fn))
  assert found["finite differences"].status == "failed" and not found.ok
  assert found["zero leaves"].status == "warning" and "initial/b" in found["zero leaves"].finding


def test_a_gradient_that_is_round_off_is_told_apart():
  """A constant added to all outputs goes where their mean is taken away, as a bias in front of a batch norm does."""

  def loss_fn(params, shared, batch):
    x, y = batch
    outputs = x @ params["w"] + params["b"][None]
    return jnp.mean((outputs - outputs.mean(0, keepdims=True) - 0.7 * y[:, :1]) ** 2), {}

  found = report(toy.loop(num_steps=2, loss_fn=loss_fn), MetaParams(toy.initial()))
  assert found["zero leaves"].status == "warning" and "initial/b" in found["zero leaves"].finding
  assert found["query batch"].status == "note" and "transductive" in found["query batch"].finding


def test_first_order_and_estimates_are_told_from_second_order():
  inner = toy.loop(num_steps=2)
  first = report(inner, meta_grad=meta_gradients.unrolled(inner, "first_order"))["order"]
  assert first.status == "note" and first.finding.startswith("first order")
  reptile = meta_gradients.along_trajectory(inner, meta_gradients.reptile(), carry_optimizer=True)
  found = report(inner, meta_grad=reptile)
  assert found["order"].finding.startswith("an estimate") and "initial has cosine" in found["order"].finding
  assert "shared/warp" in found["zero leaves"].finding
  linear = toy.loop(num_steps=2, loss_fn=lambda params, shared, batch: (jnp.sum(params["w"] * batch[0][:2, :1]), {}))
  assert report(linear, MetaParams(toy.initial()))["order"].status == "warning"


@pytest.mark.parametrize(("eps_root", "status"), [(0.0, "failed"), (1e-8, "passed")])
def test_adam_at_a_gradient_of_zero(eps_root, status):
  assert report(toy.loop(rules.adam(0.1, eps_root=eps_root), 2))["rule at zero"].status == status


def test_a_rule_that_cannot_be_unrolled_is_skipped_with_a_reason():
  inner = toy.loop(rules.newton_cg(2, damping=1.0), 1)
  found = report(inner)
  for name in ("finite differences", "order", "zero leaves", "rule at zero"):
    assert found[name].status == "skipped" and inner.rule.name in found[name].finding


def images(*, shared_examples=0, classes=(0, 1)):
  """Four tasks of two examples in the support and two in the query set; the first `shared_examples` are in both."""
  x = np.random.default_rng(0).random((4, 4, 3, 3))
  x[:, 2 : 2 + shared_examples] = x[:, :shared_examples]
  y = np.tile(np.array([0, 1, *classes], np.int32), (4, 1))
  return Task((x[:, :2], y[:, :2]), (x[:, 2:], y[:, 2:]))


def test_a_sampler_that_ignores_its_key_is_seen():
  loss = wj.losses.classification(lambda params, shared, x: x.reshape(-1, 9) @ params)
  inner, start, tasks = wj.InnerLoop(loss, rules.sgd(0.1), 1), MetaParams(jnp.full((9, 3), 0.1)), images()
  for chosen, status in ((lambda key: 0, "note"), (lambda key: jax.random.randint(key, (), 0, 4), "passed")):
    sampler = lambda key, chosen=chosen: jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen(key)], tasks)
    assert diagnostics.check_learner(inner, start, sampler, toy.key())["keys"].status == status


def test_leaks_between_sets():
  loss = wj.losses.classification(lambda params, shared, x: x.reshape(-1, 9) @ params)
  inner, start = wj.InnerLoop(loss, rules.sgd(0.1), 1), MetaParams(jnp.full((9, 3), 0.1))
  check = lambda tasks, **kwargs: diagnostics.check_learner(inner, start, tasks, toy.key(), **kwargs)
  sound = check(images(), held_out=jax.tree.map(lambda leaf: leaf + 1, images()))
  assert [sound[name].status for name in ("examples", "classes", "held out")] == ["passed"] * 3
  leaky = check(images(shared_examples=1, classes=(0, 2)), held_out=images())
  assert leaky["examples"].finding.startswith("4 of 4") and leaky["classes"].finding.startswith("4 of 4")
  assert leaky["held out"].finding.startswith("12 of 16")
  turned = jax.tree.map(lambda leaf: np.rot90(leaf, axes=(2, 3)) if leaf.ndim > 2 else leaf, images())
  assert data.held_out(*jax.tree.map(jnp.asarray, (images(), turned))).status == "warning"
  assert not leaky.ok


def test_zero_leaves_are_named_by_their_path():
  tree = MetaParams({"conv": {"kernel": jnp.ones(2), "bias": jnp.zeros(2)}}, jnp.zeros(()))
  assert diagnostics.zero_leaves(tree) == ["initial/conv/bias", "shared"]


def test_bad_input():
  with pytest.raises(ValueError, match="num_tasks must be an integer of at least 1; got 0"):
    diagnostics.check_learner(toy.loop(), toy.meta_params(), sampler, toy.key(), num_tasks=0)
  with pytest.raises(ValueError, match="inner must be an InnerLoop"):
    diagnostics.check_learner(toy.loss_fn, toy.meta_params(), sampler, toy.key())
