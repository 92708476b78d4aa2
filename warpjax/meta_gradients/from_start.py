"""Adaptations that start at a point computed from the task; the meta-gradient flows through that computation."""

from __future__ import annotations

from collections.abc import Callable

import jax

from warpjax.adaptation import check_inner
from warpjax.checks import check_learnable
from warpjax.mistakes import check_takes
from warpjax.problem import Problem
from warpjax.types import Aux, InnerLoop, MetaGradFn, MetaParams, Task

Start = Callable[[Problem], MetaParams]
"""`(problem) -> meta_params`: what the task begins with, a function of `problem.meta_params` and the support set."""


def from_start(inner: InnerLoop, grad_fn: MetaGradFn, start: Start) -> MetaGradFn:
  """`J^T g`: g is the meta-gradient at the output of `start`, by any estimator, and J is the derivative of `start`.

  Args:
    inner: The inner loop, whose support batches `start` sees by `problem.batch`.
    grad_fn: Any estimator without state of the same inner loop; it takes the start as its meta-parameters.
    start: `(problem) -> meta_params`, such as `prototypes(apply)`.

  Returns:
    A `MetaGradFn`. Test tasks begin there too by `evaluation.evaluate(..., start=start)`.

  Raises:
    ValueError: if an argument is not a function, or a `grad_fn` carries state; when traced, if `start` returns another
      structure or other shapes than those of the meta-parameters.

  Example:
    >>> import jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1)
    >>> halved = lambda problem: problem.meta_params._replace(initial=problem.meta_params.initial / 2)
    >>> grad_fn = from_start(inner, wj.meta_gradients.unrolled(inner), halved)
    >>> (value, _), grads = grad_fn(wj.MetaParams(jnp.array(2.0)), wj.Task(3.0, 3.0), jax.random.key(0))
    >>> float(value), float(grads.initial)  # from 1 to 2, and (2 - 3) / 2 / 2
    (0.5, -0.25)

  Reference:
    Triantafillou et al. 2020, arXiv 1903.03096, section 3, where the start has prototypes.
  """
  check_inner(inner)
  check_takes("start", start, ("problem",))
  if not callable(grad_fn):
    raise ValueError(f"grad_fn must be a function without state; got {type(grad_fn).__name__}")
  own = getattr(grad_fn, "inner", inner)
  if (own.num_steps, own.prox) != (inner.num_steps, inner.prox):
    raise ValueError("grad_fn must be of the same inner loop as from_start; got another num_steps or prox")

  def started(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[tuple[jax.Array, Aux], MetaParams]:
    check_learnable(meta_params)

    def of(meta_params: MetaParams) -> MetaParams:
      return begun(Problem(inner, meta_params, task, key), start).meta_params

    at, pullback = jax.vjp(of, meta_params)
    value, grads = grad_fn(at, task, key)
    return value, pullback(grads)[0]

  return started


def begun(problem: Problem, *starts: Start | None) -> Problem:
  """The problem whose adaptation begins at `starts`, each made from the one before; as it is for None.

  Raises:
    ValueError: when traced, if the start has another structure or other shapes than the meta-parameters.
  """
  for start in filter(None, starts):
    made = start(problem)
    shapes = [
      jax.tree.map(lambda leaf: (jax.numpy.shape(leaf), leaf.dtype), tree) for tree in (made, problem.meta_params)
    ]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"start must return meta-parameters of the shapes of its problem's, {shapes[1]}; got {shapes[0]}"
      )
    problem = problem._replace(meta_params=made)
  return problem
