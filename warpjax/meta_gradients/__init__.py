"""Meta-gradient estimators: `(meta_params, task, key) -> ((loss, aux), MetaParams)`, as `jax.value_and_grad` has it."""

from warpjax.meta_gradients.blockwise import blockwise
from warpjax.meta_gradients.bootstrapped import (
  Match,
  bootstrapped,
  match_parameters,
  match_predictions,
  match_probabilities,
)
from warpjax.meta_gradients.evolution_strategies import evolution_strategies
from warpjax.meta_gradients.forward_gradient import forward_gradient
from warpjax.meta_gradients.from_start import Start, from_start
from warpjax.meta_gradients.implicit import implicit, implicit_released
from warpjax.meta_gradients.leap import leap
from warpjax.meta_gradients.one_step import one_step
from warpjax.meta_gradients.own_parameters import drawn, own_parameters
from warpjax.meta_gradients.path_loss import annealed_step_weights
from warpjax.meta_gradients.penalty import penalty
from warpjax.meta_gradients.prototypes import prototypes
from warpjax.meta_gradients.reptile import reptile
from warpjax.meta_gradients.sama import sama
from warpjax.meta_gradients.soba import soba
from warpjax.meta_gradients.trajectory import Contribution, along_trajectory, zeros
from warpjax.meta_gradients.truncated_unroll import truncated_unroll
from warpjax.meta_gradients.unrolled import unrolled
from warpjax.meta_gradients.warm_implicit import warm_implicit
from warpjax.meta_gradients.warp import warp
from warpjax.types import CarriedMetaGrad, MetaGradFn

__all__ = [
  "CarriedMetaGrad",
  "Contribution",
  "Match",
  "MetaGradFn",
  "Start",
  "along_trajectory",
  "annealed_step_weights",
  "blockwise",
  "bootstrapped",
  "drawn",
  "evolution_strategies",
  "forward_gradient",
  "from_start",
  "implicit",
  "implicit_released",
  "leap",
  "match_parameters",
  "match_predictions",
  "match_probabilities",
  "one_step",
  "own_parameters",
  "penalty",
  "prototypes",
  "reptile",
  "sama",
  "soba",
  "truncated_unroll",
  "unrolled",
  "warm_implicit",
  "warp",
  "zeros",
]

redrawn = own_parameters  # its former name
