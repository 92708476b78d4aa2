"""Every rule with every estimator: one table each, and a new rule or estimator is one row."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toy
from warpjax import linear_solve, meta_gradients, rules
from warpjax.types import CarriedMetaGrad, MetaParams

pytestmark = pytest.mark.usefixtures("strict")

RULES = {
  "sgd": lambda: rules.sgd(0.1),
  "momentum": lambda: rules.sgd(0.1, 0.9, nesterov=True),
  "adam": lambda: rules.adam(0.05),
  "from_optax": lambda: rules.from_optax(optax.rmsprop(optax.exponential_decay(0.05, 1, 0.8), eps=1e-3)),
  "meta_sgd": lambda: rules.meta_sgd((0.01, 0.2)),
  "per_step_sgd": lambda: rules.per_step_sgd(0.1, 2),
  "per_step_values": lambda: rules.chain(
    rules.masked(rules.sgd(0.1), {"b": False, "w": True}),
    rules.masked(rules.per_step_values(3), {"b": True, "w": False}),
  ),
  "kronecker": lambda: rules.kronecker(0.1),
  "alfa": lambda: rules.alfa(0.1, 2),
  "learned": lambda: rules.learned(
    lambda **hyper: rules.adamw(eps_root=1e-3, **hyper), positive=("learning_rate",), learning_rate=0.05, b1=0.8
  ),
  "meta_lstm": lambda: rules.meta_lstm(3),
  "l2l_lstm": lambda: rules.l2l_lstm((3, 2), p=3.0, scale=0.1),
  "preconditioned": lambda: rules.preconditioned(
    lambda scale, params, grads: jax.tree.map(lambda s, p, g: s * g / (1 + p**2), scale, params, grads),
    0.1,
    lambda key, params: jax.tree.map(jnp.ones_like, params),
  ),
  "chain": lambda: rules.chain(
    rules.clip_by_global_norm(2.0), rules.meta_sgd(0.5), rules.sgd(0.3, 0.9), rules.from_optax(optax.scale(-1.0))
  ),
  "masked": lambda: rules.chain(
    rules.masked(rules.meta_sgd(0.1), {"b": False, "w": True}), rules.freeze({"b": True, "w": False})
  ),
  "newton_cg": lambda: rules.newton_cg(2, damping=1.0),
  "lbfgs": lambda: rules.from_optax(
    optax.lbfgs(memory_size=2, linesearch=optax.scale_by_zoom_linesearch(5)), differentiable=False
  ),
}
UNROLLABLE = [name for name in RULES if name not in ("newton_cg", "lbfgs")]

along, SOLVE = meta_gradients.along_trajectory, linear_solve.cg(3)


def start(problem):
  """The parameters, larger by what the support set says."""
  initial, (x, *_) = problem.meta_params.initial, jax.tree.leaves(problem.task.support)
  made = jax.tree.map(lambda leaf: (leaf * (1 + jnp.mean(x) ** 2)).astype(leaf.dtype), initial)
  return problem.meta_params._replace(initial=made)


ESTIMATORS = {
  "mixed": lambda inner: meta_gradients.unrolled(inner),
  "reverse": lambda inner: meta_gradients.unrolled(inner, "reverse"),
  "first_order": lambda inner: meta_gradients.unrolled(inner, "first_order"),
  "truncated": lambda inner: meta_gradients.unrolled(inner, truncate=1),
  "multi_step": lambda inner: meta_gradients.unrolled(
    inner, step_weights=meta_gradients.annealed_step_weights(inner.num_steps, 2)
  ),
  "truncated_unroll": lambda inner: meta_gradients.truncated_unroll(inner, inner.num_steps),
  "reptile": lambda inner: along(inner, meta_gradients.reptile()),
  "reptile_carried": lambda inner: along(inner, meta_gradients.reptile(), carry_optimizer=True),
  "reptile_weighted": lambda inner: along(inner, meta_gradients.reptile((0.5, *[2.0] * (inner.num_steps - 1)))),
  "leap": lambda inner: along(inner, meta_gradients.leap()),
  "implicit": lambda inner: along(inner._replace(prox=0.5), meta_gradients.implicit(SOLVE)),
  "implicit_released": lambda inner: along(inner._replace(prox=0.5), meta_gradients.implicit_released()),
  "warm_implicit": lambda inner: meta_gradients.warm_implicit(inner._replace(prox=0.5), SOLVE),
  "warm_implicit_params": lambda inner: meta_gradients.warm_implicit(
    inner._replace(prox=0.5), linear_solve.identity(), carry_params=True
  ),
  "penalty": lambda inner: meta_gradients.penalty(inner, 2.0),
  "penalty_carried": lambda inner: meta_gradients.penalty(inner, lambda count: 0.5 + count, num_steps=1, carried=True),
  "sama": lambda inner: along(inner, meta_gradients.sama()),
  "soba": lambda inner: meta_gradients.soba(inner, 0.1),
  "one_step": lambda inner: along(inner, meta_gradients.one_step()),
  "bootstrapped": lambda inner: meta_gradients.bootstrapped(inner, 0.1, 2),
  "from_start": lambda inner: meta_gradients.from_start(inner, meta_gradients.unrolled(inner), start),
  "forward_gradient": lambda inner: meta_gradients.forward_gradient(inner, 2),
  "evolution_strategies": lambda inner: meta_gradients.evolution_strategies(inner, 0.1, 2),
  "warp": lambda inner: along(inner, meta_gradients.warp()),
  "warp_first_order": lambda inner: along(inner, meta_gradients.warp("first_order")),
  "warp_leap": lambda inner: along(inner, meta_gradients.leap(), meta_gradients.warp()),
  "warp_maml": lambda inner: meta_gradients.blockwise(
    initial=meta_gradients.unrolled(inner), shared=along(inner, meta_gradients.warp())
  ),
}
# What each estimates, with a proximal term: the start of the adaptation, `shared` that the query loss reads, `shared`
# that the inner loss alone reads (weights of examples, hyper-parameters), and the parameters of the rule. docs/conf.py
# makes a page of this table and of the pairs that are refused.
PARTS = ("initial", "shared in the query loss", "shared in the inner loss", "rule")
INITIAL, EVERYTHING = PARTS[:1], PARTS
ESTIMATES = {
  **dict.fromkeys(("mixed", "reverse", "truncated", "multi_step", "from_start", "bootstrapped"), EVERYTHING),
  **dict.fromkeys(("one_step", "forward_gradient", "evolution_strategies"), EVERYTHING),
  **dict.fromkeys(("first_order", "truncated_unroll"), ("initial", "shared in the query loss", "rule")),
  **dict.fromkeys(("reptile", "reptile_carried", "reptile_weighted", "leap"), INITIAL),
  **dict.fromkeys(("implicit", "implicit_released", "warm_implicit", "warm_implicit_params"), PARTS[:3]),
  **dict.fromkeys(("penalty", "penalty_carried", "sama", "soba"), PARTS[:3]),
  "warp": PARTS[1:],
  "warp_first_order": ("shared in the query loss",),
  "warp_leap": EVERYTHING,
  "warp_maml": EVERYTHING,
}
EXACT = ("mixed", "reverse", "from_start")  # the gradient of the value, with nothing stopped
UNROLLS = ("mixed", "reverse", "first_order", "truncated", "multi_step", "truncated_unroll")
DIFFERENTIATES_A_STEP = (
  *(*UNROLLS, "bootstrapped", "from_start", "sama"),
  *("one_step", "forward_gradient", "warp", "warp_leap", "warp_maml"),
)


def refused(rule, estimator):
  return rule not in UNROLLABLE and estimator in DIFFERENTIATES_A_STEP


# Other settings of estimators that the table has too.
SETTINGS = ("truncated", "multi_step", "reptile", "reptile_weighted", "implicit_released", "warp_first_order")
SETTINGS += ("reverse", "warp_leap", "warm_implicit_params", "penalty_carried")


# Rules that "chain" and "lbfgs" are made of, and estimators that "lbfgs" and "warp_maml" have.
COMPONENTS = ("sgd", "momentum", "from_optax")
SETTINGS_AND_OTHERS = (*SETTINGS, "mixed", "leap", "warp")


def is_quick(rule, estimator):
  """Every rule with one estimator, every estimator with one rule, and a state carried on; `make test-slow` has all."""
  if rule == "meta_sgd":
    return estimator not in SETTINGS_AND_OTHERS
  if rule == "adam":
    return estimator in ("reptile_carried", "reverse")
  return rule not in COMPONENTS and estimator == ("mixed" if rule in UNROLLABLE else "leap")


def pair(rule, estimator):
  return pytest.param(rule, estimator, marks=[] if is_quick(rule, estimator) else [pytest.mark.slow])


PAIRS = [pair(r, e) for r in RULES for e in ESTIMATORS if not refused(r, e)]
REFUSED = [(r, e) for r in RULES for e in ESTIMATORS if refused(r, e)]


def one_task(estimator):
  """The estimator as a function of one task; a carried state starts afresh."""

  def call(meta_params, task, key):
    if isinstance(estimator, CarriedMetaGrad):
      return estimator.grad(meta_params, task, key, estimator.init(meta_params))[0]
    return estimator(meta_params, task, key)

  return call


@pytest.mark.parametrize(("rule_name", "name"), PAIRS)
def test_rule_with_estimator(rule_name, name):
  rule = RULES[rule_name]()
  call = one_task(ESTIMATORS[name](toy.loop(rule)))
  meta_params, tasks, keys = toy.meta_params(rule), toy.tasks(2), jax.random.split(toy.key(), 2)

  chex.clear_trace_counter()  # it counts by the place in the code, so over all pairs

  @toy.jit
  @chex.assert_max_traces(n=1)
  def both(meta_params, tasks, keys):
    side_by_side = jax.vmap(call, in_axes=(None, 0, 0))(meta_params, tasks, keys)
    return side_by_side, jax.lax.map(lambda args: call(meta_params, *args), (tasks, keys))

  side_by_side, in_sequence = both(meta_params, tasks, keys)
  toy.assert_close(side_by_side, in_sequence, rtol=1e-8)
  (value, aux), grads = in_sequence
  assert value.shape == (2,) and "mse" in aux and all(leaf.shape == (2,) for leaf in aux.values())
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(in_sequence))
  assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(grads))

  # A step of the outer loop later nothing is traced again.
  mean = jax.tree.map(lambda leaf: leaf.mean(0), grads)
  both(optax.apply_updates(meta_params, jax.tree.map(lambda g: -0.1 * g, mean)), tasks, keys)

  if name in EXACT:
    toy.assert_slopes(lambda point: both(point, tasks, keys)[1][0][0].mean(), meta_params, mean)


@pytest.mark.parametrize(("rule_name", "name"), PAIRS)
def test_structure_and_dtypes_are_those_of_the_parameters(rule_name, name):
  # In double precision mode bfloat16 shows every promotion; optax's L-BFGS does not trace in it.
  rule, dtype = RULES[rule_name](), jnp.float32 if rule_name == "lbfgs" else jnp.bfloat16
  meta_params = jax.eval_shape(lambda: toy.meta_params(rule, dtype=dtype))
  call = one_task(ESTIMATORS[name](toy.loop(rule)))
  (value, _), grads = jax.eval_shape(call, meta_params, toy.task(dtype=dtype), toy.key())
  assert isinstance(grads, MetaParams)
  assert value.shape == () and value.dtype == dtype
  expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), meta_params)
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), grads) == expected


def in_the_inner_loss_alone(params, shared, batch):
  return toy.loss_fn(params, toy.shared(), batch)


QUICK_PARTS = ("first_order", "penalty", "sama", "warm_implicit")


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=() if n in QUICK_PARTS else pytest.mark.slow) for n in ESTIMATORS]
)
def test_what_each_estimator_estimates(name):
  rule = RULES["meta_sgd"]()
  loops = [toy.loop(rule, prox=0.5, query_loss_fn=query) for query in (None, in_the_inner_loss_alone)]
  calls = [one_task(ESTIMATORS[name](inner)) for inner in loops]
  run = toy.jit(lambda *args: [call(*args)[1] for call in calls])
  one, other = run(toy.meta_params(rule), toy.task(), toy.key())
  parts = zip(PARTS, (one.initial, one.shared, other.shared, one.rule), strict=True)
  found = tuple(part for part, grads in parts if any(np.any(leaf != 0) for leaf in jax.tree.leaves(grads)))
  assert found == tuple(ESTIMATES[name])


@pytest.mark.parametrize(("rule_name", "name"), REFUSED)
def test_refused_by_name(rule_name, name):
  rule = RULES[rule_name]()
  with pytest.raises(ValueError, match=rule.name):
    ESTIMATORS[name](toy.loop(rule))


def test_the_tables_are_complete():
  public = set(rules.__all__) - {"UpdateRule", "as_optax"}
  in_others = {"freeze", "clip_by_global_norm"}  # in "masked" and in "chain"
  as_adam = {"adagrad", "adamw", "amsgrad", "nadam", "rmsprop"}  # tests/rules/test_zero_gradient.py has them all
  assert public <= set(RULES) | in_others | as_adam
  contributions = {"reptile", "leap", "implicit", "implicit_released", "one_step", "sama", "warp"}
  whole = {"bootstrapped", "forward_gradient", "evolution_strategies", "from_start", "penalty", "soba", "warm_implicit"}
  machinery = {"CarriedMetaGrad", "Contribution", "MetaGradFn", "along_trajectory", "blockwise", "unrolled", "zeros"}
  others = {"Match", "match_parameters", "match_predictions", "match_probabilities"}
  others |= {"annealed_step_weights", "drawn", "own_parameters", "prototypes", "Start", "truncated_unroll"}
  assert set(meta_gradients.__all__) == contributions | whole | machinery | others
  assert contributions | whole <= set(ESTIMATORS)
  assert set(ESTIMATES) == set(ESTIMATORS)
