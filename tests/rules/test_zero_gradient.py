"""No rule makes the meta-gradient NaN where a gradient is zero: it is safe, or refused before anything compiles."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

import warpjax as wj
from tests import toy
from tests.test_conformance import DIFFERENTIATES_A_STEP, ESTIMATORS, RULES, SETTINGS, one_task
from warpjax import compilation, meta_gradients, rules, training
from warpjax.training import replay
from warpjax.training.optimizers import per_block
from warpjax.types import MetaParams, Task
from warpjax.zero_gradient import is_finite_at_zero

pytestmark = pytest.mark.usefixtures("strict")

ADAPTIVE = {
  "adam": rules.adam,
  "adamw": rules.adamw,
  "amsgrad": rules.amsgrad,
  "nadam": rules.nadam,
  "rmsprop": rules.rmsprop,
  "adagrad": rules.adagrad,
}
# What optax's aliases do, by the derivative of three steps in gradients and parameters, forward and reverse, jitted.
SAFE = {
  name: getattr(optax, name)
  for name in ("adabelief", "adadelta", "adagrad", "adamax", "adan", "lion", "rmsprop", "rprop", "sgd", "sm3", "yogi")
}
REFUSED = {
  "an element": {
    **{
      name: getattr(optax, name)
      for name in ("adam", "adamw", "amsgrad", "lamb", "nadam", "nadamw", "optimistic_adam_v2", "radam")
    },
    "centred": functools.partial(optax.rmsprop, eps_in_sqrt=False, centered=True),
    "masked": lambda rate: optax.masked(optax.adam(rate), {"b": False, "w": True}),
    "true shapes": lambda rate: optax.chain(
      optax.stateless(lambda updates, params: {**updates, "w": updates["w"] * jnp.ones((2, 3))}), optax.adam(rate)
    ),
    "by shape": lambda rate: optax.masked(optax.adam(rate), lambda p: jax.tree.map(lambda a: a.shape == (2, 3), p)),
    "partition": lambda rate: optax.partition({"a": optax.adam(rate), "s": optax.sgd(rate)}, {"b": "s", "w": "a"}),
  },
  "a tensor": {
    "adafactor": optax.adafactor,
    "lars": optax.lars,
    "novograd": optax.novograd,
    "agc": lambda rate: optax.adaptive_grad_clip(0.1),
    "block_rms": lambda rate: optax.clip_by_block_rms(1.0),
  },
  "the whole gradient": {
    "polyak": optax.polyak_sgd,
    "clip_by_global_norm": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate)),
    "normalize": lambda rate: optax.normalize_by_update_norm(),
  },
}
# The quick tests try one of each kind, and every way in which a rule takes apart its parameters.
QUICK = ("adam", "true shapes", "by shape", "partition", "lars", "clip_by_global_norm", "adagrad")


def case(*values):
  """A case whose last value is its name."""
  return pytest.param(*values, marks=() if values[-1] in QUICK else pytest.mark.slow)


ALL_REFUSED = [case(where, name) for where, made in REFUSED.items() for name in made]


def relu_loss(params, shared, batch):
  """A network with a dead unit: the second column of `w` has a gradient of exactly zero."""
  x, y = batch
  hidden = jax.nn.relu(x**2 @ params["w"] + params["b"][None])
  error = jnp.mean((hidden @ shared["warp"] - y) ** 2)
  return error, {"mse": error}


def dead_unit(rule):
  meta_params = toy.meta_params(rule)
  initial = {"b": np.array([0.0, -9.0, 0.0]), "w": np.abs(meta_params.initial["w"])}
  initial["w"][:, 1] = -1.0
  return meta_params._replace(initial=jax.tree.map(jnp.asarray, initial))


DEAD_UNITS = [("adam", "mixed"), ("adagrad", "mixed"), ("adamw", "reverse")]
OTHERS = [pytest.param(name, "mixed", marks=pytest.mark.slow) for name in ("adamw", "amsgrad", "nadam", "rmsprop")]


@pytest.mark.parametrize(("name", "derivative"), DEAD_UNITS + OTHERS)
def test_a_dead_unit(name, derivative):
  """Its own meta-gradient is that of a parameter nobody reads, and the others' are those of finite differences."""
  rule = ADAPTIVE[name](0.05)
  inner, meta_params = toy.loop(rule, loss_fn=relu_loss), dead_unit(rule)
  estimate = toy.jit(meta_gradients.unrolled(inner, derivative))
  gradient = estimate(meta_params, toy.task(), toy.key())[1]
  toy.assert_zero((gradient.initial["b"][1], gradient.initial["w"][:, 1]))
  toy.assert_slopes(lambda point: estimate(point, toy.task(), toy.key())[0][0], meta_params, gradient)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_equal_to_optax_s_own(name):
  """At the same numbers they are optax's optimizers, whose `eps_root` is 0 by default."""
  extra = {} if name in ("rmsprop", "adagrad") else {"eps_root": 1e-8}
  mine, theirs = ADAPTIVE[name](0.1).transform(()), getattr(optax, name)(0.1, **extra)
  params = jnp.array([1.0, -2.0, 0.5])

  def steps(transform):
    state, out = transform.init(params), []
    for gradient in ([1.0, -2.0, 0.0], [0.5, 0.0, 0.0], [-3.0, 1.0, 0.0]):
      updates, state = transform.update(jnp.array(gradient), state, params)
      out.append(updates)
    return jnp.stack(out)

  np.testing.assert_array_equal(*toy.jit(lambda: (steps(mine), steps(theirs)))())


@pytest.mark.parametrize("num_zeros", [0, pytest.param(1, marks=pytest.mark.slow), 3])
def test_clipping_by_norm(num_zeros):
  transform = rules.clip_by_global_norm(1.0).transform(())
  theirs = optax.clip_by_global_norm(1.0)
  clip, wanted = (
    jax.jit(lambda grads, made=made: made.update(grads, optax.EmptyState())[0]) for made in (transform, theirs)
  )
  for size in (0.1, 10.0):
    grads = size * jnp.array([1.0, -2.0, 0.5]).at[:num_zeros].set(0.0)
    np.testing.assert_allclose(clip(grads), wanted(grads), rtol=1e-14)
    check_grads(clip, (grads,), order=1, modes=["fwd", "rev"], rtol=1e-6)
  assert bool(jnp.isfinite(toy.jit(jax.jacrev(clip))(jnp.zeros(3))).all())


@pytest.mark.parametrize(("factory", "name"), [(rules.adamw, "rules"), (optax.adamw, "optax")])
def test_the_table_s_own_row_on_the_sine(factory, name):
  """`learned(optax.adamw, learning_rate=0.01)` was NaN from the second meta-step on this network."""
  network = wj.networks.from_linen(wj.networks.MLP((40, 40)))
  sampler = wj.tasks.sinusoid.sampler("maml", shots=5, queries=5)
  rule, optimizer = rules.learned(factory, learning_rate=0.01), optax.adam(1e-3)
  params, shared = toy.init(network, jnp.ones((5, 1)))
  state = training.init(jax.random.key(0), rule, params, shared, optimizer)
  inner = wj.InnerLoop(wj.losses.regression(network.apply), rule, num_steps=2)
  step = training.meta_step(meta_gradients.unrolled(inner), optimizer)
  run = toy.jit(training.many_steps(step, sampler, tasks_per_step=4, num_steps=5))
  if name == "optax":
    with pytest.raises(ValueError, match=r"'learned': .* an element .* write .*rules.learned\(rules.adam, learning"):
      run(state)
    return
  state, metrics = run(state)
  assert np.all(metrics["finite"]) and rule.values(state.meta_params.rule)["learning_rate"] != 0.01


@pytest.mark.parametrize(("where", "name"), ALL_REFUSED)
def test_optax_s_own_is_refused(where, name):
  rule = rules.from_optax(REFUSED[where][name](0.1))
  call = meta_gradients.unrolled(toy.loop(rule))
  with pytest.raises(ValueError, match=f"unrolled cannot differentiate the rule 'from_optax': .*({where}|anywhere).*;"):
    jax.eval_shape(call, toy.meta_params(), toy.task(), toy.key())


@pytest.mark.parametrize("name", SAFE)
def test_optax_s_own_is_taken_where_it_is_safe(name):
  assert is_finite_at_zero(rules.from_optax(SAFE[name](0.1)), toy.initial())


def test_an_eps_root_is_all_that_adam_needs():
  rule = rules.from_optax(optax.adamw(0.1, eps_root=1e-8))
  inner = toy.loop(rule, loss_fn=relu_loss)
  gradient = toy.run(meta_gradients.unrolled(inner), dead_unit(rule), toy.task())[1]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


TOO_SMALL = {
  "adam": lambda: rules.adam(0.01, eps_root=1e-40),
  "adamw": lambda: rules.adamw(0.01, eps_root=1e-40),
  "amsgrad": lambda: rules.amsgrad(0.01, eps_root=1e-40),
  "nadam": lambda: rules.nadam(0.01, eps_root=1e-40),
  "rmsprop": lambda: rules.rmsprop(0.01, eps=1e-30),
  "adagrad": lambda: rules.adagrad(0.01, 0.0, 1e-30),
}


@pytest.mark.parametrize("name", [case(name) for name in TOO_SMALL])
def test_too_little_under_the_root_is_refused(name):
  """In single precision its derivative is not finite; in double precision it may be."""
  rule = TOO_SMALL[name]()
  call = meta_gradients.unrolled(toy.loop(rule))
  with pytest.raises(
    ValueError, match=f"unrolled cannot differentiate the rule '{name}': .* an element of the gradient"
  ):
    jax.eval_shape(call, toy.meta_params(dtype=jnp.float32), toy.task(dtype=jnp.float32), toy.key())
  least = {"adagrad": {"initial_accumulator": 0.0, "eps": 1e-20}, "rmsprop": {"eps": 1e-20}}.get(
    name, {"eps_root": 1e-20}
  )
  enough = getattr(rules, name)(0.01, **least)
  assert enough.finite_at_zero and is_finite_at_zero(enough, toy.initial(jnp.float32))


@pytest.mark.parametrize("mode", ["reverse", pytest.param("forward", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name for name in RULES if RULES[name]().differentiable])
def test_what_the_rules_say_of_themselves_is_so(name, mode):
  """Reverse mode multiplies by zero more often."""
  rule = RULES[name]()
  assert not rule.finite_at_zero or is_finite_at_zero(rule, toy.initial(), mode=mode)


def test_an_unsafe_part_makes_a_chain_unsafe_and_a_safe_one_is_not_tried():
  unsafe = rules.adam(0.1, eps_root=0.0)
  assert unsafe.finite_at_zero is None and rules.chain(rules.sgd(0.1), unsafe).finite_at_zero is None
  assert rules.masked(rules.adam(0.1), {"b": True, "w": False}).finite_at_zero
  promised = unsafe._replace(finite_at_zero=True)
  jax.eval_shape(meta_gradients.unrolled(toy.loop(promised)), toy.meta_params(), toy.task(), toy.key())


@pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=pytest.mark.slow if name in (*SETTINGS, "warp_maml") else ()) for name in ESTIMATORS],
)
def test_refused_only_where_the_rule_is_differentiated(name):
  """Reptile's `b1=0, eps_root=0` goes on working, and so does every estimator that holds the update constant."""
  rule = rules.adam(0.05, b1=0.0, eps_root=0.0)
  call = one_task(ESTIMATORS[name](toy.loop(rule)))
  shapes = lambda: jax.eval_shape(call, toy.meta_params(rule), toy.task(), toy.key())
  if name in set(DIFFERENTIATES_A_STEP) - {"first_order", "truncated_unroll"}:
    with pytest.raises(ValueError, match="cannot differentiate the rule 'adam'"):
      shapes()
  else:
    shapes()


def test_learned_decays_are_refused_where_only_they_are_differentiated():
  """Under "first_order" the gradient is constant: Adam's step size has a derivative at zero, its decay has none."""
  for hyper, allowed in (({"learning_rate": 0.1}, True), ({"learning_rate": 0.1, "b2": 0.9}, False)):
    rule = rules.learned(optax.adam, **hyper)
    call = meta_gradients.unrolled(toy.loop(rule), "first_order")
    if allowed:
      toy.run(call, toy.meta_params(rule), toy.task())
    else:
      with pytest.raises(ValueError, match="cannot differentiate the rule 'learned'"):
        toy.run(call, toy.meta_params(rule), toy.task())


def test_offline_replay_refuses_it_too():
  rule = rules.from_optax(optax.adam(0.1))
  optimizer = per_block(optax.sgd(0.1))
  state = training.init(toy.key(), rule, toy.initial(), toy.shared(), optimizer)
  with pytest.raises(ValueError, match="cannot differentiate the rule 'from_optax'"):
    jax.eval_shape(replay.meta_step(toy.loop(rule), optimizer, eta=None), state, toy.tasks(2))
  jax.eval_shape(replay.meta_step(toy.loop(rule), optimizer, objective="first_order", eta=None), state, toy.tasks(2))


def test_the_first_probe_of_a_process_is_inside_of_a_trace():
  """Whoever asks for compiler options there must not call what they are of."""
  compilation.fast_compilation.cache_clear()
  rule = rules.from_optax(optax.adamw(0.1))
  with pytest.raises(ValueError, match="cannot differentiate the rule 'from_optax'"):
    jax.eval_shape(meta_gradients.unrolled(toy.loop(rule)), toy.meta_params(), toy.task(), toy.key())


def test_values_in_their_own_units():
  first = rules.learned(rules.adamw, positive=("learning_rate",), learning_rate=0.01, weight_decay=0.1)
  rule = rules.chain(rules.masked(first, {"b": False, "w": True}), rules.meta_sgd(0.5))
  rule_params = rule.init(toy.key(), toy.initial())
  np.testing.assert_allclose(rule_params[0]["log_learning_rate"], np.log(0.01), rtol=1e-12)
  of_first, of_second = rule.values(rule_params)
  np.testing.assert_allclose([of_first["learning_rate"], of_first["weight_decay"]], [0.01, 0.1], rtol=1e-12)
  toy.assert_close(of_second, rule_params[1])


def test_a_learned_rule_is_the_rule():
  """`learned(rules.adamw)` steps as `rules.adamw`, and its step size has the derivative of finite differences."""
  rule = rules.learned(rules.adamw, learning_rate=0.05, weight_decay=0.1)
  plain = toy.run(meta_gradients.unrolled(toy.loop(rules.adamw(0.05, weight_decay=0.1))), toy.meta_params(), toy.task())
  estimate = toy.jit(meta_gradients.unrolled(toy.loop(rule)))
  point = toy.meta_params(rule)
  value, gradient = estimate(point, toy.task(), toy.key())
  toy.assert_close((value, tuple(gradient[:2])), (plain[0], tuple(plain[1][:2])))
  toy.assert_slopes(lambda at: estimate(at, toy.task(), toy.key())[0][0], point, gradient)


def test_the_probe_runs_while_something_else_is_traced():
  loss = lambda params, shared, batch: (0.5 * jnp.sum((params - batch) ** 2), {})
  call = meta_gradients.unrolled(wj.InnerLoop(loss, rules.from_optax(optax.rmsprop(0.1)), 1))
  many = jax.jit(jax.vmap(lambda target: call(MetaParams(jnp.ones(2)), Task(target, target), toy.key())[1].initial))
  assert bool(jnp.isfinite(many(jnp.ones((3, 2)))).all())
