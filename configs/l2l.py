"""Learning to learn by gradient descent by gradient descent: an LSTM that optimizes random 10-d quadratics.

Paper: Andrychowicz et al. 2016, arXiv 1606.04474, section 3.1: f(theta) = |W theta - y|^2, the elements of W and y
from N(0, 1), 100 steps; an LSTM of two layers of 20 units for every coordinate, back-propagation through 20 steps, the
sum of losses, gradients held constant, Adam. Its quadratics have no preprocessing of gradients and 128 functions a
batch; here gradients come as logarithm and sign, updates are scaled by 0.1, and there are 16 functions, Adam at 3e-3
annealed to 0, and 7,500 outer updates (five to a meta-step). Published: figures only.

Command: python -m experiments.l2l --workdir=runs/l2l
It trains `l2l_lstm` below, tunes SGD, momentum, RMSprop and Adam (17 step sizes from 1e-4 to 1, momentum 0.5, 0.9 and
0.95) on 200 functions for every setting, and compares them on 1000 others: comparison.json, comparison.png.

Measured (python -m experiments.train --config=configs/l2l.py:l2l_lstm --workdir=runs/l2l, seed 0, under 2 minutes of a
core): mean loss after 100 steps on 1000 held-out functions 0.172 +/- 0.033. The comparison: not yet run to its end.
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
