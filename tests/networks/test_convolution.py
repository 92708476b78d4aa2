"""The three maps of a convolution, however they are computed, and the rules by which they differentiate."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from tests import toy
from warpjax import jaxprs
from warpjax.networks import conv, convolution, dense, native, windows
from warpjax.training import parallel

NHWC = ("NHWC", "HWIO", "NHWC")
# images, channels, features, kernel, strides, padding, dilation
CASES = {
  "same": (5, (7, 10), 4, 8, (3, 3), (1, 1), "SAME", (1, 1)),
  "stride": (5, (7, 10), 2, 35, (3, 3), (2, 2), "SAME", (1, 1)),
  "uneven": (3, (9, 8), 6, 3, (3, 2), (3, 1), "VALID", (1, 2)),
  "cropped": (2, (6, 7), 4, 5, (3, 3), (2, 1), ((-1, 2), (3, -2)), (1, 1)),
  "one by one": (4, (5, 4), 1, 70, (1, 1), (2, 2), "VALID", (1, 1)),
  "one channel": (2, (12, 12), 1, 64, (3, 3), (2, 2), "SAME", (3, 3)),
  "larger stride": (2, (7, 7), 2, 2, (2, 2), (3, 3), "VALID", (1, 1)),
  # In C++ several groups of images, pieces of work, and parts of the kernel's gradient, the last of each smaller.
  "many images": (41, (14, 14), 8, 32, (3, 3), (1, 1), "SAME", (1, 1)),
  # In C++ by tiles of 2x2 results: some of them cut, channels that fill no vector, and as many images.
  "tiles": (3, (5, 6), 64, 40, (3, 3), (1, 1), "SAME", (1, 1)),
  "tiles cropped": (2, (5, 5), 64, 64, (3, 3), (1, 1), ((2, 0), (-1, 3)), (1, 1)),
  "many tiles": (41, (6, 6), 48, 64, (3, 3), (1, 1), "SAME", (1, 1)),
  # By tiles of 4x4.
  "large tiles": (3, (7, 10), 33, 40, (3, 3), (1, 1), "SAME", (1, 1)),
  "large tiles of a part": (2, (9, 12), 32, 20, (3, 3), (1, 1), ((2, -1), (0, 3)), (1, 1)),
  "cropped behind": (2, (8, 8), 32, 32, (3, 3), (1, 1), ((20, -10), (1, 1)), (1, 1)),
  "large tiles cropped": (2, (13, 12), 64, 64, (3, 3), (1, 1), ((-1, 2), (3, -2)), (1, 1)),
  "many large tiles": (41, (14, 14), 32, 48, (3, 3), (1, 1), "SAME", (1, 1)),
}


@functools.cache
def case(name, tasks=None, dtype=np.float64):
  """Operands and results of the three maps, those of `lax`, and their geometry."""
  images, size, channels, features, kernel, strides, padding, dilation = CASES[name]
  rng, lead = np.random.default_rng(0), () if tasks is None else (tasks,)
  x = rng.normal(size=(*lead, images, *size, channels)).astype(dtype)
  k = rng.normal(size=(*lead, *kernel, channels, features)).astype(dtype)

  def one(x, k):
    return lax.conv_general_dilated(x, k, strides, padding, rhs_dilation=dilation, dimension_numbers=NHWC)

  shape = jax.eval_shape(one, x[0] if lead else x, k[0] if lead else k).shape
  y = rng.normal(size=(*lead, *shape)).astype(dtype)
  task = lambda x, k, y: (one(x, k), *jax.vjp(one, x, k)[1](y))
  with jax.enable_x64(True):
    # Not by vmap, under which XLA takes far longer.
    wanted = toy.jit((lambda *all: lax.map(lambda one: task(*one), all)) if lead else task)(x, k, y)
  sizes = jax.ShapeDtypeStruct(x.shape[-4:], dtype), jax.ShapeDtypeStruct(k.shape[-4:], dtype)
  geometry = conv._geometry(*sizes, shape, strides, padding, dilation)
  return {"y": (x, k), "x": (y, k), "k": (x, y)}, dict(zip("yxk", wanted, strict=True)), geometry


def whole(left, right, of, geometry):
  return windows.compute(left, right, of=of, geometry=geometry, rounded=False, precision=None)


def in_blocks(left, right, of, geometry):
  return windows.compute_in_blocks(left, right, of=of, geometry=geometry, precision=None)


def natively(left, right, of, geometry):
  if not native.status().available:
    pytest.skip(native.status().reason)
  return convolution._bind(left, right, of=of, geometry=geometry, rounded=False, precision=None)


OF_TILES = [name for name in CASES if "tiles" in name and name != "tiles"]  # the other ways have no tiles
WAYS = [
  (name, way) for name in CASES for way in (whole, in_blocks, natively) if name not in OF_TILES or way == natively
]
FORMS = [
  pytest.param(name, way, tasks, marks=pytest.mark.slow if tasks and name.startswith("many ") else ())
  for name, way in WAYS
  for tasks in (None, 3)
]


@pytest.mark.parametrize(("name", "way", "tasks"), FORMS)
def test_the_three_maps_are_those_of_lax(name, way, tasks, x64, monkeypatch):
  monkeypatch.setattr(windows, "BLOCK_BYTES", 2 * 7 * 10 * 9 * 4 * 8)  # two images of the first case
  operands, wanted, geometry = case(name, tasks)
  found = toy.jit(lambda pairs: {of: way(*pair, of, geometry) for of, pair in pairs.items()})(operands)
  for of in "yxk":
    np.testing.assert_allclose(found[of], wanted[of], atol=1e-12)


@pytest.mark.parametrize("tasks", [None, 3])
@pytest.mark.parametrize("name", ["same", "tiles", "large tiles"])
def test_single_precision(name, tasks):
  operands, wanted, geometry = case(name, tasks, np.float32)
  for of, pair in operands.items():
    np.testing.assert_allclose(
      natively(*pair, of, geometry), wanted[of], rtol=1e-5, atol=1e-5 * np.abs(wanted[of]).max()
    )


def rounding(x):
  return x.astype(jnp.bfloat16).astype(x.dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("name", ["same", "uneven", "one channel"])
def test_rounded_operands_and_single_precision_sums(name, served, monkeypatch):
  """Each product takes operands rounded once, also where a gradient enters, and no sum is rounded."""
  if not served:
    monkeypatch.setattr(native, "serves", lambda dtype: False)
  operands, _, geometry = case(name, None, np.float32)
  for of, pair in operands.items():
    compute = functools.partial(convolution._convolution_p.bind, of=of, geometry=geometry, precision=None)
    found, wanted = (
      compute(*pair, rounded=True),
      compute(*(rounding(jnp.asarray(each)) for each in pair), rounded=False),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(found - compute(*pair, rounded=False)).max() > 1e-4


def bound(function, *arguments):
  """The convolutions of a function: which map, whether they are rounded, and the ranks of their operands."""
  found = [
    each for each in jaxprs.equations(jax.make_jaxpr(function)(*arguments)) if each.primitive.name == "convolution"
  ]
  return [(each.params["of"], each.params["rounded"], *(v.aval.ndim for v in each.invars)) for each in found]


def loss(x, k):
  convolve = functools.partial(conv.conv_general_dilated, dimension_numbers=NHWC, products="bfloat16")
  return jnp.sum(jnp.sin(convolve(x, k, (2, 2), "SAME")))


def test_every_derivative_is_a_rounded_product_again():
  x, k = jnp.ones((2, 5, 6, 4)), jnp.ones((3, 3, 4, 3))
  gradient = jax.grad(loss, (0, 1))
  second = lambda x, k: jax.jvp(gradient, (x, k), (x, k))
  inner = lambda x, k: jnp.vdot(gradient(x, k)[1], k)
  for function, maps in ((loss, "y"), (gradient, "yxk"), (second, "yxk"), (jax.grad(inner, (0, 1)), "yxk")):
    found = bound(function, x, k)
    assert {of for of, *_ in found} == set(maps) and all(rounded for _, rounded, *_ in found)
  batched = bound(jax.vmap(second), jnp.stack([x, x]), jnp.stack([k, k]))
  assert {of for of, *_ in batched} == set("yxk") and all(each[1:] == (True, 5, 5) for each in batched)
  text = jax.jit(second).trace(x, k).lower(lowering_platforms=("cuda",)).as_text()
  products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
  assert products and all(line.count("xbf16>") == 2 and line.rstrip().count("xf32>") >= 1 for line in products)


def test_float64_stays_unrounded(x64):
  x, k = jnp.ones((2, 5, 6, 4)), jnp.ones((3, 3, 4, 3))
  assert not any(rounded for _, rounded, *_ in bound(jax.grad(loss), x, k))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, None), (None, 2)])
def test_an_axis_of_one_operand_is_folded_into_it(axes, x64):
  """So that shared weights, or shared images, are one convolution."""
  operands, _, geometry = case("stride")
  for of, pair in operands.items():
    compute = functools.partial(convolution._bind, of=of, geometry=geometry, rounded=False, precision=None)
    stacked = [
      each if axis is None else np.stack([each, -2 * each], axis) for each, axis in zip(pair, axes, strict=True)
    ]
    found, one = jax.vmap(compute, axes)(*stacked), compute(*pair)
    np.testing.assert_allclose(found, np.stack([one, -2 * one]), atol=1e-11)
    assert bound(jax.vmap(compute, axes), *stacked) == [(of, False, 4, 4)]


def test_images_are_stored_and_not_their_windows():
  x, k = jnp.ones((2, 16, 16, 4)), jnp.ones((3, 3, 4, 4))
  convolve = functools.partial(conv.conv_general_dilated, dimension_numbers=NHWC, lowering="patches")
  kept = jax.vjp(lambda x, k: convolve(x, k, (1, 1), "SAME"), x, k)[1]
  assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == x.size + k.size


def test_operands_that_vary_over_a_mesh_and_do_not():
  x, k = jax.random.normal(toy.key(), (2, 5, 6, 4)), jnp.ones((3, 3, 4, 3))
  gradient = jax.grad(lambda k, x: loss(x, k))
  split, whole = PartitionSpec("devices"), PartitionSpec()
  spread = jax.shard_map(gradient, mesh=parallel.device_mesh(1), in_specs=(whole, split), out_specs=whole)
  np.testing.assert_allclose(jax.jit(spread)(k, x), gradient(k, x), rtol=1e-5)


def test_a_dense_layer_of_rounded_products():
  x, w = jax.random.normal(toy.key(), (3, 5, 8)), jax.random.normal(jax.random.key(1), (8, 6))
  numbers = (((2,), (0,)), ((), ()))
  rounded = functools.partial(dense.dot_general, dimension_numbers=numbers, products="bfloat16")
  np.testing.assert_allclose(rounded(x, w), rounding(x) @ rounding(w), rtol=1e-5, atol=1e-5)
  assert {of for of, *_ in bound(jax.grad(lambda w: jnp.sum(rounded(x, w) ** 2)), w)} == {"y", "k"}
  np.testing.assert_array_equal(dense.dot_general(x, w, numbers), x @ w)
  others = jnp.ones((3, 2)), jnp.ones((3, 2))  # of other axes than a dense layer's
  assert not bound(lambda a, b: dense.dot_general(a, b, (((0,), (0,)), ((), ())), products="bfloat16"), *others)
  with pytest.raises(ValueError, match="products must be one of"):
    dense.dot_general(x, w, numbers, products="half")
