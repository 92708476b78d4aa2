"""The demo: four methods on MAML's sine waves (10 shots), sized for seconds; `make demo` runs all and draws them.

Task: y = A sin(x - phase), A in [0.1, 5], phase in [0, pi], x in [-5, 5] (Finn, Abbeel, Levine 2017, arXiv
1703.03400, 5.1); the mean squared error after 10 steps on 600 new waves. Published: figures only.
Command: python -m experiments.demo --workdir=runs/demo

The numbers of steps, tasks and step sizes are ours.
"""

COMMON = {
  "seed": 0,
  "num_meta_steps": 5_000,
  "tasks_per_step": 25,
  "checkpoint_every": 5_000,
  "steps_per_dispatch": 250,
  "task_chunk": 0,
  "data": {"name": "sinusoid", "variant": "maml", "shots": 10, "queries": 100, "train_shots": 0, "train_queries": 10},
  "network": {"name": "mlp", "features": (40, 40), "adapts": "all"},
  "inner": {"rule": "sgd", "learning_rate": 0.01, "num_steps": 5},
  "meta_gradient": {"name": "unrolled"},
  "optimizer": {"name": "adam", "learning_rate": 2e-3, "schedule": "cosine"},
  "eval": {"num_tasks": 600, "num_steps": 10},
}

METHODS = {
  # Without the clip the loss jumps now and then, and rounding decides when: the error depends on the machine.
  "maml": {"optimizer": {"clip_norm": 1.0}},
  "meta_sgd": {
    "inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.02), "num_steps": 5},
    # Step sizes start near 0.01, and Adam's usual rate would carry them past stability in a few meta-steps.
    "optimizer": {"clip_norm": 10.0, "rule_learning_rate": 3e-5},
  },
  "reptile": {
    "data": {"train_shots": 50},
    "inner": {"rule": "sgd", "learning_rate": 0.02, "num_steps": 10, "batch": "epochs", "batch_size": 10},
    "meta_gradient": {"name": "reptile"},
    "optimizer": {"name": "sgd", "learning_rate": 1.0, "schedule": "linear"},
  },
  "imaml": {
    # At the start the curvature of the inner loss is down to -12 in some direction; a smaller prox leaves no minimum.
    # With more meta-steps at this outer step size it diverges, so that it has a fifth of the tasks of the others.
    "num_meta_steps": 2_500,
    "checkpoint_every": 2_500,
    "tasks_per_step": 10,
    "inner": {"rule": "sgd", "learning_rate": 0.002, "momentum": 0.75, "num_steps": 20, "prox": 10.0},
    "meta_gradient": {"name": "implicit", "operator": "paper", "solver_steps": 8},
    "optimizer": {"clip_norm": 10.0},
  },
}

ALSO_PUBLISHED = dict.fromkeys(("maml", "meta_sgd", "reptile"), {"figure": "a figure"})
