"""Meta-gradient estimators: `(meta_params, task, key) -> ((loss, aux), MetaParams)`, as `jax.value_and_grad` has it."""

from warpjax.meta_gradients.blockwise import blockwise
from warpjax.meta_gradients.evolution_strategies import evolution_strategies
from warpjax.meta_gradients.forward_gradient import forward_gradient
from warpjax.meta_gradients.implicit import implicit, implicit_released
from warpjax.meta_gradients.leap import leap
from warpjax.meta_gradients.one_step import one_step
from warpjax.meta_gradients.own_parameters import own_parameters
from warpjax.meta_gradients.path_loss import annealed_step_weights
from warpjax.meta_gradients.penalty import penalty
from warpjax.meta_gradients.reptile import reptile
from warpjax.meta_gradients.sama import sama
from warpjax.meta_gradients.trajectory import Contribution, along_trajectory, zeros
from warpjax.meta_gradients.truncated_unroll import truncated_unroll
from warpjax.meta_gradients.unrolled import unrolled
from warpjax.meta_gradients.warm_implicit import warm_implicit
from warpjax.meta_gradients.warp import warp
from warpjax.types import CarriedMetaGrad, MetaGradFn

__all__ = [
  "CarriedMetaGrad",
  "Contribution",
  "MetaGradFn",
  "along_trajectory",
  "annealed_step_weights",
  "blockwise",
  "evolution_strategies",
  "forward_gradient",
  "implicit",
  "implicit_released",
  "leap",
  "one_step",
  "own_parameters",
  "penalty",
  "reptile",
  "sama",
  "truncated_unroll",
  "unrolled",
  "warm_implicit",
  "warp",
  "zeros",
]

redrawn = own_parameters  # the name that it had before
