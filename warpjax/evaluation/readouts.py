"""Readouts: how the points of an adaptation are evaluated, by the query loss or under given batch statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from warpjax.numerics import take
from warpjax.padding import inputs
from warpjax.problem import Problem
from warpjax.types import Apply, ApplyWithStats, Aux, InnerLoop, InnerStep, LossFn, Params, PyTree


class Readout(NamedTuple):
  """Evaluates the points of one task's adaptation: a fold over its steps, and a loss that reads the fold's state.

  Attributes:
    start: `(problem, data) -> carry`, before the first step of each task.
    step: `(problem, carry, inner_step) -> carry`.
    loss: `(problem, carry, params, index) -> (scalar, aux)`, the loss of point `index`, which follows `index` steps.
    data: Arrays that `start` reads. They are arguments of the compiled evaluation, so new values do not recompile it.
  """

  start: Callable[[Problem, PyTree], PyTree]
  step: Callable[[Problem, PyTree, InnerStep], PyTree]
  loss: Callable[[Problem, PyTree, Params, Any], tuple[jax.Array, Aux]]
  data: PyTree = ()


def query_loss(inner: InnerLoop | None = None) -> Readout:
  """The query loss of an inner loop, by default of the one that adapts; nothing is folded.

  Args:
    inner: The loop whose query loss is taken; None for the loop that adapts.

  Returns:
    A `Readout`.

  Example:
    >>> import warpjax as wj
    >>> squared = wj.InnerLoop(lambda w, shared, batch: ((w - batch) ** 2, {}), wj.rules.sgd(0.1), num_steps=1)
    >>> absolute = squared._replace(query_loss_fn=lambda w, shared, batch: (abs(w - batch), {}))
    >>> problem = Problem(squared, wj.MetaParams(0.0), wj.Task(4.0, 4.0), jax.random.key(0))
    >>> [float(query_loss(inner).loss(problem, (), 1.0, 0)[0]) for inner in (None, absolute)]
    [9.0, 3.0]
  """

  def loss(problem: Problem, carry: PyTree, params: Params, index: Any) -> tuple[jax.Array, Aux]:
    del carry
    return problem._replace(inner=inner or problem.inner).query_loss(params, problem.meta_params.shared, index)

  return Readout(lambda problem, data: (), lambda problem, carry, step: carry, loss)


def running(
  apply_with_stats: ApplyWithStats | None,
  loss_of: Callable[[Apply], LossFn],
  *,
  momentum: float = 0.1,
  debias: bool = False,
) -> Readout:
  """The query loss under moving averages of the batch statistics of the task's own steps, fresh for each task.

  `stats_0 = (mean 0, var 1)`, `stats_{k+1} = (1 - momentum) stats_k + momentum b_k`, b_k those of step k's support
  batch at the parameters before the step; point k is evaluated under `stats_k`. As in PyTorch, the start has a weight
  of `(1 - momentum)^k` after k steps: 3e-5 after 100 steps, 0.73 after 3. `debias=True` removes the start, as in Adam:
  the rate of step k is `momentum / (1 - (1 - momentum)^(k + 1))`, so that after one step the statistics are b_0.
  Variances are divided by the count n; PyTorch's running variance, by n - 1.

  Args:
    apply_with_stats: `(params, shared, stats or None, x) -> (outputs, stats)`, a `Network`'s.
    loss_of: `(apply) -> loss` on query batches, e.g. `losses.classification`.
    momentum: The weight of the newest batch, PyTorch's convention (flax's is one minus this).
    debias: Whether the averages are divided by the total weight of the batches so far.

  Returns:
    A `Readout` for inner loops whose batches are pairs `(x, y)`.

  Raises:
    ValueError: when the network gives no statistics, or momentum is outside (0, 1].

  Example:
    >>> import warpjax as wj
    >>> def centred(params, shared, stats, x):
    ...   stats = stats or {"mean": jnp.mean(x)}
    ...   return x - stats["mean"], stats
    >>> loss_fn = wj.losses.regression(lambda params, shared, x: centred(params, shared, None, x)[0])
    >>> inner = wj.InnerLoop(loss_fn, wj.rules.sgd(0.1), num_steps=2)
    >>> tasks = wj.Task((jnp.array([[2.0, 4.0]]), jnp.zeros((1, 2))), (jnp.array([[3.0]]), jnp.zeros((1, 1))))
    >>> readout = running(centred, wj.losses.regression, momentum=0.5)
    >>> run = wj.evaluation.evaluator(inner, metric="loss", readout=readout)
    >>> run(wj.MetaParams(()), tasks, jax.random.key(0), 1).per_task.tolist()  # 3 less 0, 1.5 and 2.25, squared
    [[9.0, 2.25, 0.5625]]

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, the released code of the multi-shot Omniglot experiment.
  """
  if apply_with_stats is None:
    raise ValueError("apply_with_stats must be a function; got None, of a Network made without one")
  if not 0 < momentum <= 1:
    raise ValueError(f"momentum must be above 0 and at most 1; got {momentum!r}")
  apply = apply_with_stats

  def of_batch(problem: Problem, params: Params, index: Any) -> PyTree:
    return apply(params, problem.meta_params.shared, None, inputs(problem.batch(params, index)))[1]

  def start(problem: Problem, data: PyTree) -> PyTree:
    del data
    shapes = jax.eval_shape(lambda: of_batch(problem, problem.meta_params.initial, 0))
    return jax.tree_util.tree_map_with_path(_start, shapes)

  def step(problem: Problem, stats: PyTree, inner_step: InnerStep) -> PyTree:
    seen = of_batch(problem, inner_step.state.params, inner_step.number)
    rate = momentum / (1 - (1 - momentum) ** (inner_step.number + 1)) if debias else momentum
    return jax.tree.map(lambda old, new: ((1 - rate) * old + rate * new).astype(old.dtype), stats, seen)

  def loss(problem: Problem, stats: PyTree, params: Params, index: Any) -> tuple[jax.Array, Aux]:
    loss_fn = loss_of(lambda p, s, x: apply(p, s, stats, x)[0])
    under = problem._replace(inner=problem.inner._replace(query_loss_fn=loss_fn))
    return under.query_loss(params, problem.meta_params.shared, index)

  return Readout(start, step, loss)


def by_step(apply_with_stats: ApplyWithStats | None, loss_of: Callable[[Apply], LossFn], stats: PyTree) -> Readout:
  """The query loss of point k under the k-th batch statistics passed in: MAML++'s per-step batch norm.

  Args:
    apply_with_stats: `(params, shared, stats or None, x) -> (outputs, stats)`, a `Network`'s.
    loss_of: `(apply) -> loss` on query batches, e.g. `losses.classification`.
    stats: Statistics of points 0..K, leaves `[K + 1, ...]`, from `step_statistics.collect`.

  Returns:
    A `Readout`; points after K use the last statistics.

  Raises:
    ValueError: when the network gives no statistics.

  Example:
    >>> import warpjax as wj
    >>> apply = lambda params, shared, stats, x: (x - stats["mean"], stats)
    >>> readout = by_step(apply, wj.losses.regression, {"mean": jnp.array([0.0, 3.0])})
    >>> inner = wj.InnerLoop(lambda w, shared, batch: (w**2, {}), wj.rules.sgd(0.1), num_steps=1)
    >>> task = wj.Task(support=(), query=(jnp.array([3.0]), jnp.zeros(1)))
    >>> problem = Problem(inner, wj.MetaParams(0.0), task, jax.random.key(0))
    >>> [float(readout.loss(problem, readout.data, 0.0, point)[0]) for point in (0, 1)]
    [9.0, 0.0]

  Reference:
    Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, section 4.
  """
  if apply_with_stats is None:
    raise ValueError("apply_with_stats must be a function; got None, of a Network made without one")
  apply = apply_with_stats

  def loss(problem: Problem, stats: PyTree, params: Params, index: Any) -> tuple[jax.Array, Aux]:
    of_step = jax.tree.map(lambda leaf: take(leaf, jnp.minimum(index, leaf.shape[0] - 1)), stats)
    loss_fn = loss_of(lambda p, s, x: apply(p, s, of_step, x)[0])
    under = problem._replace(inner=problem.inner._replace(query_loss_fn=loss_fn))
    return under.query_loss(params, problem.meta_params.shared, index)

  return Readout(lambda problem, data: data, lambda problem, carry, step: carry, loss, stats)


def _start(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
  name = getattr(path[-1], "key", None)
  if name not in ("mean", "var"):
    raise ValueError(f"statistics must be named 'mean' or 'var'; got {jax.tree_util.keystr(path)}")
  return jnp.full(leaf.shape, float(name == "var"), leaf.dtype)
