"""A meta-gradient of its own for each block of MetaParams."""

from __future__ import annotations

import jax

from warpjax.types import Aux, MetaGradFn, MetaParams, Task


def blockwise(*, initial: MetaGradFn, shared: MetaGradFn | None = None, rule: MetaGradFn | None = None) -> MetaGradFn:
  """Each block's gradient from the estimator named for it; value and aux from `initial`'s.

  Args:
    initial: Estimates the `initial` block, and every block without an estimator of its own.
    shared: Estimates the `shared` block.
    rule: Estimates the `rule` block.

  Returns:
    A `MetaGradFn`.

  Raises:
    ValueError: if an argument is not a MetaGradFn; an estimator that carries state is not allowed.

  Example:
    >>> import warpjax as wj
    >>> from warpjax.meta_gradients import along_trajectory, unrolled, warp
    >>> inner = wj.InnerLoop(lambda p, s, b: ((p * s - b) ** 2, {}), wj.rules.sgd(0.1), num_steps=3)
    >>> warp_maml = blockwise(initial=unrolled(inner), shared=along_trajectory(inner, warp()))

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, equation 13 (the joint objective).
  """
  chosen = {"initial": initial, "shared": shared or initial, "rule": rule or initial}
  for name, estimator in chosen.items():
    if not callable(estimator):
      raise ValueError(f"{name} must be a MetaGradFn; got {type(estimator).__name__}")
  distinct = list(dict.fromkeys(chosen.values()))

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[tuple[jax.Array, Aux], MetaParams]:
    results = {estimator: estimator(meta_params, task, key) for estimator in distinct}
    blocks = {name: getattr(results[estimator][1], name) for name, estimator in chosen.items()}
    return results[initial][0], MetaParams(**blocks)

  return grad_fn
