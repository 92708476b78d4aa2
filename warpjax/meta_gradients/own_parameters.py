"""Parameters that each task draws for itself, whose initial values are not learned."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from warpjax.meta_gradients.from_start import Start
from warpjax.problem import Problem
from warpjax.types import Aux, MetaGradFn, MetaParams, Params, Task

# Apart from the step indices that batches fold into the task's key.
_STREAM = 0x4EAD

Draw = Callable[[jax.Array, Params], Params]
"""`(key, initial) -> {name: parameters}`: what takes the place of the entries of those names, leaf for leaf."""


def own_parameters(grad_fn: MetaGradFn, draw: Draw) -> MetaGradFn:
  """The meta-gradient if each task draws some of its initial parameters, such as a head for its own classes.

  Args:
    grad_fn: The estimator, which sees the initial parameters as `draw` completes them; it carries no state.
    draw: `(key, initial) -> {name: parameters}`, with a key of each task: what takes the place of those entries of
      `meta_params.initial`, which is a dict.

  Returns:
    A `MetaGradFn`, zero for those entries: an outer update without weight decay does not change them. Test tasks
    draw theirs by `evaluation.evaluate(..., draw=draw)`.

  Raises:
    ValueError: if an argument is not a function; when traced, if `initial` is not a dict, or its entry of that name is
      missing or has other shapes.

  Example:
    >>> import jax.numpy as jnp, warpjax as wj
    >>> loss = lambda p, shared, batch: ((p["head"] * p["body"] - batch) ** 2, {})
    >>> reptile = wj.meta_gradients.along_trajectory(
    ...   wj.InnerLoop(loss, wj.rules.sgd(0.1), num_steps=2), wj.meta_gradients.reptile()
    ... )
    >>> grad_fn = own_parameters(reptile, lambda key, initial: {"head": jax.random.normal(key)})
    >>> learned = wj.MetaParams({"body": jnp.array(1.0), "head": jnp.array(0.0)})
    >>> _, grads = grad_fn(learned, wj.Task(2.0, 2.0), jax.random.key(0))
    >>> bool(grads.initial["body"] != 0), float(grads.initial["head"])
    (True, 0.0)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, its released code for multi-shot Omniglot: Leap, Reptile, FOMAML.
  """
  for name, function in (("grad_fn", grad_fn), ("draw", draw)):
    if not callable(function):
      raise ValueError(f"{name} must be a function without state; got {type(function).__name__}")

  def with_own(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[tuple[jax.Array, Aux], MetaParams]:
    own = _drawn(draw, meta_params, key)
    value, grads = grad_fn(_with(own, meta_params), task, key)
    return value, grads._replace(initial={**grads.initial, **optax.tree.zeros_like(own)})

  return with_own


def drawn(draw: Draw) -> Start:
  """The start of a task that begins with some parameters of its own, for `evaluation.evaluate` and the like.

  Args:
    draw: As for `own_parameters`.

  Returns:
    A `Start`: the meta-parameters with the drawn parameters, those of the task's key.

  Raises:
    ValueError: From the start, as `own_parameters`.

  Example:
    >>> import jax.numpy as jnp, warpjax as wj
    >>> inner = wj.InnerLoop(lambda p, shared, batch: (p["head"] * p["body"], {}), wj.rules.sgd(0.1), num_steps=2)
    >>> start = drawn(lambda key, initial: {"head": jax.random.normal(key)})
    >>> learned = MetaParams({"body": jnp.array(1.0), "head": jnp.array(0.0)})
    >>> own = start(Problem(inner, learned, wj.Task(0, 0), jax.random.key(0)))
    >>> float(own.initial["body"]), bool(own.initial["head"] != 0)
    (1.0, True)
  """

  def start(problem: Problem) -> MetaParams:
    return _with(_drawn(draw, problem.meta_params, problem.key), problem.meta_params)

  return start


def _with(own: dict[str, Params], meta_params: MetaParams) -> MetaParams:
  return meta_params._replace(initial={**meta_params.initial, **own})


def _drawn(draw: Draw, meta_params: MetaParams, key: jax.Array) -> dict[str, Params]:
  own = draw(jax.random.fold_in(key, _STREAM), meta_params.initial)
  _check(own, meta_params.initial)
  return own


def _check(own: Params, initial: Params) -> None:
  if not isinstance(initial, dict) or not isinstance(own, dict) or not own.keys() <= initial.keys():
    names = sorted(own) if isinstance(own, dict) else type(own).__name__
    allowed = sorted(initial) if isinstance(initial, dict) else type(initial).__name__
    raise ValueError(f"draw must return a dict of entries of initial, {allowed}; got {names}")
  for name, entry in own.items():
    shapes = [jax.tree.map(lambda leaf: (jax.numpy.shape(leaf), leaf.dtype), tree) for tree in (entry, initial[name])]
    if shapes[0] != shapes[1]:
      raise ValueError(f"draw must return {name!r} with the shapes of initial, {shapes[1]}; got {shapes[0]}")
