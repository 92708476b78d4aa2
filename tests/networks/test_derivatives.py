"""Every network in double precision: its compiled gradient, uncompiled gradient and finite differences agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import losses, meta_gradients, networks, rules
from warpjax.networks import presets

Case = Mapping[str, Any]

ACTIVATIONS = {"relu": nn.relu, "tanh": jnp.tanh, "elu": nn.elu, "softplus": nn.softplus, "gelu": nn.gelu}
WARPS = {
  "none": None,
  "bare": networks.WarpSpec(),
  "residual": networks.WarpSpec("conv1x1", activation=nn.relu, batch_norm=True, residual=True),
  "identity": networks.WarpSpec("scale", activation=jnp.tanh, identity_init=True),
  "deep": networks.WarpSpec("linear", num_layers=2, hidden_width=3, residual=True, head=True),
}

# "act" stands for the activation.
CONV4 = {
  "width": (1, 2, 3, 5, 16, 64),
  "layers": ("conv norm act pool", "conv norm act", "conv norm pool act", "conv pool norm act", "conv act pool"),
  "activation": ("leaky_relu", "relu"),
  "conv_bias": (True, False),
  "vmap": (False, True),
}
CONV4_OPTIONS = {
  "layers": CONV4["layers"],
  "norm": ("batch", "group", "layer"),
  "norm_scale": (True, False),
  "strides": (1, 2),
  "padding": ("SAME", "VALID", 1),
  "pool_padding": ("VALID", "SAME"),
  "readout": ("flatten", "mean"),
  "hidden": ((), (3,)),
  "warp": tuple(WARPS),
  "vmap": (False, True),
}
MLP = {
  "features": ((1,), (3, 5), (16, 2)),
  "activation": tuple(ACTIVATIONS),
  "warp": ("none", "identity", "deep"),
  "vmap": (False, True),
}
RESNET12 = {
  "widths": ((1, 1), (2, 3), (5, 4)),
  "norm": ("batch", "layer"),
  "drop_rate": (0.0, 0.3),
  "warp": tuple(WARPS),
  "vmap": (False, True),
}
POLICIES = {
  "module": ("RNN", "WarpRNN", "HebbianRNN", "GaussianMLP"),
  "width": (1, 5),
  "vmap": (False, True),
}
PRESETS = {
  "module": (
    "imaml_omniglot",
    "maml_mini_imagenet",
    "maml_omniglot",
    "maml_sinusoid",
    "mamlpp_mini_imagenet",
    "meta_sgd_omniglot",
    "reptile_mini_imagenet",
    "reptile_omniglot",
    "reptile_sinusoid",
    "warpgrad_mini_imagenet",
    "warpgrad_omniglot",
  ),
  "vmap": (False, True),
}


def pairwise(factors: Mapping[str, Sequence[Any]]) -> list[Case]:
  """A fixed list of cases in which any two values of two factors meet, each value chosen to meet the most anew."""
  levels = [[(name, value) for value in values] for name, values in factors.items()]
  left = {frozenset(pair) for a, b in itertools.combinations(levels, 2) for pair in itertools.product(a, b)}
  firsts, cases = list(itertools.product(*sorted(levels, key=len)[-2:])), []
  while firsts or left:
    case = set(firsts.pop(0) if firsts else min(left, key=lambda pair: sorted(map(repr, pair))))
    for level in levels:
      if not case.intersection(level):
        case.add(max(level, key=lambda item, case=case: sum(frozenset((item, other)) in left for other in case)))
    left -= {frozenset(pair) for pair in itertools.combinations(case, 2)}
    cases.append({name: dict(case)[name] for name in factors})
  return cases


def product(factors: Mapping[str, Sequence[Any]]) -> list[Case]:
  return [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]


def images(size: int, channels: int = 1) -> jax.Array:
  return jax.random.normal(jax.random.key(1), (4, size, size, channels))


def make_conv4(
  layers: str, activation: str = "leaky_relu", warp: str = "none", **options: Any
) -> tuple[nn.Module, Any]:
  order = tuple(layers.replace("act", activation).split())
  plain = {"width": 2, "strides": 1, "readout": "flatten", "norm_scale": True, "norm_groups": 2, "head_init": None}
  module = networks.Conv4(2, layers=order, warp=WARPS[warp], num_blocks=1, **{**plain, **options})
  return module, images(6)


def make_mlp(activation: str, warp: str, **options: Any) -> tuple[nn.Module, Any]:
  module = networks.MLP(activation=ACTIVATIONS[activation], warp=WARPS[warp], num_outputs=2, **options)
  return module, images(2).reshape(4, 4)


def make_resnet12(warp: str, drop_rate: float, **options: Any) -> tuple[nn.Module, Any]:
  module = networks.ResNet12(2, warp=WARPS[warp], drop_rate=drop_rate, **options)
  return module, images(5)


def make_policy(module: str, width: int) -> tuple[nn.Module, Any]:
  if module == "GaussianMLP":
    return networks.GaussianMLP((width, width)), images(2).reshape(4, 4)
  return Unrolled(getattr(networks, module)(width, num_actions=2)), images(2).reshape(4, 2, 2)


def make_preset(module: str) -> tuple[nn.Module, Any]:
  if "sinusoid" in module:
    return getattr(presets, module)(), images(2).reshape(16, 1)
  return getattr(presets, module)(width=3, num_blocks=2), images(10, 3 if "imagenet" in module else 1)


class Unrolled(nn.Module):
  """A recurrent cell over a few steps: `[steps, episodes, n]` to logits and values of the last."""

  cell: nn.Module

  @nn.compact
  def __call__(self, x: jax.Array) -> Any:
    memory = None
    for step in x:
      memory, *outputs = self.cell((memory, step))
    return outputs


MAKE: dict[str, tuple[Callable[..., tuple[nn.Module, Any]], Any]] = {
  "conv4": (make_conv4, CONV4),
  "conv4_options": (make_conv4, CONV4_OPTIONS),
  "mlp": (make_mlp, MLP),
  "resnet12": (make_resnet12, RESNET12),
  "policy": (make_policy, POLICIES),
  "preset": (make_preset, PRESETS),
}


def drawn(shapes: Any) -> Any:
  """Parameters away from the values at the start, where biases are zero and gates are closed."""
  rng = np.random.default_rng(3)
  return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape)), shapes)


def loss_of(family: str, *, vmap: bool, **case: Any) -> tuple[Callable[[Any], jax.Array], Any]:
  """A smooth loss of a network's outputs, of its parameters or, under vmap, of those of two tasks."""
  module, x = MAKE[family][0](**case)
  start = drawn(jax.eval_shape(module.init, jax.random.key(0), x)["params"])

  def loss(params: Any) -> jax.Array:
    rngs = {"dropout": jax.random.key(2)}  # of one mask, where a network drops anything
    outputs = jax.tree.leaves(module.apply({"params": params}, x, mutable=["batch_stats"], rngs=rngs)[0])
    return sum(jnp.mean(jnp.sin(output + 0.3) ** 2) for output in outputs)

  if not vmap:
    return loss, start
  tasks = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.9 * leaf + 0.05]), start)
  return lambda params: jnp.sum(jax.vmap(loss)(params) * jnp.array([1.0, 0.7])), tasks


def assert_differences(value_and_grad: Callable[[Any], tuple[jax.Array, Any]], params: Any) -> Any:
  """The slope along two random directions, of steps so small that few units turn within them. Returns the gradient."""
  value, gradient = lambda params: value_and_grad(params)[0], value_and_grad(params)[1]
  for seed in range(2):
    along = toy.direction(params, seed)
    wanted = toy.slope(value, params, along, step=1e-6)
    scale = abs(wanted) + float(optax.tree.norm(gradient)) / np.sqrt(optax.tree.size(gradient))
    np.testing.assert_allclose(float(optax.tree.vdot(gradient, along)), wanted, rtol=0, atol=1e-5 * scale + 1e-9)
  return gradient


def check(family: str, case: Case, compiler: Callable[..., Any], *, eager: bool = False) -> None:
  loss, params = loss_of(family, **case)
  gradient = assert_differences(compiler(jax.value_and_grad(loss)), params)
  if eager:
    chex.assert_trees_all_close(gradient, jax.grad(loss)(params), rtol=1e-7, atol=1e-10)


def name_of(case: Any) -> str:
  return "-".join(f"{value}".replace(" ", "_") for value in case.values()) if isinstance(case, dict) else f"{case}"


def cases_of(families: Sequence[str], choose: Callable[[Any], list[Case]]) -> list[tuple[str, Case]]:
  return [(family, case) for family in families for case in choose(MAKE[family][1])]


# Of all that `make test-slow` runs: every order of layers, every kind of warp, every policy.
QUICK = {"conv4": slice(0, None, 4), "mlp": slice(0, None, 4), "policy": slice(0, 4)}


def compiled_cases() -> Iterator[Any]:
  for family, quick in QUICK.items():
    cases = pairwise(MAKE[family][1])
    for case in cases:
      again = case.get("width") == 16 and "norm" in case["layers"]  # an order of layers that a smaller case has
      marks = [] if case in cases[quick] and not again else [pytest.mark.slow]
      yield pytest.param(family, case, marks=marks, id=f"{family}-{name_of(case)}")


@pytest.mark.parametrize(("family", "case"), list(compiled_cases()))
def test_the_compiled_gradient_is_that_of_finite_differences(family, case, x64):
  """Compiled without fusion emitters, where every window of the old max-pooling lost its gradient or made a NaN."""
  check(family, case, toy.jit)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "case"), cases_of(("conv4", "mlp", "policy", "preset"), product), ids=name_of)
def test_the_optimised_gradient_is_that_of_finite_differences(family, case, x64):
  check(family, case, jax.jit)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "case"), cases_of(tuple(MAKE), pairwise), ids=name_of)
def test_the_uncompiled_gradient_is_the_optimised_one(family, case, x64):
  check(family, case, jax.jit, eager=True)


def meta_gradient(module: nn.Module, x: jax.Array) -> tuple[Callable[[Any], tuple[jax.Array, Any]], Any]:
  """Value and gradient of two inner steps at half of the examples, as functions of the initial parameters."""
  network = networks.from_linen(module)
  inner = wj.InnerLoop(losses.classification(network.apply), rules.sgd(0.1), num_steps=2)
  batch = (x, jnp.arange(x.shape[0]) % module.num_classes)
  halves = [jax.tree.map(lambda leaf, part=part: leaf[part::2], batch) for part in (0, 1)]
  estimate = meta_gradients.unrolled(inner)

  def value_and_grad(params: Any) -> tuple[jax.Array, Any]:
    (value, _), grads = estimate(wj.MetaParams(params, (), ()), wj.Task(*halves), toy.key())
    return value, grads.initial

  return toy.optimized(value_and_grad), drawn(jax.eval_shape(network.init, jax.random.key(0), x)[0])


def test_two_steps_through_the_network_of_mamlpp(x64):
  """Off by more than its own norm where windows lost their gradients."""
  module = networks.mamlpp_mini_imagenet(3, width=16, num_blocks=1, conv_bias=True)
  assert_differences(*meta_gradient(module, images(8)))
