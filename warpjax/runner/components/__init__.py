"""Settings that compose more than one function of the library, by kind."""

from warpjax.runner.components import learners, meta_gradients, optimizers, rules, warp

__all__ = ["learners", "meta_gradients", "optimizers", "rules", "warp"]
