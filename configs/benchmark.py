"""Benchmarks of meta-gradients: their error (accuracy), and their cost (all others).

Command: python -m experiments.benchmark --config=configs/benchmark.py:accuracy --workdir=runs/benchmark/accuracy
Add --only=mixed,implicit_cg_20 for some of the estimators.

accuracy: The error of each estimator by the number of gradients and Hessian-vector products that it evaluates, on three
  problems. linear_regression is ill-conditioned, as in figure 2a of iMAML (Rajeswaran et al. 2019, arXiv 1909.04630),
  whose sizes are not public; its exact meta-gradient is that of the solved proximal problem. For quadratic it is that
  of the same number of descent steps. network has warp-layers, and is compared with a long unroll in double precision.
memory: Temporaries of one task's meta-gradient, as XLA plans them, and the peak of a process, by inner steps.
policies: Temporaries of one task's meta-gradient over long unrolls, by memory policy, beside those predicted from
  programs of at most 64 steps, and the time of a run. On a CPU "offload" is "nested".
scaling: A meta-step by tasks, inner steps, filters and devices: time, temporaries and compile time, with the slope of
  each. On a CPU each number of devices has a process of its own.
speed: Meta-steps per second of each method, for 5 ways, 1 shot and 5 inner steps, and for one change at a time of ways,
  shots, inner steps, chunk and dtype.
peers: The same meta-step by warpjax, as in README's example and by its faster paths, and by its peers: PyTorch by hand,
  torch.func, higher and torchopt (`pip install -e ".[peers]"`), plain reverse mode, and flax convolutions under vmap.
  Each runs in a process of its own, and the processes take turns. Ratios are of medians, with bootstrap intervals over
  rounds. The cases are MAML, Leap and offline WarpGrad at the papers' sizes; --only=leap_16,leap_64 chooses some.
  --record writes this machine's record, results/benchmark/peers_CPU.json, as it does for scaling.
bilevel: Quadratics with a known solution, and data hyper-cleaning on Fashion-MNIST (configs/bilevel.py), whose
  classifier is trained afresh with what was learned. Every estimator learns `shared` at equal oracle calls, gradients
  and Hessian-vector products, on `quadratic` and `small`, which has 1000 examples and 100 inner steps. At the published
  size are `hyper_cleaning`, 20 outer steps; `released`, the released codes' labels and outer step beside larger ones;
  and `mlp`, of 300 units. --config.data_dir=FOLDER has the four idx files; --config.runs=FOLDER keeps finished runs.

profile: The time of one meta-step of MAML by layer and operation; --config.row=omniglot:reptile takes another row.
tune: The time of that meta-step by lowering of convolutions and number of vmapped tasks; `warpjax tune` finds the
  fastest for a run. With --record both write this machine's record.

The measurements are in results/benchmark and RESULTS.md.
"""

from configs import bilevel

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
  "bootstrapped_4": {"name": "bootstrapped", "target_rate": 0.1, "target_steps": 4},
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
POLICIES = {
  "save_gradients": {"name": "unrolled", "memory": "save_gradients"},
  "nested": {"name": "unrolled", "memory": "nested"},
  "treeverse": {"name": "unrolled", "memory": "treeverse"},
  "offload": {"name": "unrolled", "memory": "offload"},
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

# The operator of the linear system is I + H / RIDGE: this is a step of 0.1 by H, the inner loop's own.
DESCENT = 0.1 * bilevel.RIDGE
# Settings of estimators that have no row in configs/bilevel.py.
BILEVEL = {
  **bilevel.ESTIMATORS,
  "truncated_20": {"meta_gradient": {"name": "unrolled", "truncate": 20}},
  "truncated_unroll": {"meta_gradient": {"name": "truncated_unroll", "length": 25, "derivative": "mixed"}},
  "implicit_neumann": {
    "inner": bilevel.PROXIMAL,
    "meta_gradient": {"name": "implicit", "solver": "neumann", "solver_steps": 10, "step_size": DESCENT},
  },
  "warm_implicit_carried": {
    "inner": {**bilevel.PROXIMAL, "num_steps": 5},
    "meta_gradient": {"name": "warm_implicit", "solver": "identity", "step_size": DESCENT, "carry_params": True},
  },
  "reptile": {"meta_gradient": {"name": "reptile"}},
  "leap": {"meta_gradient": {"name": "leap"}},
}
CLEANING = {
  "data": {**bilevel.COMMON["data"], "always_changed": True},
  "network": bilevel.COMMON["network"],
  "inner": bilevel.COMMON["inner"],
}
PUBLISHED = (
  *("unrolled", "truncated", "implicit", "implicit_nystrom", "t1_t2", "penalty", "v_pbgd", "one_step"),
  *("first_order", "forward_gradient", "evolution_strategies"),
)
ONE_SEED = {"seeds": (0,), "steps": 20, "budget": 31_000, "estimators": ("unrolled", "implicit", "penalty")}
BILEVEL_PROBLEMS = {
  "quadratic": {
    "data": {"name": "bilevel_quadratic"},
    "network": {"name": "bilevel_variables"},
    "inner": {"rule": "sgd", "learning_rate": 1.0, "num_steps": 50, **bilevel.PROXIMAL},
    "outer": {"rates": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)},  # those that move at each inner step need small ones
  },
  "small": {
    **CLEANING,
    "data": {**CLEANING["data"], "train": 1000, "val": 1000},
    "inner": {**CLEANING["inner"], "num_steps": 100},
  },
  "hyper_cleaning": {**CLEANING, "outer": {"steps": 20, "estimators": PUBLISHED}},
  "released": {
    **CLEANING,
    "data": {**CLEANING["data"], "always_changed": False},
    "outer": {**ONE_SEED, "optimizer": "sgd", "rates": (1e-3, 1e3, 1e4), "every_rate": True},
  },
  "mlp": {
    **CLEANING,
    "network": {**CLEANING["network"], **bilevel.MLP["network"]},
    "inner": {**CLEANING["inner"], **bilevel.MLP["inner"]},
    "outer": {**ONE_SEED, "rates": (1.0,)},
  },
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
    "inner_loop": {**SGD, "prox": 1.0},
    "estimators": MEMORY,
    "inner_steps": (1, 4, 16, 64, 256),
    "peak_steps": (1, 4, 16, 64, 256),
  },
  "policies": {
    "setting": {"problem": "images", "ways": 5, "shots": 5, "queries": 5, "width": 64},
    "inner_loop": SGD,
    "policies": POLICIES,
    "inner_steps": (256, 1024, 4096),
    "timed_steps": (1024,),
    "rounds": 3,
  },
  "scaling": {
    "setting": {"problem": "images", "tasks": 8, "inner_steps": 5, "width": 16, "queries": 1},
    "methods": {name: LEARNERS[name] for name in ("maml", "fomaml", "reptile", "imaml")},
    "axes": {
      "tasks": (1, 4, 16, 32, 64, 256, 1024, 4096),
      "inner_steps": (1, 4, 16, 64, 256, 1024),
      "width": (16, 32, 64, 128, 256),
      "devices": (1, 2, 4, 8),
    },
    "repeats": 5,
    "seconds": 2.0,
  },
  "speed": {
    "setting": {"problem": "images", "tasks": 32, "inner_steps": 5, "width": 64},
    "methods": LEARNERS,
    "axes": {"ways": (20,), "shots": (5,), "inner_steps": (1,), "task_chunk": (1, 8), "dtype": ("bfloat16",)},
    "repeats": 5,
  },
  "profile": {"row": "omniglot:maml", "settings": ("data.train_queries=15",)},
  "tune": {"row": "omniglot:maml_cpu", "settings": ()},
  "bilevel": {
    "problems": BILEVEL_PROBLEMS,
    "estimators": BILEVEL,
    "cases": ("quadratic", "small", "hyper_cleaning"),
    "budget": {"quadratic": 6_000, "small": 3_000, "hyper_cleaning": 31_000},
    "rates": (0.1, 0.3, 1.0, 3.0),
    "seeds": (0, 1, 2),
    "data_dir": "",
    "runs": "",
  },
  "peers": {
    "names": (
      *("omniglot_5", "omniglot_1", "mini_5", "mini_1", "leap_16", "leap_64"),
      *("warp_first_order_16", "warp_full_16", "warp_first_order_64", "warp_full_64", "warp_maml"),
      *("sine", "long", "flax", "flax_32"),
    ),
    "rounds": 7,
    "small": False,
  },
}
