"""Reads the equations of a jaxpr through public attributes that every supported JAX has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax


def parameters(equation: Any) -> Mapping[str, Any]:
  """The parameters of an equation.

  Newer implementations of `checkpoint`, `custom_vjp`, `custom_jvp` and `scan` (behind JAX's flags `remat3`,
  `custom_vjp3`, `custom_jvp3` and `scan3`) are one primitive, which carries another one with parameters of its own.

  Args:
    equation: An entry of `jaxpr.eqns`.

  Returns:
    The parameters by name.

  Example:
    >>> jaxpr = jax.make_jaxpr(lambda xs: jax.lax.scan(lambda c, x: (c + x, None), 0.0, xs))(jax.numpy.ones(3))
    >>> [parameters(equation)["length"] for equation in jaxpr.eqns]
    [3]
  """
  return getattr(equation.params.get("_prim"), "params", equation.params)


def inside(equation: Any) -> Iterator[Any]:
  """The jaxprs among the parameters of an equation.

  Args:
    equation: An entry of `jaxpr.eqns`.

  Yields:
    Each jaxpr, with `eqns` of its own.

  Example:
    >>> jaxpr = jax.make_jaxpr(jax.jit(lambda x: 2 * x))(1.0)
    >>> [inner.eqns[0].primitive.name for inner in inside(jaxpr.eqns[0])]
    ['mul']
  """
  for value in jax.tree.leaves(dict(parameters(equation)), is_leaf=lambda value: hasattr(value, "eqns")):
    jaxpr = value if hasattr(value, "eqns") else getattr(value, "jaxpr", None)  # a traced function carries its own
    if hasattr(jaxpr, "eqns"):
      yield jaxpr


def equations(jaxpr: Any) -> Iterator[Any]:
  """Every equation of a jaxpr and of the jaxprs inside it.

  Args:
    jaxpr: The result of `jax.make_jaxpr(function)(*args)`.

  Yields:
    Each equation, outer ones first.

  Example:
    >>> jaxpr = jax.make_jaxpr(jax.jit(lambda x: 2 * x))(1.0)
    >>> [equation.primitive.name for equation in equations(jaxpr)][-1]
    'mul'
  """
  for equation in jaxpr.eqns:
    yield equation
    for inner in inside(equation):
      yield from equations(inner)
