"""What has no derivative is no parameter: every entry refuses an integer, a boolean or a random key by its path."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from tests.rl import tabular
from tests.test_conformance import ESTIMATORS, one_task
from warpjax import evaluation, meta_gradients, rl, rules, training
from warpjax.training import replay
from warpjax.training.optimizers import per_block
from warpjax.types import CarriedMetaGrad, MetaParams

pytestmark = pytest.mark.usefixtures("strict")

LEAVES = {
  "integers": lambda: jnp.array([3, 1, 2, 0], jnp.int32),
  "a boolean": lambda: jnp.array(True),
  "a key": lambda: jax.random.key(0),
  "numpy": lambda: np.array([1, 2]),
  "python": lambda: 3,
}
PATHS = [(block, kind) for block in MetaParams._fields for kind in LEAVES]


def with_leaf(block, kind):
  """The meta-parameters with a table in a block, which the loss need not read."""
  meta_params = toy.meta_params()
  return meta_params._replace(**{block: {**dict(getattr(meta_params, block) or {}), "table": LEAVES[kind]()}})


def refusal(block):
  return rf"MetaParams.{block}\['table'\] must be real or complex numbers, as it is learned; got"


@pytest.mark.parametrize("name", [*ESTIMATORS, "blockwise", "own_parameters", "online"])
@pytest.mark.parametrize("block", MetaParams._fields)
def test_every_estimator(name, block):
  rule = toy.loop().rule
  if block == "rule":
    rule = rule._replace(init=lambda key, params: with_leaf(block, "integers").rule)
  inner = toy.loop(rule)
  others = {
    "blockwise": lambda: meta_gradients.blockwise(initial=meta_gradients.unrolled(inner)),
    "own_parameters": lambda: meta_gradients.own_parameters(
      ESTIMATORS["reptile"](inner), lambda key, initial: {"b": initial["b"]}
    ),
    "online": lambda: rl.online(inner),
  }
  estimator = others[name]() if name in others else ESTIMATORS[name](inner)
  meta_params = with_leaf(block, "integers")
  if isinstance(estimator, CarriedMetaGrad):  # the carry is made from sound parameters, so that `grad` is asked alone
    carry = estimator.init(toy.meta_params())
    call = lambda *args: estimator.grad(*args, carry)
  else:
    call = one_task(estimator)
  with pytest.raises(ValueError, match=refusal(block) + r" int32 of shape \(4,\); put"):
    jax.eval_shape(call, meta_params, toy.task(), toy.key())


@pytest.mark.parametrize(("block", "kind"), PATHS)
def test_the_start_of_training(block, kind):
  meta_params, rule = with_leaf(block, kind), rules.sgd(0.1)
  if block == "rule":
    rule = rule._replace(init=lambda key, params: meta_params.rule)
  with pytest.raises(ValueError, match=refusal(block)):
    training.init(toy.key(), rule, meta_params.initial, meta_params.shared, optax.adamw(1e-3))


@pytest.mark.parametrize("kind", LEAVES)
@pytest.mark.parametrize("block", ["initial", "shared"])
def test_adaptation_and_evaluation(block, kind):
  meta_params, inner = with_leaf(block, kind), toy.loop()
  with pytest.raises(ValueError, match=refusal(block)):
    wj.adapt(inner, meta_params, toy.task(), toy.key())
  with pytest.raises(ValueError, match=refusal(block)):
    evaluation.evaluate(inner, meta_params, toy.tasks(2), toy.key(), num_tasks=2, metric="mse")


@pytest.mark.parametrize("block", MetaParams._fields)
def test_steps_that_are_no_estimator_s(block):
  """The replay, TRPO and PPO read the state's meta-parameters themselves."""
  optimizer = per_block(optax.sgd(0.1))
  state = training.init(toy.key(), rules.sgd(0.1), toy.initial(), toy.shared(), optimizer)
  broken = state._replace(meta_params=with_leaf(block, "integers"))
  with pytest.raises(ValueError, match=refusal(block)):
    jax.eval_shape(replay.meta_step(toy.loop(), optimizer, eta=None), broken, toy.tasks(2))
  inner = tabular.listed_loop()
  for step in (rl.trpo.meta_step(inner), rl.ppo.meta_step(inner, optimizer)):
    with pytest.raises(ValueError, match=refusal(block)):
      jax.eval_shape(step, broken, toy.tasks(2))


def test_the_table_of_the_report():
  """An integer table in `shared` decayed from [3, 1, 2, 0] to zeros in three steps of adamw(1e-3), `finite` True."""
  loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
  inner, optimizer = wj.InnerLoop(loss, rules.sgd(0.5), 1), optax.adamw(1e-3)
  meta_params = MetaParams(jnp.array(0.0), {"table": jnp.array([3, 1, 2, 0])})
  step = training.meta_step(meta_gradients.along_trajectory(inner, meta_gradients.reptile()), optimizer)
  state = training.TrainState(meta_params, optimizer.init(meta_params), jnp.zeros((), jnp.int32), toy.key())
  with pytest.raises(ValueError, match=refusal("shared")):
    jax.jit(step)(state, wj.Task(jnp.array([4.0]), jnp.array([4.0])))
