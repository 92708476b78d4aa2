"""Learning to learn by gradient descent by gradient descent: an LSTM that optimizes random 10-d quadratics.

Paper: Andrychowicz et al. 2016, arXiv 1606.04474, section 3.1: f(theta) = |W theta - y|^2, the elements of W and y
from N(0, 1), 100 steps; two layers of 20 units, a back-propagation of 20 steps, Adam. Published: figures only.
"""

from __future__ import annotations

import ml_collections

from experiments import rows

COMMON: rows.Table = {
  "seed": 0,
  "num_meta_steps": 1_500,
  "tasks_per_step": 16,
  "checkpoint_every": 200,
  "steps_per_dispatch": 20,
  "task_chunk": 0,
  "data": {"name": "quadratics", "dim": 10},
  "network": {"name": "displacement"},
  "inner": {"rule": "l2l_lstm", "units": (20, 20), "p": 5.0, "scale": 0.1, "num_steps": 100},
  "meta_gradient": {"name": "truncated_unroll", "length": 20},
  "optimizer": {"name": "rule_adam", "learning_rate": 3e-3, "updates_per_step": 5, "clip_norm": 1.0},
  "eval": {"num_tasks": 1000, "num_steps": 100},
}

METHODS: dict[str, rows.Table] = {
  "l2l_lstm": {},
}


def get_config(method: str = "l2l_lstm") -> ml_collections.ConfigDict:
  """The row of `METHODS` with that name."""
  return rows.select("l2l", COMMON, METHODS, method)
