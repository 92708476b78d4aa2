"""Update rules: how parameters adapt. Each is `UpdateRule(init, transform)`; they compose by `chain` and `masked`."""

from warpjax.rules.combinators import chain, freeze, masked
from warpjax.rules.meta_sgd import meta_sgd
from warpjax.rules.newton_cg import newton_cg
from warpjax.rules.preconditioned import preconditioned
from warpjax.rules.stateless import adam, from_optax, sgd
from warpjax.types import UpdateRule

__all__ = [
  "UpdateRule",
  "adam",
  "chain",
  "freeze",
  "from_optax",
  "masked",
  "meta_sgd",
  "newton_cg",
  "preconditioned",
  "sgd",
]
