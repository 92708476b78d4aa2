"""Each estimator in single precision on this machine's device against double precision on the CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import linear_solve, rules
from warpjax.meta_gradients import (
  along_trajectory,
  blockwise,
  implicit,
  leap,
  one_step,
  penalty,
  reptile,
  sama,
  unrolled,
  warp,
)

# Estimators that draw directions are left out, since the draws of the two precisions differ.
ESTIMATORS = {
  "mixed": unrolled,
  "reverse": lambda inner: unrolled(inner, "reverse"),
  "first_order": lambda inner: unrolled(inner, "first_order"),
  "reptile": lambda inner: along_trajectory(inner, reptile()),
  "implicit": lambda inner: along_trajectory(inner._replace(prox=0.5), implicit(linear_solve.cg(3))),
  "one_step": lambda inner: along_trajectory(inner, one_step()),
  "penalty": lambda inner: penalty(inner, 2.0),
  "sama": lambda inner: along_trajectory(inner, sama()),
  "warp_leap": lambda inner: along_trajectory(inner, leap(), warp()),
  "warp_maml": lambda inner: blockwise(initial=unrolled(inner), shared=along_trajectory(inner, warp())),
}


@pytest.fixture(scope="module")
def found():
  """The meta-gradients of all estimators by precision, one program each."""

  def gradients(dtype):
    rule = rules.meta_sgd(0.1)
    inner, point, task = toy.loop(rule), toy.meta_params(rule, dtype=dtype), toy.task(dtype=dtype)
    every = lambda point, task: {name: make(inner)(point, task, toy.key())[1] for name, make in ESTIMATORS.items()}
    return jax.device_get(toy.jit(every)(point, task))

  with jax.default_matmul_precision("highest"):
    single = gradients(jnp.float32)
  with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
    return single, gradients(jnp.float64)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ESTIMATORS)
def test_single_precision_on_the_device_is_double_precision_on_the_cpu(name, found):
  single, double = (each[name] for each in found)
  for mine, exact in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
    assert mine.dtype == np.float32 and exact.dtype == np.float64
    assert np.linalg.norm(mine - exact) <= 5e-5 * max(np.linalg.norm(exact), 1e-2)
