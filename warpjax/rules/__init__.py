"""Update rules: how parameters adapt. Each is `UpdateRule(init, transform)`; they compose by `chain` and `masked`."""

from warpjax.rules.adaptive import adagrad, adam, adamw, amsgrad, nadam, rmsprop
from warpjax.rules.alfa import alfa
from warpjax.rules.combinators import chain, freeze, masked
from warpjax.rules.export import as_optax
from warpjax.rules.kronecker import kronecker
from warpjax.rules.l2l_lstm import l2l_lstm
from warpjax.rules.learned import learned
from warpjax.rules.meta_lstm import meta_lstm
from warpjax.rules.meta_sgd import meta_sgd
from warpjax.rules.newton_cg import newton_cg
from warpjax.rules.per_step_sgd import per_step_sgd
from warpjax.rules.per_step_values import per_step_values
from warpjax.rules.preconditioned import preconditioned
from warpjax.rules.stateless import clip_by_global_norm, from_optax, sgd
from warpjax.types import UpdateRule

__all__ = [
  "UpdateRule",
  "adagrad",
  "adam",
  "adamw",
  "alfa",
  "amsgrad",
  "as_optax",
  "chain",
  "clip_by_global_norm",
  "freeze",
  "from_optax",
  "kronecker",
  "l2l_lstm",
  "learned",
  "masked",
  "meta_lstm",
  "meta_sgd",
  "nadam",
  "newton_cg",
  "per_step_sgd",
  "per_step_values",
  "preconditioned",
  "rmsprop",
  "sgd",
]
