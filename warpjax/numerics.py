"""Sums that low precision does not stop, whether a pytree is finite, and its leaves by path and by index."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.types import PyTree


def sum_dtype(leaf: Any) -> Any:
  """The dtype for sums of numbers like `leaf`: at least single precision, as a sum of ones in bfloat16 stops at 256."""
  inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
  return jnp.promote_types(leaf.dtype, jnp.float32) if inexact else jnp.result_type(float)


def sums_like(tree: PyTree) -> PyTree:
  """Zeros of the shapes of `tree`, to add up to."""
  return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), sum_dtype(jnp.asarray(leaf))), tree)


def add_to(sums: PyTree, tree: PyTree) -> PyTree:
  """`sums + tree`, in the dtypes of the sums."""
  return jax.tree.map(lambda total, leaf: total + leaf.astype(total.dtype), sums, tree)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
  """Each leaf of a tree with its path, such as "meta_params/initial/w"."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def take(tree: PyTree, index: Any) -> PyTree:
  """`leaf[index]` of each leaf; an array of NumPy's takes no traced index by itself."""
  return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], tree)


def is_typed_key(leaf: Any) -> bool:
  """Whether a leaf is a key, or an array of keys, as `jax.random.key` makes them.

  Example:
    >>> is_typed_key(jax.random.key(0)), is_typed_key(jax.random.PRNGKey(0)), is_typed_key(0.0)
    (True, False, False)
  """
  return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
  """The leaves of `tree` in the dtypes of `like`.

  Example:
    >>> cast_like(sums_like(jnp.ones(2, jnp.bfloat16)), jnp.ones(2, jnp.bfloat16)).dtype.name
    'bfloat16'
  """
  return jax.tree.map(lambda leaf, other: leaf.astype(jnp.result_type(other)), tree, like)


def is_finite(tree: PyTree) -> jax.Array:
  """Whether every number in `tree` is finite; integers and keys are.

  Example:
    >>> bool(is_finite({"a": jnp.ones(2), "b": jnp.array([1, 2])})), bool(is_finite(jnp.array([1.0, jnp.inf])))
    (True, False)
  """
  inexact = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in inexact])) if inexact else jnp.array(True)


def real_dtype(dtype: Any) -> Any:
  """The dtype of the real and imaginary parts of numbers of `dtype`; `dtype` itself if they are real."""
  return jnp.finfo(dtype).dtype


def real_vdot(left: PyTree, right: PyTree) -> jax.Array:
  """`Re <left, right>`: the inner product of real and imaginary parts, in which Hessians are symmetric.

  Example:
    >>> float(real_vdot(jnp.array(1.0 + 2.0j), jnp.array(3.0 - 1.0j)))
    1.0
  """
  return jnp.real(optax.tree.vdot(left, right))
