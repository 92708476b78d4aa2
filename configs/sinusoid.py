"""Sine regression, 5 shots: y = A sin(w x + b), A in [0.1, 5], w in [0.8, 1.2], b in [0, pi], x in [-5, 5].

Paper: Li, Zhou, Chen, Li 2017, "Meta-SGD", arXiv 1707.09835, section 4.1: MLP 1-40-40-1, one inner step, 4 tasks a
meta-step, 60,000 meta-steps; MAML's step size is 0.01. The paper does not give the outer learning rate, nor how many
tasks and query points it tests on: here Adam at 1e-3, 600 tasks, and 100 points at test, as many as shots in training.

Command: python -m experiments.train --config=configs/sinusoid.py:meta_sgd --workdir=runs/sinusoid/meta_sgd
Compare: python -m experiments.plot --workdirs=runs/sinusoid/maml,runs/sinusoid/meta_sgd
--output=runs/sinusoid/comparison.png
The same models with 20 shots at test: python -m experiments.evaluate --workdir=runs/sinusoid/maml --set=data.shots=20
--name=20_shots (published: 0.71 of MAML, 0.50 of Meta-SGD)

MAML's own sines (arXiv 1703.03400, 5.1: w = 1, 10 shots, 25 tasks a meta-step, published as figures only): add
--config.data.variant=maml --config.data.shots=10 --config.data.train_queries=10 --config.tasks_per_step=25
--config.num_meta_steps=70000.
reptile_demo: Reptile's released demo: w = 1, b in [0, 2 pi], tanh, inner SGD at 0.02, an epoch over a grid of 50 points
  in batches of 10, outer step 0.1 annealed to 0, 30,000 meta-steps of one task, 32 steps on 10 points at test, error
  over the grid. Its biases start as PyTorch's (`MLP.bias_init`), not from zero.
reptile, reptile_serial: The demo's settings on the tasks here.
cavia: Zintgraf et al. 2019, arXiv 1810.03642, and its released code, on the tasks here.
leap, imaml: Their papers have no sine experiment, so the settings are ours. imaml, imaml_nystrom and one_step take 20
  steps in training and 16 in the test. The settings are ours, too, for `learned`, one meta-learned step size for all
  parameters, for alfa (Baik et al. 2020, arXiv 2011.00209) and for the newer estimators: imaml_nystrom (Hataya and
  Yamada 2023, arXiv 2302.09726), one_step (Bolte, Pauwels, Vaiter 2023, arXiv 2305.13768), forward_gradient (Baydin et
  al. 2022, arXiv 2202.08587), pes (Vicol et al. 2021, arXiv 2112.13835), bootstrapped (Flennerhag et al. 2022, arXiv
  2109.04504).
warp_reptile, warp_leap_online, warp_leap_offline: Run these with --on_nonfinite=skip: the inner steps of a few tasks
  overflow, and their meta-steps are skipped. Linear warp-layers do not bound a step and diverge. The warps of rows with
  several inner steps therefore have a tanh and a residual connection.
"""

PAPER = "Li et al. 2017, arXiv 1707.09835, sine regression, trained and tested with 5 shots"

COMMON = {
  "seed": 0,
  "num_meta_steps": 60_000,
  "tasks_per_step": 4,
  "checkpoint_every": 5_000,
  "steps_per_dispatch": 500,
  "task_chunk": 0,
  "data": {"name": "sinusoid", "variant": "meta_sgd", "shots": 5, "queries": 100, "train_shots": 0, "train_queries": 5},
  "network": {"name": "maml_sinusoid", "features": (40, 40), "adapts": "all"},
  "inner": {"rule": "sgd", "learning_rate": 0.01, "num_steps": 1},
  "meta_gradient": {"name": "unrolled"},
  "optimizer": {"name": "adam", "learning_rate": 1e-3},
  "eval": {"num_tasks": 600, "num_steps": 1},
}

REPTILE = {
  "network": {"name": "reptile_sinusoid", "features": (64, 64), "adapts": "all"},
  "data": {"train_shots": 50},
  "inner": {"learning_rate": 0.02, "num_steps": 5, "batch": "epochs", "batch_size": 10},
  "meta_gradient": {"name": "reptile", "carry_optimizer": False},
  "optimizer": {"name": "sgd", "learning_rate": 0.1, "schedule": "linear"},
  "eval": {"num_steps": 32, "batch_size": 5},
}

PROXIMAL = {"learning_rate": 0.002, "momentum": 0.75, "num_steps": 20, "prox": 10.0}
IMPLICIT = {"name": "implicit", "operator": "paper", "solver_steps": 8}

# The warp-layers start as the identity, so that a warped learner starts at the same point as a plain one.
WARPED = {
  "name": "maml_sinusoid",
  "features": (40, 40),
  "adapts": "all",
  "warp": {"kind": "linear", "identity_init": True},
}

BOUNDED = {**WARPED, "warp": {**WARPED["warp"], "activation": "tanh", "residual": True}}

# The whole released demo: its waves, 50 grid points to train on, 10 random points in the test, one task a meta-step.
DEMO = {
  **REPTILE,
  "num_meta_steps": 30_000,
  "tasks_per_step": 1,
  "data": {"variant": "reptile", "shots": 10, "queries": 50, "train_shots": 0, "train_queries": 50, "train_grid": True},
  "eval": {"num_steps": 32, "batch_size": 10},
}

METHODS = {
  "maml": {"published": {"number": 1.13, "interval": 0.18, "source": PAPER}},
  "fomaml": {"meta_gradient": {"name": "unrolled", "derivative": "first_order"}},
  "anil": {"network": {"adapts": "head"}},
  "meta_sgd": {
    "inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.1), "num_steps": 1},
    "published": {"number": 0.90, "interval": 0.16, "source": PAPER},
  },
  "learned": {"inner": {"rule": "learned", "learning_rate": 0.01, "num_steps": 1}},
  "alfa": {
    "inner": {"rule": "alfa", "learning_rate": 0.01, "own_steps": 5, "num_steps": 5},
    "optimizer": {"rule_learning_rate": 1e-4},
    "eval": {"num_steps": 5},
  },
  "cavia": {
    "network": {"name": "cavia_sinusoid", "features": (40, 40), "size": 5},
    "inner": {"learning_rate": 1.0},
    "meta_gradient": {"redrawn": "context"},
  },
  "reptile": REPTILE,
  "reptile_serial": {**REPTILE, "tasks_per_step": 1},
  "reptile_demo": DEMO,
  "leap": {
    "inner": {"learning_rate": 0.01, "num_steps": 10},
    "meta_gradient": {"name": "leap"},
    "eval": {"num_steps": 10},
  },
  "imaml": {"inner": PROXIMAL, "meta_gradient": IMPLICIT, "eval": {"num_steps": 16}},
  "imaml_hf": {
    "inner": {"rule": "newton_cg", "num_steps": 3, "prox": 10.0},
    "meta_gradient": IMPLICIT,
    "eval": {"num_steps": 3},
  },
  "imaml_nystrom": {
    "inner": PROXIMAL,
    "meta_gradient": {"name": "implicit", "solver": "nystrom", "solver_steps": 8},
    "eval": {"num_steps": 16},
  },
  "one_step": {"inner": PROXIMAL, "meta_gradient": {"name": "one_step"}, "eval": {"num_steps": 16}},
  "bootstrapped": {"meta_gradient": {"name": "bootstrapped", "target_rate": 0.01, "target_steps": 5}},
  "forward_gradient": {
    "meta_gradient": {"name": "forward_gradient", "num_directions": 16, "distribution": "rademacher"}
  },
  "pes": {
    "inner": {"num_steps": 4},
    "meta_gradient": {"name": "evolution_strategies", "std": 0.01, "num_pairs": 16, "window": 2},
    "eval": {"num_steps": 4},
  },
  "t_net": {"network": WARPED},
  "warp_maml": {
    "network": BOUNDED,
    "inner": {"num_steps": 5},
    "meta_gradient": {"name": "warp", "initial": "maml", "objective": "full"},
    "eval": {"num_steps": 5},
  },
  "warp_meta_sgd": {
    "network": WARPED,
    "inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.1), "num_steps": 1},
    "meta_gradient": {"name": "warp", "initial": "maml", "objective": "full"},
  },
  "_ten_steps": {"network": BOUNDED, "inner": {"num_steps": 10}, "eval": {"num_steps": 10}},
  "warp_leap_online": {
    "base": "_ten_steps",
    "meta_gradient": {"name": "warp", "initial": "leap", "objective": "full"},
  },
  "warp_reptile": {
    "base": "_ten_steps",
    "meta_gradient": {"name": "warp", "initial": "reptile", "objective": "full"},
  },
  "warp_leap_offline": {
    "base": "_ten_steps",
    "meta_gradient": {"name": "warp_offline", "initial": "leap", "objective": "full", "eta": 4},
  },
}

ALSO_PUBLISHED = {"reptile_demo": {"figure": "a figure"}}
