"""Benchmarks of meta-gradients: how exact they are (accuracy), and what they cost (memory, scaling, speed, peers).

Command: python -m experiments.benchmark --config=configs/benchmark.py:accuracy --workdir=runs/benchmark/accuracy
A few of them: add --only=mixed,implicit_cg_20

accuracy: Each estimator against the exact meta-gradient, by the gradients and Hessian-vector products it evaluates:
  linear_regression, ill-conditioned, as in figure 2a of iMAML (Rajeswaran et al. 2019, arXiv 1909.04630), whose sizes
  are not public: the exact answer is that of the solved proximal problem; quadratic, whose exact answer is that of as
  many steps of descent; network, with warp-layers, against a long unroll in double precision.
memory: Temporaries of one task's meta-gradient, as XLA plans them, and the peak of a process, by inner steps.
scaling: A meta-step by tasks, inner steps, parameters and devices; on CPU, to have 8 of them: --cpu_devices=8.
speed: Meta-steps per second of each method, for 5 ways, 1 shot and 5 inner steps, and for one change at a time of ways,
  shots, inner steps, chunk and dtype.
peers: The same meta-step by warpjax, by PyTorch written by hand, torch.func, higher and torchopt (`pip install -e
  ".[peers]"`), by plain reverse mode and by flax convolutions under vmap, a process each, in turns; the ratios are of
  medians, with bootstrap intervals over the rounds.

iMAML's figure, on one core:

Relative error of the meta-gradient of the initial parameters after 256 inner steps (`:accuracy`), on the
ill-conditioned regression and on the network, whose inner problem 256 steps do not solve (its reference is 400 steps in
double precision):

| estimator | gradients, Hessian-vector products | regression | network |
|---|---|---|---|
| `mixed` (`reverse`: twice the products) | 513, 256 | 3.1e-5 | 0.070 |
| `implicit_cg_20` | 278, 21 | 1.4e-3 | 0.014 |
| `implicit_cg_5` | 263, 6 | 0.24 | 0.087 |
| `implicit_cg_2` | 260, 3 | 0.60 | 0.38 |
| `truncate_4` | 261, 4 | 1.5 | 0.60 |
| `first_order` | 257, 0 | 2.9 | 1.6 |
| `implicit_nystrom_20` | 279, 22 | 2.2 | 1.2 |
| `forward_8` | 2056, 2048 | 2.6 | 11.0 |
| `es_16` | 8192, 0 | 1.7 | 8.4 |

Temporaries of one task's meta-gradient, MiB, by inner steps (`:memory --config.peak_steps="()"`):

| estimator | 1 | 4 | 16 | 64 | 256 |
|---|---|---|---|---|---|
| `reverse_save_all` | 19.4 | 72.8 | 236 | 886 | 3,488 |
| `mixed_save_gradients` | 19.3 | 16.6 | 21.7 | 42.2 | 124 |
| `implicit` (5 CG steps) | 15.6 | 15.6 | 15.6 | 15.6 | 15.6 |
| `first_order` | 7.5 | 7.4 | 7.4 | 7.4 | 7.4 |

Seconds of a meta-step of 8 tasks, by inner steps (`:scaling --config.axes.tasks="()" --config.axes.width="()"
--config.axes.devices="()"`, an EPYC with AVX-512):

| method | 1 | 4 | 16 | 64 |
|---|---|---|---|---|
| `maml` (mixed mode) | 0.033 | 0.060 | 0.136 | 0.393 |
| `imaml` (5 CG steps) | 0.052 | 0.070 | 0.084 | 0.149 |
| `fomaml` | 0.029 | 0.033 | 0.059 | 0.127 |
| `reptile` | 0.013 | 0.017 | 0.039 | 0.117 |
"""

UNROLLED = {
  "mixed": {"name": "unrolled"},
  "reverse": {"name": "unrolled", "derivative": "reverse"},
  "first_order": {"name": "unrolled", "derivative": "first_order"},
}
ESTIMATORS = {
  **UNROLLED,
  "truncate_1": {"name": "unrolled", "truncate": 1},
  "truncate_4": {"name": "unrolled", "truncate": 4},
  "implicit_cg_2": {"name": "implicit", "solver_steps": 2},
  "implicit_cg_5": {"name": "implicit", "solver_steps": 5},
  "implicit_cg_20": {"name": "implicit", "solver_steps": 20},
  # The operator is I + H / prox: `step_size` has to be below 2 / (1 + curvature / prox).
  "implicit_neumann_5": {"name": "implicit", "solver": "neumann", "solver_steps": 5, "step_size": 0.015},
  "implicit_neumann_20": {"name": "implicit", "solver": "neumann", "solver_steps": 20, "step_size": 0.015},
  "implicit_released_5": {"name": "implicit", "operator": "released", "solver_steps": 5},
  "implicit_nystrom_5": {"name": "implicit", "solver": "nystrom", "solver_steps": 5},
  "implicit_nystrom_20": {"name": "implicit", "solver": "nystrom", "solver_steps": 20},
  "one_step": {"name": "one_step"},
  "reptile": {"name": "reptile"},
  "leap": {"name": "leap"},
  "warp": {"name": "warp", "initial": "leap"},
  "warp_first_order": {"name": "warp", "initial": "leap", "objective": "first_order"},
  "warp_maml": {"name": "warp", "initial": "maml"},
  "forward_8": {"name": "forward_gradient", "num_directions": 8, "distribution": "rademacher"},
  "es_16": {"name": "evolution_strategies", "num_pairs": 16},
  "pes_16": {"name": "evolution_strategies", "num_pairs": 16, "window": 4},
}
MEMORY = {
  "reverse_save_all": {"name": "unrolled", "derivative": "reverse", "memory": "save_all"},
  "reverse_recompute": {"name": "unrolled", "derivative": "reverse", "memory": "recompute"},
  "mixed_save_all": {"name": "unrolled", "memory": "save_all"},
  "mixed_save_gradients": {"name": "unrolled", "memory": "save_gradients"},
  "mixed_recompute": {"name": "unrolled", "memory": "recompute"},
  "first_order": UNROLLED["first_order"],
  "implicit": ESTIMATORS["implicit_cg_5"],
  "one_step": ESTIMATORS["one_step"],
  "forward": {"name": "forward_gradient"},
}
SGD = {"rule": "sgd", "learning_rate": 0.1}
LEARNERS = {
  "maml": {"inner": SGD, "meta_gradient": UNROLLED["mixed"]},
  "maml_reverse": {"inner": SGD, "meta_gradient": UNROLLED["reverse"]},
  "fomaml": {"inner": SGD, "meta_gradient": UNROLLED["first_order"]},
  "meta_sgd": {"inner": {"rule": "meta_sgd"}, "meta_gradient": UNROLLED["mixed"]},
  "reptile": {"inner": {"rule": "adam", "learning_rate": 1e-3, "b1": 0.0}, "meta_gradient": {"name": "reptile"}},
  "imaml": {"inner": {**SGD, "prox": 2.0}, "meta_gradient": ESTIMATORS["implicit_cg_5"]},
}

METHODS = {
  "accuracy": {
    "problems": {
      "linear_regression": {"num_tasks": 10, "dim": 50, "condition_number": 100.0, "prox": 0.01, "dtype": "float64"},
      "quadratic": {"num_tasks": 10, "dim": 20, "condition_number": 10.0, "dtype": "float64"},
      "network": {"num_tasks": 4, "features": 16, "prox": 1.0, "reference_steps": 400, "dtype": "float32"},
    },
    "estimators": ESTIMATORS,
    "inner_steps": (1, 4, 16, 64, 256),
  },
  "memory": {
    "setting": {"problem": "images", "ways": 5, "shots": 5, "queries": 5, "width": 64},
    "inner": {**SGD, "prox": 1.0},
    "estimators": MEMORY,
    "inner_steps": (1, 4, 16, 64, 256),
    "peak_steps": (1, 4, 16, 64, 256),
  },
  "scaling": {
    "setting": {"problem": "images", "tasks": 8, "inner_steps": 5, "width": 32},
    "methods": {name: LEARNERS[name] for name in ("maml", "fomaml", "reptile", "imaml")},
    "axes": {
      "tasks": (1, 2, 4, 8, 16, 32),
      "inner_steps": (1, 4, 16, 64),
      "width": (8, 16, 32, 64),
      "devices": (1, 2, 4, 8),
    },
    "repeats": 5,
  },
  "speed": {
    "setting": {"problem": "images", "tasks": 32, "inner_steps": 5, "width": 64},
    "methods": LEARNERS,
    "axes": {
      "ways": (20,),
      "shots": (5,),
      "inner_steps": (1,),
      "task_chunk": (1, 8),
      "dtype": ("bfloat16",),
    },
    "repeats": 5,
  },
  "peers": {"names": ("omniglot_5", "omniglot_1", "sine", "long", "flax", "flax_32"), "rounds": 15, "small": False},
}
