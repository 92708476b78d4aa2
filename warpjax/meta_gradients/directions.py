"""Random directions in the space of the meta-parameters, for estimators without reverse mode."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.flatten_util
import jax.numpy as jnp

from warpjax.numerics import real_dtype
from warpjax.types import PyTree

Distribution = Literal["normal", "rademacher", "orthogonal"]


def directions(key: jax.Array, tree: PyTree, count: int, distribution: Distribution = "normal") -> PyTree:
  """Vectors v with `E[v v^T] = I`, leaves `[count, ...]`; complex numbers are two real coordinates each.

  Args:
    key: The key of the draw.
    tree: A tree with the structure, shapes and dtypes of a vector.
    count: The number of directions.
    distribution: "normal" or "rademacher" (signs) elements, independent; "orthogonal": `sqrt(size)` times the rows of a
      random rotation, so that `count = size` of them span all directions.

  Returns:
    The vectors.

  Raises:
    ValueError: for more orthogonal directions than the tree has elements.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> vectors = directions(jax.random.key(0), jnp.zeros(3), 3, "orthogonal")
    >>> bool(jnp.allclose(vectors @ vectors.T, 3 * jnp.eye(3), atol=1e-5))
    True
  """
  leaves, treedef = jax.tree.flatten(tree)
  dtypes = [real_dtype(jnp.result_type(leaf)) for leaf in leaves]
  sizes = [math.prod(jnp.shape(leaf)) * (1 + jnp.iscomplexobj(leaf)) for leaf in leaves]
  total = sum(sizes)
  if distribution == "orthogonal":
    if count > total:
      raise ValueError(f"there are {total} orthogonal directions; got {count}")
    dtype = jnp.promote_types(jnp.result_type(*dtypes), jnp.float32)
    for_rotation, for_signs = jax.random.split(key)
    rotation = jnp.linalg.qr(jax.random.normal(for_rotation, (total, count), dtype))[0].T
    # A QR decomposition chooses signs by itself; without fresh ones the vectors' mean would not be zero.
    flat = math.sqrt(total) * rotation * jax.random.rademacher(for_signs, (count, 1), dtype)
    edges = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    drawn = jnp.split(flat, edges, axis=1)
  else:
    sample = jax.random.normal if distribution == "normal" else jax.random.rademacher
    keys = jax.random.split(key, len(leaves))
    drawn = [sample(k, (count, size), dtype) for k, size, dtype in zip(keys, sizes, dtypes, strict=True)]
  return jax.tree.unflatten(treedef, [_like(leaf, array) for leaf, array in zip(leaves, drawn, strict=True)])


def _like(leaf: jax.Array, drawn: jax.Array) -> jax.Array:
  """Coordinates `[count, size]` as numbers of the leaf's shape and dtype, real parts before imaginary ones."""
  if jnp.iscomplexobj(leaf):
    drawn = jax.lax.complex(*jnp.split(drawn, 2, axis=1))
  return drawn.astype(jnp.result_type(leaf)).reshape(len(drawn), *jnp.shape(leaf))
