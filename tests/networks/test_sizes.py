"""A size that is no positive integer is refused by name, before flax divides by it or makes empty arrays of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from warpjax.networks import MLP, Conv4, ResNet12, Transformer, WarpSpec, maml_sinusoid, policies

IMAGES = jnp.ones((2, 16, 16, 1))
STEP = (None, jnp.ones((2, 3)))


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "4"])
@pytest.mark.parametrize(
  ("make", "x", "name"),
  [
    (lambda n: MLP((4, n)), jnp.ones((2, 1)), r"features\[1\]"),
    (lambda n: MLP(num_outputs=n), jnp.ones((2, 1)), "num_outputs"),
    (
      lambda n: MLP(warp=WarpSpec("linear", num_layers=n)),
      jnp.ones((2, 1)),
      r"warp.num_layers \(warp=None for no warp-layers\)",
    ),
    (lambda n: MLP(warp=WarpSpec("linear", hidden_width=n)), jnp.ones((2, 1)), "warp.hidden_width"),
    (lambda n: Conv4(num_classes=n), IMAGES, "num_classes"),
    (lambda n: Conv4(width=n), IMAGES, "width"),
    (lambda n: Conv4(strides=n), IMAGES, "strides"),
    (lambda n: Conv4(hidden=(n,)), IMAGES, r"hidden\[0\]"),
    (lambda n: Conv4(num_blocks=n), IMAGES, "num_blocks"),
    (lambda n: Conv4(norm="group", norm_groups=n), IMAGES, "norm_groups"),
    (lambda n: ResNet12(num_classes=n), IMAGES, "num_classes"),
    (lambda n: ResNet12(widths=(4, 4, n, 4)), IMAGES, r"widths\[2\]"),
    (lambda n: ResNet12(block_size=n), IMAGES, "block_size"),
    (lambda n: Transformer(num_blocks=n), jnp.zeros(4, jnp.int32), "num_blocks"),
    (lambda n: Transformer(window=n), jnp.zeros(4, jnp.int32), "window"),
    (lambda n: policies.GaussianMLP(features=(n,)), jnp.ones((2, 3)), r"features\[0\]"),
    (lambda n: policies.RNN(width=n), STEP, "width"),
    (lambda n: policies.WarpRNN(width=n), STEP, "width"),
    (lambda n: policies.HebbianRNN(num_actions=n), STEP, "num_actions"),
  ],
)
def test_a_size_that_is_no_positive_integer_is_refused(make, x, name, size):
  with pytest.raises(ValueError, match=rf"^{name} must be .*an integer of at least 1; got {size!r}"):
    make(size).init(jax.random.key(0), x)


def test_a_deviation_that_is_not_positive_is_refused():
  with pytest.raises(ValueError, match="init_std must be above 0; got 0.0"):
    policies.GaussianMLP(init_std=0.0).init(jax.random.key(0), jnp.ones((2, 3)))


@pytest.mark.parametrize(
  ("module", "name"),
  [(MLP(4), "features"), (maml_sinusoid(1), "features"), (Conv4(hidden=4), "hidden"), (ResNet12(widths=4), "widths")],
)
def test_one_number_is_no_sequence_of_widths(module, name):
  x = jnp.ones((2, 1)) if isinstance(module, MLP) else IMAGES
  with pytest.raises(ValueError, match=rf"{name} must be a sequence of integers, such as \(40, 40\); got [14]"):
    module.init(jax.random.key(0), x)
