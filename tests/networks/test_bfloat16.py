"""What computing in bfloat16 costs: the direction and length of gradients, and the accuracy after training."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import warpjax as wj
from warpjax import losses, meta_gradients, networks, rules, training
from warpjax.compilation import fast_compilation
from warpjax.tasks import few_shot

KEY = jax.random.key(0)


def made_images(classes=20, drawings=12, size=28, noise=0.6):
  """Classes that are one pattern each, under noise."""
  rng = np.random.default_rng(0)
  patterns = rng.uniform(0, 1, (classes, 1, size, size, 1)) > 0.6
  images = patterns + noise * rng.normal(size=(classes, drawings, size, size, 1))
  return np.clip(255 * images, 0, 255).astype(np.uint8)


def learner(dtype, num_steps):
  network = networks.from_linen(networks.Conv4(num_classes=5, width=16, dtype=dtype))
  inner = wj.InnerLoop(losses.classification(network.apply), rules.sgd(0.1), num_steps)
  params, shared = network.init(KEY, jnp.zeros((1, 28, 28, 1)))
  return inner, wj.MetaParams(params, shared, inner.rule.init(KEY, params))


@pytest.fixture(scope="module")
def sampler():
  return few_shot.sampler(made_images(), ways=5, shots=1, queries=10)


def mean_over_tasks(dtype, sampler, grad):
  """The mean over 8 tasks of `grad(inner, meta_params, task)`, a tree like the parameters, as a vector."""
  inner, meta_params = learner(dtype, 1)
  tasks = training.sample_tasks(sampler, KEY, 8)
  found = jax.jit(jax.vmap(functools.partial(grad, inner, meta_params)), compiler_options=fast_compilation())(tasks)
  assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
  return np.asarray(ravel_pytree(jax.tree.map(lambda leaf: jnp.mean(leaf, 0), found))[0], np.float64)


GRADS = {
  "gradient": lambda inner, meta, task: jax.grad(inner.loss_fn, has_aux=True)(meta.initial, (), task.support)[0],
  "meta_gradient": lambda inner, meta, task: meta_gradients.unrolled(inner)(meta, task, KEY)[1].initial,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cosine"), [("gradient", 0.99), ("meta_gradient", 0.9)])
def test_gradients_keep_their_direction_and_length(name, cosine, sampler):
  """Meta-gradients lose more: an inner step is about as small as the rounding of a parameter."""
  exact, half = (mean_over_tasks(dtype, sampler, GRADS[name]) for dtype in (None, jnp.bfloat16))
  lengths = np.linalg.norm(exact), np.linalg.norm(half)
  assert exact @ half / np.prod(lengths) > cosine
  assert lengths[1] == pytest.approx(lengths[0], rel=0.05)


@pytest.mark.slow
def test_training_ends_as_accurate(sampler):
  accuracies = {}
  for dtype in (None, jnp.bfloat16):
    inner, meta_params = learner(dtype, 5)
    optimizer, meta_grad = optax.adam(3e-3), meta_gradients.unrolled(inner)
    state = training.init(KEY, inner.rule, meta_params.initial, meta_params.shared, optimizer)
    step = training.meta_step(meta_grad, optimizer)
    state, metrics = jax.jit(training.many_steps(step, sampler, tasks_per_step=8, num_steps=100))(state)
    accuracies[dtype] = float(jnp.mean(metrics["accuracy"][-30:]))
  assert accuracies[None] > 0.8
  assert accuracies[jnp.bfloat16] == pytest.approx(accuracies[None], abs=0.03)
