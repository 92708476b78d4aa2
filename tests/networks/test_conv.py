from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from tests import toy
from warpjax.diagnostics.timing import time_lowerings
from warpjax.networks import conv

NHWC = ("NHWC", "HWIO", "NHWC")
# image, kernel, strides, padding, rhs_dilation, feature groups
CASES = {
  "same": ((7, 10), (3, 3), (1, 1), "SAME", None, 1),
  "same_stride_2": ((7, 10), (3, 3), (2, 2), "SAME", None, 1),
  "same_lower": ((8, 9), (2, 3), (2, 1), "SAME_LOWER", None, 1),
  "valid_stride_3": ((9, 8), (3, 2), (3, 2), "VALID", None, 1),
  "explicit": ((6, 7), (3, 3), (2, 1), ((1, 2), (0, 3)), None, 1),
  "cropped": ((6, 7), (3, 3), (1, 1), ((-1, 2), (3, -2)), None, 1),
  "one_by_one": ((5, 4), (1, 1), (1, 1), "SAME", None, 1),
  "one_by_one_stride_2": ((5, 4), (1, 1), (2, 2), "VALID", None, 1),
  "dilated": ((9, 8), (3, 3), (1, 2), "SAME", (2, 3), 1),
  "groups": ((5, 6), (3, 3), (2, 1), "SAME", (1, 2), 2),
  "depthwise": ((5, 5), (3, 3), (1, 1), "VALID", None, 4),
}


def arguments(case, num_tasks=None, dtype=None):
  size, kernel, strides, padding, dilation, groups = CASES[case]
  keys = jax.random.split(jax.random.key(0))
  tasks = () if num_tasks is None else (num_tasks,)
  x = jax.random.normal(keys[0], (*tasks, 2, *size, 4), dtype)
  w = jax.random.normal(keys[1], (*tasks, *kernel, 4 // groups, 8), dtype)
  options = {"rhs_dilation": dilation, "feature_group_count": groups, "dimension_numbers": NHWC}
  ours = lambda x, w: conv.conv_general_dilated(x, w, strides, padding, **options, lowering="patches")
  stock = lambda x, w: lax.conv_general_dilated(x, w, strides, padding, **options)
  return ours, stock, x, w


def derivatives(convolve):
  """Value, gradient, and second derivative forward-over-reverse and reverse-over-reverse, in one function."""
  gradient = jax.grad(lambda x, w: jnp.mean(jnp.sin(convolve(x, w))), argnums=(0, 1))

  def all_orders(x, w):
    tangents = lax.stop_gradient((jnp.cos(x), jnp.sin(w)))
    forward = jax.jvp(gradient, (x, w), tangents)[1]
    dot = lambda x, w: sum(jnp.vdot(g, t) for g, t in zip(gradient(x, w), tangents, strict=True))
    return convolve(x, w), gradient(x, w), forward, jax.grad(dot, argnums=(0, 1))(x, w)

  return all_orders


def assert_close(actual, expected, tolerance):
  for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.dtype == e.dtype
    np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, float(jnp.max(jnp.abs(e)))))


def primitives(function, *args):
  return {equation.primitive.name for equation in jax.make_jaxpr(function)(*args).eqns}


# The quick tests of vmap and of single precision have "same_stride_2" and "groups" too.
SLOW = ("same", "same_stride_2", "same_lower", "valid_stride_3", "one_by_one", "groups")
GPU = ("same_stride_2", "explicit", "dilated", "groups")


def marks(case):
  return [mark for mark, cases in ((pytest.mark.slow, SLOW), (pytest.mark.gpu, GPU)) if case in cases]


@pytest.mark.parametrize("case", [pytest.param(c, marks=marks(c)) for c in CASES])
def test_patches_equal_lax_in_value_gradient_and_second_derivative(case, x64):
  ours, stock, x, w = arguments(case)
  assert "conv_general_dilated" not in primitives(ours, x, w)
  actual, expected = toy.jit(lambda x, w: (derivatives(ours)(x, w), derivatives(stock)(x, w)))(x, w)
  assert_close(actual, expected, 1e-11)
  np.testing.assert_allclose(actual[2][0], actual[3][0], atol=1e-11)  # the Hessian is symmetric


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["same_stride_2", "groups"])
def test_patches_equal_lax_in_single_precision_to_1e_5(case):
  ours, stock, x, w = arguments(case)
  actual, expected = toy.jit(lambda x, w: (derivatives(ours)(x, w), derivatives(stock)(x, w)))(x, w)
  assert_close(actual, expected, 1e-5)


def test_derivatives_equal_finite_differences(x64):
  ours, _, x, w = arguments("same_stride_2")
  check_grads(jax.jit(lambda w: jnp.sin(ours(x[:1, :4, :4], w))), (w,), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("in_axes", [(0, 0), pytest.param((0, None), marks=pytest.mark.slow), (None, 0)])
def test_vmap_over_tasks_equals_a_loop(in_axes, x64):
  ours, _, x, w = arguments("same_stride_2", num_tasks=3)
  x, w = (a if axis == 0 else a[0] for a, axis in zip((x, w), in_axes, strict=True))
  take = lambda a, axis, i: a[i] if axis == 0 else a
  batched = toy.jit(jax.vmap(derivatives(ours), in_axes))(x, w)
  single = toy.jit(derivatives(ours))
  for i in range(3):
    expected = single(take(x, in_axes[0], i), take(w, in_axes[1], i))
    assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], batched), expected, 1e-12)


@pytest.mark.parametrize(
  "options",
  [
    {"lhs_dilation": (2, 2), "dimension_numbers": NHWC},
    {"batch_group_count": 2, "dimension_numbers": NHWC},
    {"dimension_numbers": ("NHWC", "HWIO", "NCHW")},
  ],
)
def test_other_convolutions_are_passed_to_lax(options):
  x, w = jnp.ones((2, 5, 6, 4)), jnp.ones((3, 3, 4, 8))
  padding = ((1, 1), (1, 1))
  ours = lambda x, w: conv.conv_general_dilated(x, w, (1, 1), padding, **options, lowering="patches")
  assert "conv_general_dilated" in primitives(ours, x, w)
  stock = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), padding, **options)
  np.testing.assert_array_equal(toy.jit(ours)(x, w), toy.jit(stock)(x, w))


@pytest.mark.parametrize("shape", [(2, 9, 4), (2, 3, 4, 5, 4)])
def test_one_and_three_dimensional_layers_work(shape):
  size = (3,) * (len(shape) - 2)
  stock = nn.Conv(2, size)
  x = jax.random.normal(jax.random.key(1), shape)
  variables = toy.init(stock, x)
  ours = nn.Conv(2, size, conv_general_dilated=conv.conv_general_dilated)
  np.testing.assert_allclose(toy.jit(ours.apply)(variables, x), toy.jit(stock.apply)(variables, x), atol=1e-6)


def test_bad_arguments_are_refused_with_the_words_of_lax():
  x, w = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 4, 8))
  with pytest.raises((TypeError, ValueError)) as stock:
    lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)
  with pytest.raises((TypeError, ValueError)) as ours:
    conv.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC, lowering="patches")
  assert str(ours.value) == str(stock.value)
  with pytest.raises(ValueError, match="lowering must be one of"):
    conv.conv_general_dilated(x, w, (1, 1), "SAME", lowering="fast")


def test_a_window_larger_than_the_image_gives_an_empty_result():
  convolve = lambda x, w: conv.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=NHWC)
  out = toy.jit(convolve)(jnp.ones((2, 2, 2, 3)), jnp.ones((3, 3, 3, 4)))
  assert out.shape == (2, 0, 0, 4)


def test_element_type_and_half_precision_follow_lax():
  ours, stock, x, w = arguments("same", dtype=jnp.bfloat16)
  assert toy.jit(ours)(x, w).dtype == jax.eval_shape(stock, x, w).dtype == jnp.bfloat16
  options = {"dimension_numbers": NHWC, "preferred_element_type": jnp.float32, "lowering": "patches"}
  wide = toy.jit(lambda x, w: conv.conv_general_dilated(x, w, (1, 1), "SAME", **options))
  assert wide(x, w).dtype == jnp.float32


def test_auto_follows_the_table_of_backends(monkeypatch):
  _, _, x, w = arguments("same")

  def traced_afresh() -> set[str]:
    return primitives(lambda x, w: conv.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC), x, w)

  monkeypatch.setattr(conv, "AUTO_LOWERING", {jax.default_backend(): "patches"})
  assert "conv_general_dilated" not in traced_afresh()
  monkeypatch.setattr(conv, "AUTO_LOWERING", {})
  assert "conv_general_dilated" in traced_afresh()


def test_timing_covers_both_lowerings():
  seconds = time_lowerings(num_tasks=2, batch=2, size=4, channels=2, features=2, repeats=1)
  assert set(seconds) == {"patches", "lax"}
  assert all(set(row) == {"value", "gradient", "second_order"} and min(row.values()) > 0 for row in seconds.values())
