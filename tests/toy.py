"""A small smooth problem with parameters of every kind, and the ways in which derivatives are checked on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

import warpjax as wj
from warpjax import compilation
from warpjax.types import MetaParams, Task


def jit(function: Callable[..., Any]) -> Any:
  """`jax.jit` for programs that compile for longer than they run."""
  return jax.jit(function, compiler_options=compilation.fast_compilation())


def optimized(function: Callable[..., Any]) -> Any:
  """`jax.jit` with every optimization, in quick tests too: for faults that optimizations bring out."""
  usual = {
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
  }
  return jax.jit(function, compiler_options={name: usual[name] for name in compilation.fast_compilation()})


def run(estimate: Callable[..., Any], meta_params: MetaParams, task: Task) -> Any:
  """One meta-gradient, compiled."""
  return jit(estimate)(meta_params, task, key())


def loss_fn(params: Any, shared: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Mean squared error of a two-layer network whose second layer is shared; a polynomial, as that compiles fast."""
  x, y = batch
  hidden = x @ params["w"] + params["b"][None]
  error = jnp.mean(((hidden + 0.3 * hidden**2) @ shared["warp"] - y) ** 2)
  return error, {"mse": error}


def draw(seed: int, *shape: int, dtype: Any = float) -> jax.Array:
  return jnp.asarray(0.5 * np.random.default_rng(seed).standard_normal(shape), dtype)


def key(seed: int = 7) -> jax.Array:
  return jax.random.key(seed)


def init(network: wj.networks.Network, x: Any) -> tuple[Any, Any]:
  """A network's parameters at the start; flax without `jit` compiles every operation by itself."""
  return jax.jit(network.init)(jax.random.key(0), x)


def initial(dtype: Any = float) -> Any:
  return {"b": draw(0, 3, dtype=dtype), "w": draw(1, 2, 3, dtype=dtype)}


def shared(dtype: Any = float) -> Any:
  return {"warp": draw(2, 3, 2, dtype=dtype)}


def task(seed: int = 3, num_examples: int = 4, dtype: Any = float) -> Task:
  support_x, support_y, query_x, query_y = draw(seed, 4, num_examples, 2, dtype=dtype)
  return Task((support_x, support_y), (query_x, query_y))


def tasks(count: int, **kwargs: Any) -> Task:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[task(10 + i, **kwargs) for i in range(count)])


def meta_params(rule: wj.UpdateRule | None = None, dtype: Any = float) -> MetaParams:
  params = initial(dtype=dtype)
  return MetaParams(params, shared(dtype=dtype), jax.jit(rule.init)(jax.random.key(3), params) if rule else ())


def loop(rule: wj.UpdateRule | None = None, num_steps: int = 3, **kwargs: Any) -> wj.InnerLoop:
  return wj.InnerLoop(kwargs.pop("loss_fn", loss_fn), rule or wj.rules.sgd(0.1), num_steps, **kwargs)


def some(key: jax.Array, batch: Any, size: int, shift: Any = 0) -> Any:
  """Neighbouring examples by the bits of the key: a draw would take longer to compile than the rest of a toy."""
  count = jax.tree.leaves(batch)[0].shape[0]
  first = (jax.random.key_data(key)[-1].astype(jnp.int32) + shift) % (count - size + 1)
  return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), batch)


def pair(key: jax.Array, support: Any, step: Any, params: Any, shared: Any) -> Any:
  """A batch function of two examples, others for other keys and steps."""
  del params, shared
  return some(key, support, 2, step)


def direction(tree: Any, seed: int = 4) -> Any:
  """A random direction of norm one."""
  leaves, treedef = jax.tree.flatten(tree)
  drawn = [np.random.default_rng(100 * seed + i).standard_normal(leaf.shape) for i, leaf in enumerate(leaves)]
  norm = np.sqrt(sum(np.sum(leaf**2) for leaf in drawn))
  return treedef.unflatten([(by / norm).astype(leaf.dtype) for by, leaf in zip(drawn, leaves, strict=True)])


def slope(function: Callable[[Any], Any], tree: Any, along: Any, step: float = 1e-4) -> float:
  """The derivative of `function` along a direction, by differences of fourth order."""
  moved = lambda s: jax.tree.map(lambda leaf, by: np.asarray(leaf) + s * np.asarray(by), tree, along)
  near, far = (float(function(moved(s)) - function(moved(-s))) for s in (step, 2 * step))
  return (8 * near - far) / (12 * step)


def assert_slopes(function: Callable[[Any], Any], tree: Any, gradient: Any, rtol: float = 1e-7) -> None:
  """The gradient agrees with finite differences along three directions."""
  for seed in range(3):
    along = direction(tree, seed)
    found = sum(np.vdot(*leaves) for leaves in zip(jax.tree.leaves(gradient), jax.tree.leaves(along), strict=True))
    np.testing.assert_allclose(float(found), slope(function, tree, along), rtol=rtol, atol=1e-9)


def assert_close(left: Any, right: Any, rtol: float = 1e-10, atol: float = 1e-12) -> None:
  """Two trees have one structure, and equal leaves."""
  chex.assert_trees_all_close(left, right, rtol=rtol, atol=atol)


def assert_zero(tree: Any) -> None:
  """Exact zeros."""
  assert all(not np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))


def descent(loss: Callable[[Any, int], Any], params: Any, learning_rate: float, num_steps: int) -> list[Any]:
  """The points of plain gradient descent, in a Python loop: the reference that shares no code with the library."""
  points = [params]
  for index in range(num_steps):
    grads = jax.grad(loss)(points[-1], index)
    points.append(jax.tree.map(lambda p, g: p - learning_rate * g, points[-1], grads))
  return points
