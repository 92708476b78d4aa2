"""Bilevel problems that are not few-shot: one task, whose training set is the support and validation set the query.

hyper_cleaning: Franceschi et al. 2017, arXiv 1703.01785, as coded by Shen and Chen 2023, arXiv 2302.05185: 5000
  training, 5000 validation and 10,000 test images of Fashion-MNIST, half of the training labels replaced, a weight
  sigmoid(x_i) for each training example, a linear classifier, 500 steps of SGD at 0.1. What is measured is the accuracy
  on test images of a classifier trained afresh with the learned weights, at the end of its training, and the F1 of
  sign(x_i) against the replaced labels. A replaced label is always another class, and the outer step is Adam's, tuned
  on the validation loss. The proximal term of the implicit rows stands for the ridge that makes the inner problem
  strongly convex.
*_released: the protocol of the released codes: a replaced label may be the true one, and there are 100 outer steps of
  SGD at 1e-3. A weight moves by less than 1e-6 a step, so that only its sign says anything.
*_mlp: 300 sigmoid units, SGD at 0.4.
learning_rate_*: MNIST-1D (Greydanus and Kobak 2024, arXiv 2011.14439, its notebook 7): the step size of 200 SGD steps
  of an MLP of 50 tanh units on batches of 50, from 1.5 and from 0.15. The meta-loss is the mean of the losses before
  each step. The notebook learns the step size by SGD at 0.3. Here SGD at 1.0 learns its logarithm.
activation: MNIST-1D, notebook 8: the activation of an MLP of 128 units is `elu(x) + 0.2 f(x)`, f a network whose
  parameters are learned. RMSprop at 0.01, 301 steps on batches of 100; the meta-loss is the mean of the last 200.
  As there, every outer step has the same start, since the notebook seeds its generator again in the inner loop. Here f
  has 8 units, there 100; the outer step is Adam's, there SGD's, both on clipped gradients; no noise is added to units.

Command: python -m experiments.train --config=configs/bilevel.py:implicit --workdir=runs/bilevel/implicit
--data_dir=FOLDER (the four idx files of Fashion-MNIST, or a tensorflow-datasets root)
All estimators at equal oracle calls: python -m experiments.benchmark --config=configs/benchmark.py:bilevel
"""

COMMON = {
  "seed": 0,
  "num_meta_steps": 20,
  "tasks_per_step": 1,
  "checkpoint_every": 5,
  "steps_per_dispatch": 1,
  "task_chunk": 1,
  "data": {"name": "hyper_cleaning", "train": 5000, "val": 5000, "test": 10000, "corrupted": 0.5},
  "network": {"name": "example_weights", "hidden": 0},
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 500},
  "meta_gradient": {"name": "unrolled"},
  "optimizer": {"name": "one_block", "learning_rate": 1.0},
  "eval": {"num_tasks": 1, "num_steps": 500},
}

RIDGE = 1e-3
PROXIMAL = {"prox": RIDGE}
CG = {"name": "implicit", "solver": "cg", "solver_steps": 10}
PENALTY = {"name": "penalty", "weight": 10.0}
RELEASED = {
  "num_meta_steps": 100,
  "data": {"always_changed": False},
  "optimizer": {"name": "one_block", "optimizer": "sgd", "learning_rate": 1e-3},
}
MLP = {"network": {"hidden": 300}, "inner": {"learning_rate": 0.4}}
ESTIMATORS = {
  "unrolled": {"meta_gradient": {"name": "unrolled"}},
  "truncated": {"meta_gradient": {"name": "unrolled", "truncate": 100}},
  "implicit": {"inner": PROXIMAL, "meta_gradient": CG},
  "implicit_nystrom": {
    "inner": PROXIMAL,
    "meta_gradient": {"name": "implicit", "solver": "nystrom", "solver_steps": 10},
  },
  "t1_t2": {"inner": PROXIMAL, "meta_gradient": {"name": "implicit", "solver": "identity", "step_size": RIDGE}},
  "warm_implicit": {"inner": PROXIMAL, "meta_gradient": {"name": "warm_implicit", "solver": "cg", "solver_steps": 3}},
  "penalty": {"meta_gradient": PENALTY},
  "v_pbgd": {"inner": {"num_steps": 50}, "meta_gradient": {**PENALTY, "num_steps": 50, "carried": True}},
  "f2sa": {
    "inner": {"num_steps": 50},
    "meta_gradient": {"name": "penalty", "weight": 1.0, "growth": 0.5, "num_steps": 50, "carried": True},
  },
  "sama": {"meta_gradient": {"name": "sama"}},
  # One inner step a meta-step, which costs two gradients and a product.
  "soba": {"inner": {**PROXIMAL, "num_steps": 1}, "meta_gradient": {"name": "soba", "step_size": 0.1}},
  "one_step": {"meta_gradient": {"name": "one_step"}},
  "warp": {"meta_gradient": {"name": "warp", "initial": "none"}},
  "first_order": {"meta_gradient": {"name": "unrolled", "derivative": "first_order"}},
  "forward_gradient": {"meta_gradient": {"name": "forward_gradient"}},
  "evolution_strategies": {"meta_gradient": {"name": "evolution_strategies", "std": 0.1}},
}
LEARNING_RATE = {
  "num_meta_steps": 60,
  "checkpoint_every": 10,
  "steps_per_dispatch": 10,
  "data": {"name": "mnist1d", "examples": 10_000},
  "network": {"name": "reptile_sinusoid", "features": (50,)},
  "inner": {"rule": "learned", "learn_momentum": False, "num_steps": 200},
  "meta_gradient": {"name": "unrolled", "online": True},
  "optimizer": {"name": "one_block", "block": "rule", "optimizer": "sgd", "learning_rate": 1.0},
  "eval": {"num_tasks": 1, "num_steps": 200},
}
LAST = 200  # inner losses in the meta-loss
ACTIVATION = {
  "num_meta_steps": 300,
  "checkpoint_every": 10,
  "steps_per_dispatch": 10,
  "data": {"name": "mnist1d", "examples": 10_000, "batch_size": 100},
  "network": {"name": "learned_activation", "features": (128,), "hidden": 8},
  "inner": {"rule": "rmsprop", "learning_rate": 0.01, "decay": 0.4, "initial_scale": 1.0, "num_steps": 301},
  "meta_gradient": {"name": "unrolled", "online": (0.0,) * (301 - LAST) + (1 / LAST,) * LAST},
  "optimizer": {"name": "one_block", "learning_rate": 0.05, "schedule": "cosine", "clip": 0.1},
  "eval": {"num_tasks": 1, "num_steps": 301},
}
PROTOCOLS = {"released": RELEASED, "mlp": MLP}

METHODS = {
  **ESTIMATORS,
  **{f"_{name}": table for name, table in PROTOCOLS.items()},
  **{
    f"{method}_{name}": {"base": (method, f"_{name}")}
    for method in ("unrolled", "implicit", "penalty")
    for name in PROTOCOLS
  },
  "_learning_rate": LEARNING_RATE,
  "learning_rate_high": {"base": "_learning_rate", "inner": {"learning_rate": 1.5}},
  "learning_rate_low": {"base": "_learning_rate", "inner": {"learning_rate": 0.15}},
  "activation": ACTIVATION,
}
