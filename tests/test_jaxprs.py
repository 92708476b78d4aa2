"""What a loss contains is seen under each of JAX's flags for its newer primitives."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import pytest

from warpjax import differentiation
from warpjax.diagnostics import cost

FLAGS = ("jax_remat3", "jax_custom_vjp3", "jax_custom_jvp3")


@jax.custom_vjp
def clipped(x):
  return x


clipped.defvjp(lambda x: (x, x), lambda x, g: (jnp.clip(g * x, -1, 1),))


@jax.custom_jvp
def doubled(x):
  return 2 * x


doubled.defjvp(lambda primals, tangents: (2 * primals[0], 2 * tangents[0]))

WRAPPERS = {
  "plain": lambda function: function,
  "jit": jax.jit,
  "checkpoint": jax.checkpoint,
  "checkpoint in jit": lambda function: jax.jit(jax.checkpoint(function)),
  "scan": lambda function: lambda x: jax.lax.scan(lambda carry, _: (function(carry), None), x, None, 2)[0],
  "cond": lambda function: lambda x: jax.lax.cond(jnp.sum(x) > 0, function, jnp.sin, x),
}


def falls_back(function):
  """Whether mixed mode goes back to reverse mode for a loss that calls `function`."""
  loss = lambda params, shared, batch: (jnp.sum(function(params) * shared * batch), {})
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    jax.eval_shape(differentiation.value_and_grad(loss, "mixed"), *[jnp.ones(3)] * 3)
  return any("custom_vjp" in str(warning.message) for warning in caught)


def seen():
  """For each wrapper: whether each kind of function falls back, and the FLOPs of a matrix product."""
  return {
    name: [falls_back(wrap(clipped)), falls_back(wrap(doubled)), cost.flops(wrap(lambda a: a @ a), jnp.ones((4, 4)))]
    for name, wrap in WRAPPERS.items()
  }


EXPECTED = {name: [True, False, 2 * 4**3 * (2 if name == "scan" else 1)] for name in WRAPPERS}


def test_a_custom_vjp_is_seen_and_products_are_counted_wherever_they_hide():
  assert seen() == EXPECTED


@pytest.mark.parametrize("flag", [FLAGS[0], *(pytest.param(flag, marks=pytest.mark.slow) for flag in FLAGS[1:])])
def test_so_they_are_under_a_flag_of_jax(flag):
  if not hasattr(jax.config, flag):
    pytest.skip(f"JAX {jax.__version__} has no {flag}")
  command = [sys.executable, "-c", "import json; from tests import test_jaxprs; print(json.dumps(test_jaxprs.seen()))"]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", flag.upper(): "1"}
  root = pathlib.Path(__file__).parents[1]
  done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout) == EXPECTED


def test_a_scan_is_counted_under_its_flag():
  """JAX cannot differentiate a scan under it yet, so this is all that runs."""
  if not hasattr(jax.config, "jax_scan3"):
    pytest.skip(f"JAX {jax.__version__} has no jax_scan3")
  looped = WRAPPERS["scan"](lambda a: a @ a)
  before = jax.config.jax_scan3
  jax.config.update("jax_scan3", True)
  try:
    assert cost.flops(looped, jnp.ones((4, 4))) == 2 * 2.0 * 4**3
  finally:
    jax.config.update("jax_scan3", before)
