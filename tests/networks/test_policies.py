"""The recurrent cells against their equations in NumPy, and how they start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import networks
from warpjax.networks.policies import MIN_LOG_STD

WIDTH, INPUTS, ACTIONS = 4, 3, 2
CELLS = (networks.RNN, networks.WarpRNN, networks.HebbianRNN)


def made(module, width=WIDTH, **kwargs):
  """The module, and its parameters, all of them numbers away from zero."""
  cell = module(width, ACTIONS, **kwargs)
  params = toy.jit(lambda key: cell.init(key, (None, jnp.zeros((1, INPUTS)))))(toy.key())["params"]
  return cell, jax.tree.map(np.asarray, params)


def found(cell, params, steps):
  """Memory, policy and value after each step from the start, `steps` of observations `[2, INPUTS]`."""

  @toy.jit
  def run(params, steps):
    memory, outputs = None, []
    for x in steps:
      memory, policy, value = cell.apply({"params": params}, (memory, x))
      outputs.append((memory, policy, value))
    return outputs

  return jax.device_get(run(params, steps))


def heads(p, hidden):
  linear = lambda name: hidden @ p[name]["kernel"] + p[name]["bias"]
  return linear("policy"), linear("value")[:, 0]


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def rnn(p, memory, x):
  h = np.tanh(x @ p["input"]["kernel"] + p["input"]["bias"] + memory @ p["hidden"]["kernel"] + p["hidden"]["bias"])
  return h, h


def lstm(p, memory, x):
  c, h = memory
  gate = {k: x @ p[f"i{k}"]["kernel"] + h @ p[f"h{k}"]["kernel"] + p[f"h{k}"]["bias"] for k in "ifgo"}
  c = sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["g"])
  return c, sigmoid(gate["o"]) * np.tanh(c)


def warp_rnn(p, memory, x):
  (c, code), h = memory
  c, code = lstm(p["warp_lstm"], (c, code), np.concatenate([x, h], axis=1))
  gains = np.tanh(code @ p["warp_gains"]["kernel"])
  of_x, rest = gains[:, :INPUTS], gains[:, INPUTS:].reshape(2, 5, WIDTH)
  of_h, of_wx, of_uh, of_b, of_c = (rest[:, i] for i in range(5))
  wx, uh = (of_x * x) @ p["input"]["kernel"], (of_h * h) @ p["hidden"]["kernel"]
  h = np.tanh(of_wx * wx + of_b * p["input"]["bias"] + of_uh * uh + of_c * p["hidden"]["bias"])
  return ((c, code), h), h


def hebbian(p, memory, x):
  trace, before = memory
  after = np.stack([before[e] @ (p["recurrent"] + p["plasticity"] * trace[e]) for e in range(2)])
  h = np.tanh(x @ p["input"]["kernel"] + p["input"]["bias"] + after)
  signal = np.tanh(h @ p["modulator"]["kernel"] + p["modulator"]["bias"])
  rate = signal @ p["fan_out"]["kernel"] + p["fan_out"]["bias"]
  grown = np.stack([trace[e] + np.outer(before[e], rate[e] * h[e]) for e in range(2)])
  return (np.clip(grown, -1, 1), h), h


ZEROS = np.zeros((2, WIDTH))
EQUATIONS = [
  (networks.RNN, rnn, ZEROS),
  (networks.WarpRNN, warp_rnn, ((ZEROS, ZEROS), ZEROS)),
  (networks.HebbianRNN, hebbian, (np.zeros((2, WIDTH, WIDTH)), ZEROS)),
]


@pytest.mark.parametrize(("module", "equations", "memory"), EQUATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_cell_is_its_equations(module, equations, memory):
  cell, params = made(module)
  # Far from the start, so that traces are clipped too and the plasticity has a say.
  params = jax.tree.map(lambda leaf: 3 * leaf + 0.1, params)
  steps = np.random.default_rng(0).normal(size=(3, 2, INPUTS)).astype(np.float32)
  for (after, policy, value), x in zip(found(cell, params, steps), steps, strict=True):
    memory, hidden = equations(params, memory, x)
    toy.assert_close(after, memory, rtol=1e-4, atol=1e-5)
    toy.assert_close((policy, value), heads(params, hidden), rtol=1e-4, atol=1e-5)
  if module is networks.HebbianRNN:
    assert 0 < np.mean(np.abs(memory[0]) == 1) < 1


def test_a_trace_at_its_bound_keeps_its_gradient_and_one_beyond_has_none():
  cell, params = made(networks.HebbianRNN)
  trace = jnp.broadcast_to(jnp.array([1.0, -1.0, 0.5, 1.1]), (2, WIDTH, WIDTH))
  memory = lambda trace: (trace, jnp.zeros((2, WIDTH)))
  after = lambda trace: jnp.sum(cell.apply({"params": params}, (memory(trace), jnp.ones((2, INPUTS))))[0][0])
  np.testing.assert_array_equal(toy.jit(jax.grad(after))(trace), jnp.abs(trace) <= 1)


@pytest.mark.parametrize(("log_std", "value", "slope"), [(MIN_LOG_STD, MIN_LOG_STD, 1.0), (-20.0, MIN_LOG_STD, 0.0)])
def test_a_deviation_at_its_bound_keeps_its_gradient_and_one_below_has_none(log_std, value, slope):
  network = networks.GaussianMLP(features=(2,), num_outputs=1)
  params = toy.init(network, jnp.ones((1, 2)))["params"]
  read = lambda log_std: network.apply({"params": {**params, "log_std": log_std}}, jnp.ones((1, 2)))[1].sum()
  found, gradient = toy.jit(jax.value_and_grad(read))(jnp.array([log_std]))
  assert found == jnp.float32(value) and gradient == slope


def test_without_modulation_the_hebbian_rate_is_one_number():
  cell, params = made(networks.HebbianRNN, modulated=False)
  assert params["rate"] == np.float32(0.1)
  steps = np.random.default_rng(1).normal(size=(2, 2, INPUTS)).astype(np.float32)
  (_, first), (trace, second) = (memory for memory, _, _ in found(cell, params, steps))
  np.testing.assert_allclose(trace, 0.1 * first[:, :, None] * second[:, None, :], rtol=1e-5)


@pytest.mark.parametrize("module", CELLS)
def test_kernels_and_biases_start_uniform_within_one_over_the_root_of_the_width(module):
  _, params = made(module, 25)
  apart = {"plasticity"} | ({"fan_out"} if module is networks.HebbianRNN else set())  # fan_out reads one number
  for leaf in jax.tree.leaves({name: value for name, value in params.items() if name not in apart}):
    assert np.abs(leaf).max() <= 0.2
    # The largest of n uniform draws is below 1 - 7/n of the bound once in a thousand.
    assert np.abs(leaf).max() > 0.2 * (1 - 7 / leaf.size)
    assert abs(leaf.mean()) < 4 * 0.2 / np.sqrt(3 * leaf.size)
  if module is networks.HebbianRNN:
    assert 0.008 < params["plasticity"].std() < 0.012 and 0.5 < np.abs(params["fan_out"]["bias"]).max() <= 1


def test_an_rnn_and_a_warp_rnn_start_from_the_same_numbers():
  (_, plain), (_, warped) = made(networks.RNN), made(networks.WarpRNN)
  assert set(warped) - set(plain) == {"warp_lstm", "warp_gains"}
  toy.assert_close(plain, {name: warped[name] for name in plain})
