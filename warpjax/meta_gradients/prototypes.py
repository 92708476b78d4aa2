"""ProtoMAML: a head that begins as the classifier by the nearest class mean of the support set."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from warpjax import padding
from warpjax.meta_gradients.from_start import Start
from warpjax.mistakes import APPLY, check_labels, check_takes
from warpjax.numerics import sum_dtype
from warpjax.problem import Problem
from warpjax.types import Apply, MetaParams, PyTree


def prototypes(apply: Apply, head: str = "head") -> Start:
  """`W_k = 2 c_k, b_k = -|c_k|^2`, c_k the mean features of the support examples of class k: a start for `from_start`.

  The logits are then `|h|^2 - |h - c_k|^2` for features h. The features are those of the first inner step's support
  batch, under the initial parameters. The logits are linear in the head's kernel, so that the derivative of their mean
  over the examples of class k in column k is c_k.

  Args:
    apply: `(params, shared, x [batch, ...]) -> logits [batch, classes]`, whose last layer is the linear one of `head`.
    head: The entry of `initial` with its `kernel [features, classes]` and `bias [classes]`, whose values are not used.

  Returns:
    A `Start`; the meta-gradient flows through the features to all parameters but those of the head.

  Raises:
    ValueError: when `apply` is not a function of these arguments; when traced, if `initial` has no such head, or labels
      are not integers.

  Example:
    >>> import warpjax as wj
    >>> apply = lambda params, shared, x: x @ params["head"]["kernel"] + params["head"]["bias"]
    >>> inner = wj.InnerLoop(wj.losses.classification(apply), wj.rules.sgd(0.1), num_steps=1)
    >>> task = wj.Task((jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([0, 1])), (jnp.ones((1, 2)), jnp.array([0])))
    >>> learned = wj.MetaParams({"head": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}})
    >>> begun = prototypes(apply)(Problem(inner, learned, task, jax.random.key(0))).initial["head"]
    >>> begun["kernel"].T.tolist(), begun["bias"].tolist()
    ([[2.0, 0.0], [0.0, 4.0]], [-1.0, -4.0])

  Reference:
    Triantafillou et al. 2020, "Meta-Dataset", arXiv 1903.03096, section 3 (Proto-MAML); Snell et al. 2017, arXiv
    1703.05175, equation 8.
  """
  check_takes("apply", apply, APPLY)

  def start(problem: Problem) -> MetaParams:
    initial, shared = problem.meta_params.initial, problem.meta_params.shared
    own = _head(initial, head)
    batch = problem.batch(initial, 0)
    x, labels, weights = padding.unpack(batch)
    of_class = _shares(labels, weights, own["bias"])

    def own_logits(kernel: jax.Array) -> jax.Array:
      logits = padding.apply_to(apply, {**initial, head: {**own, "kernel": kernel}}, shared, x)
      return jnp.sum(of_class * logits)

    centres = jax.grad(own_logits)(own["kernel"])
    begun = {**own, "kernel": 2 * centres, "bias": -jnp.sum(centres**2, axis=0)}
    return problem.meta_params._replace(initial={**initial, head: begun})

  return start


def _shares(labels: jax.Array, weights: jax.Array | None, like: jax.Array) -> jax.Array:
  """`[examples, classes]`: the weight of each example in the mean of each class; zeros for a class without examples."""
  check_labels(labels, jnp.zeros((len(labels), like.shape[-1])))
  of_class = jax.nn.one_hot(labels, like.shape[-1], dtype=sum_dtype(like))
  if weights is not None:
    of_class = of_class * weights[:, None].astype(of_class.dtype)
  counts = jnp.sum(of_class, axis=0, keepdims=True)
  return (of_class / jnp.where(counts > 0, counts, 1)).astype(like.dtype)


def _head(initial: PyTree, name: str) -> dict[str, jax.Array]:
  own = initial.get(name) if isinstance(initial, dict) else None
  if not isinstance(own, dict) or set(own) != {"kernel", "bias"}:
    has = ", ".join(initial) if isinstance(initial, dict) else type(initial).__name__
    raise ValueError(f"head must be an entry of initial with a kernel and a bias; got {name!r} of {has}")
  return own
