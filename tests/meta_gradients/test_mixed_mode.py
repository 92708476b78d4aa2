"""Mixed mode against reverse mode: equal numbers, less memory."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import along_trajectory, implicit, leap, reptile, unrolled, warp
from warpjax.training import task_batch
from warpjax.types import MetaParams, Task

RULES = {
  "sgd": rules.sgd(0.2),
  "momentum": rules.sgd(0.2, 0.9),
  "adam": rules.adam(0.05),
  "meta_sgd": rules.meta_sgd((0.05, 0.3)),
}
MEMORY = ("save_all", "save_gradients", "recompute")


@pytest.mark.gpu
@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
  "name", ["adam", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sgd", "momentum", "meta_sgd"))]
)
def test_equal_under_jit_vmap_and_chunks_for_every_memory_policy(name):
  inner, meta_params = toy.loop(RULES[name]), toy.meta_params(RULES[name])
  tasks, keys = toy.tasks(3), jax.random.split(toy.key(), 3)

  def mean(estimate, chunk):
    run = lambda point: task_batch.mean_over_tasks(estimate, point, tasks, keys, (), chunk)[:2]
    return toy.jit(run)(meta_params)

  reference = mean(unrolled(inner, "reverse", memory="save_all"), 3)
  for memory in MEMORY:
    toy.assert_close(mean(unrolled(inner, memory=memory), 3), reference, rtol=1e-11)
  toy.assert_close(mean(unrolled(inner), 2), reference, rtol=1e-11)


@pytest.mark.gpu
@pytest.mark.usefixtures("strict")
def test_reverse_mode_s_own_memory_policies_agree():
  inner, meta_params = toy.loop(RULES["adam"]), toy.meta_params()
  plain, *others = (toy.run(unrolled(inner, "reverse", memory=m), meta_params, toy.task()) for m in MEMORY)
  for other in others:
    toy.assert_close(other, plain, rtol=1e-11)


@pytest.mark.usefixtures("strict")
def test_an_update_that_depends_on_the_value():
  # The value comes out of the same rule as the gradient, so its cotangent has to arrive too.
  def update(grads, state, params=None, *, value, **extra):
    return jax.tree.map(lambda g: -0.1 * value * g, grads), state

  rule = rules.from_optax(optax.GradientTransformationExtraArgs(lambda params: (), update))
  run = lambda derivative: toy.run(unrolled(toy.loop(rule), derivative), toy.meta_params(), toy.task())
  toy.assert_close(run("mixed"), run("reverse"))


@pytest.mark.usefixtures("strict")
def test_the_meta_gradient_can_be_differentiated():
  meta_params, task = toy.meta_params(), toy.task()
  along = toy.direction(meta_params)

  def projected(point, derivative):
    return optax.tree.vdot(unrolled(toy.loop(RULES["adam"], 2), derivative)(point, task, toy.key())[1], along)

  mixed = toy.jit(jax.grad(lambda point: projected(point, "mixed")))(meta_params)
  toy.assert_close(mixed, toy.jit(jax.grad(lambda point: projected(point, "reverse")))(meta_params), rtol=1e-9)
  toy.assert_slopes(toy.jit(lambda point: projected(point, "mixed")), meta_params, mixed)


@pytest.mark.usefixtures("strict")
def test_a_stopped_gradient_inside_the_loss():
  def magic(params, shared, batch):  # DiCE: exp(x - stop(x)) keeps the value and carries the derivative of x
    loss, aux = toy.loss_fn(params, shared, batch)
    score = jnp.sum(params["w"] ** 2) * jnp.sum(shared["warp"])
    return loss * jnp.exp(score - jax.lax.stop_gradient(score)), aux

  run = lambda derivative: toy.run(unrolled(toy.loop(loss_fn=magic), derivative), toy.meta_params(), toy.task())
  toy.assert_close(run("mixed"), run("reverse"))


def test_bfloat16_within_its_tolerance():
  def low(params, shared, batch):
    cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)
    loss, _ = toy.loss_fn(cast(params), cast(shared), cast(batch))
    return loss.astype(jnp.float32), {}

  meta_params, task = toy.meta_params(), toy.task()
  run = lambda loss_fn, mode: toy.run(unrolled(toy.loop(loss_fn=loss_fn), mode), meta_params, task)[1]
  exact = run(toy.loss_fn, "reverse")
  for derivative in ("mixed", "reverse"):
    error = optax.tree.norm(optax.tree.sub(run(low, derivative), exact)) / optax.tree.norm(exact)
    assert 1e-5 < float(error) < 2e-2, derivative  # not exact, or nothing ran in bfloat16


def test_adam_is_finite_at_a_zero_gradient():
  loss = lambda params, shared, batch: (jnp.sum((params["moves"] - batch) ** 2) + jnp.sum(params["rests"] ** 2), {})
  meta_params = MetaParams({"moves": jnp.ones(2), "rests": jnp.zeros(2)})  # at "rests" the gradient is zero
  task = Task(jnp.zeros(()), jnp.zeros(()))
  bare = rules.adam(0.1, eps_root=0.0)
  for rule, finite in ((rules.adam(0.1), True), (bare._replace(finite_at_zero=True), False)):
    _, grads = toy.run(unrolled(wj.InnerLoop(loss, rule, 3)), meta_params, task)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)) == finite
  with pytest.raises(ValueError, match="unrolled cannot differentiate the rule 'adam'"):
    toy.run(unrolled(wj.InnerLoop(loss, bare, 3)), meta_params, task)


@jax.custom_vjp
def clipped(x):
  """The identity, its gradient clipped to one: its derivative is not symmetric, and it has no forward mode."""
  return x


clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (jnp.clip(g * x, -1, 1),))


@pytest.mark.usefixtures("strict")
def test_a_custom_vjp_falls_back_to_reverse_mode_with_a_warning():
  def loss(params, shared, batch):
    return toy.loss_fn(jax.tree.map(clipped, params), shared, batch)

  meta_params, task = toy.meta_params(), toy.task()
  reference = toy.run(unrolled(toy.loop(loss_fn=loss), "reverse"), meta_params, task)
  for wrapped in (loss, jax.jit(loss), jax.checkpoint(loss)):  # found wherever it hides
    estimate = toy.jit(unrolled(toy.loop(loss_fn=wrapped)))
    with pytest.warns(UserWarning, match="custom_vjp"):
      toy.assert_close(estimate(meta_params, task, toy.key()), reference)


def test_stock_losses_do_not_fall_back():
  images, labels = jnp.zeros((2, 8, 8, 1)), jnp.array([0, 1])
  network = wj.networks.from_linen(wj.networks.Conv4(num_classes=2, width=4, num_blocks=1))
  params, shared = jax.eval_shape(network.init, toy.key(), images)
  inner = wj.InnerLoop(wj.losses.classification(network.apply), rules.sgd(0.4), 1)
  task = Task((images, labels), (images, labels))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    jax.eval_shape(unrolled(inner), MetaParams(params, shared), task, toy.key())


@pytest.mark.usefixtures("strict")
def test_the_loss_may_close_over_traced_values():
  def value(scale, derivative):
    count = jnp.asarray(scale, int)
    loss = lambda params, shared, batch: (
      toy.loss_fn(optax.tree.scale(scale, params), shared, batch)[0] * count,
      {"n": count},
    )
    estimate = unrolled(toy.loop(loss_fn=loss, num_steps=2), derivative)
    (value, _), grads = estimate(toy.meta_params(), toy.task(), toy.key())
    return value + optax.tree.norm(grads, squared=True)

  scales = jnp.array([1.0, 1.2])
  run = lambda mode: toy.jit(jax.vmap(jax.value_and_grad(lambda scale: value(scale, mode))))(scales)
  toy.assert_close(run("mixed"), run("reverse"))


@pytest.mark.usefixtures("strict")
def test_forward_mode_outside():
  meta_params, task = toy.meta_params(), toy.task()
  estimate = lambda mode: lambda point: unrolled(toy.loop(num_steps=2), mode)(point, task, toy.key())
  push = lambda mode: toy.jit(lambda point: jax.jvp(estimate(mode), (point,), (toy.direction(point),)))(meta_params)
  toy.assert_close(push("mixed"), push("reverse"))


# Memory, as XLA plans it. float32, and XLA's usual options: fusion is part of what is measured.


def network_loss(params, shared, batch):
  x, y = batch
  for weights in params[:-1]:
    x = jnp.tanh(x @ weights) + x
  return jnp.mean((x @ shared @ params[-1] - y) ** 2), {}


WIDTH, LAYERS, EXAMPLES = 16, 2, 64
NETWORK = MetaParams([jnp.eye(WIDTH)] * LAYERS + [jnp.ones((WIDTH, 1))], jnp.eye(WIDTH))
EXAMPLE = Task(*[(jnp.ones((EXAMPLES, WIDTH)), jnp.ones((EXAMPLES, 1)))] * 2)
PARAMETER_BYTES = 4 * (LAYERS * WIDTH**2 + WIDTH)


def temporaries(function, *args):
  return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def unrolled_temporaries(num_steps, derivative, memory, rule=None):
  inner = wj.InnerLoop(network_loss, rule or rules.sgd(0.1), num_steps)
  return temporaries(unrolled(inner, derivative, memory=memory), NETWORK, EXAMPLE, toy.key())


def test_mixed_mode_needs_less_memory_than_reverse_mode():
  plain = unrolled_temporaries(16, "reverse", "save_all")
  checkpointed = unrolled_temporaries(16, "reverse", "recompute")
  mixed = unrolled_temporaries(16, "mixed", "auto")
  assert checkpointed < plain / 3
  assert mixed < plain / 3


def test_a_value_that_the_rule_does_not_read_costs_no_product():
  def update(grads, state, params=None, *, value, **extra):
    return jax.tree.map(lambda g: -0.1 * value * g, grads), state

  def products(rule):
    inner = wj.InnerLoop(network_loss, rule, 2)
    return jax.jit(unrolled(inner)).lower(NETWORK, EXAMPLE, toy.key()).compile().cost_analysis()["flops"]

  reads = rules.from_optax(optax.GradientTransformationExtraArgs(lambda params: (), update))
  assert products(reads) - products(rules.sgd(0.1)) > LAYERS * 2 * EXAMPLES * WIDTH**2  # the gradients of the weights


@pytest.mark.parametrize(("memory", "rule", "trees"), [
  pytest.param("recompute", rules.sgd(0.1), 1, marks=pytest.mark.slow),
  ("recompute", rules.adam(0.1), 3),  # parameters and both moments
  ("save_gradients", rules.sgd(0.1), 1),  # the update is linear, so that a saved gradient would never be read
  pytest.param("save_gradients", rules.adam(0.1), 4, marks=pytest.mark.slow),
])  # fmt: skip
def test_each_inner_step_stores_its_carry_and_no_activations(memory, rule, trees):
  short, long = (unrolled_temporaries(steps, "mixed", memory, rule) for steps in (16, 48))
  slope = (long - short) / 32 / PARAMETER_BYTES
  assert 0.95 * trees < slope < 1.05 * trees


CONTRIBUTIONS = {
  "reptile": reptile(),
  "leap": leap(),
  "warp": warp(),
  "implicit": implicit(wj.linear_solve.cg(5)),
}


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=pytest.mark.slow if name in ("reptile", "leap") else ()) for name in CONTRIBUTIONS]
)
def test_memory_along_a_trajectory_does_not_grow_with_its_steps(name):
  short, long = (
    temporaries(
      along_trajectory(wj.InnerLoop(network_loss, rules.sgd(0.1), steps, prox=1.0), CONTRIBUTIONS[name]),
      NETWORK,
      EXAMPLE,
      toy.key(),
    )
    for steps in (16, 64)
  )
  assert long <= 1.05 * short


def test_the_implicit_gradient_needs_three_times_the_memory_of_an_inner_gradient_at_most():
  inner = wj.InnerLoop(network_loss, rules.sgd(0.1), 16, prox=1.0)
  estimate = along_trajectory(inner, implicit(wj.linear_solve.cg(5)))
  one = temporaries(jax.grad(network_loss, argnums=(0, 1), has_aux=True), NETWORK.initial, NETWORK.shared, EXAMPLE[0])
  assert temporaries(estimate, NETWORK, EXAMPLE, toy.key()) <= 3 * one
