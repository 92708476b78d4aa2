"""Reptile's two studies of inner gradients: which combinations of them to follow, and what overlapping minibatches do.

Paper: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, sections 6.2 and 6.3, Omniglot, 5-way 5-shot, and its released
code: plain SGD inside and outside, one task a meta-step, minibatches of 25, Reptile's network. The paper has figures
only. Its commands test without transduction (--config.eval.norm_stats=support_plus_one), which is slower; so do the
measured rows. The released code's inner step size of 3e-3 is for a sum over the minibatch, and 0.075 for the mean.

Command: python -m experiments.train --config=configs/reptile_studies.py:sum_4 --workdir=runs/reptile_studies/sum_4
Picture: python -m experiments.plot --workdirs=runs/reptile_studies/g_1,runs/reptile_studies/sum_4
--output=runs/reptile_studies/combinations.png

Combinations (figure 3): minibatches that do not overlap, 5 training shots for each of up to four inner steps; the
outer step of 0.25, divided by k for a mean, is annealed to 0 over 40,000 meta-steps; 5 steps of 25 at test. g_k follows
the k-th gradient alone, sum_k the first k, mean_k their mean. What the figure shows: g_1 is worst, all improve with k,
and sums of all gradients improve most.

Overlap (figure 4): first-order MAML whose last minibatch is drawn from the same shots as the others (shared_tail), or
from other shots (separate_tail), and Reptile: 20 training shots, the outer step of 1.0 annealed to 0. With 4
inner steps of 25 no two minibatches overlap; with 10 (_overlapping) they do, and shared_tail falls behind.

_cpu: An eighth of the meta-steps.
"""

STEP_SIZE = 0.075

COMMON = {
  "seed": 0,
  "num_meta_steps": 40_000,
  "tasks_per_step": 1,
  "checkpoint_every": 2_000,
  "steps_per_dispatch": 100,
  "task_chunk": 0,
  "data": {
    "name": "omniglot",
    "ways": 5,
    "shots": 5,
    "queries": 1,
    "train_shots": 20,
    "train_queries": 0,
    "train_query": "support",
    "split": "random_characters",
    "split_seed": 0,
    "rotations": "as_classes",
    "test_rotations": "none",
    "invert": False,
  },
  "network": {"name": "reptile_omniglot", "width": 64, "adapts": "all"},
  "inner": {"rule": "sgd", "learning_rate": STEP_SIZE, "num_steps": 4, "batch": "epochs", "batch_size": 25},
  "meta_gradient": {"name": "reptile"},
  "optimizer": {"name": "sgd", "learning_rate": 1.0, "schedule": "linear"},
  "eval": {"num_tasks": 1000, "num_steps": 5, "batch_size": 25},
}

# The gradient at the query set is not multiplied with the inner learning rate, as a step is.
_SEPARATE = {
  "data": {"train_shots": 15, "train_queries": 5, "train_query": "held_out"},
  "inner": {"num_steps": 3},
  "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
  "optimizer": {"learning_rate": STEP_SIZE},
}

METHODS = {
  "_1_step": {"data": {"train_shots": 5}, "inner": {"num_steps": 1}, "optimizer": {"learning_rate": 0.25}},
  "_2_steps": {"data": {"train_shots": 10}, "inner": {"num_steps": 2}, "optimizer": {"learning_rate": 0.25}},
  "_3_steps": {"data": {"train_shots": 15}, "inner": {"num_steps": 3}, "optimizer": {"learning_rate": 0.25}},
  "_4_steps": {"data": {"train_shots": 20}, "inner": {"num_steps": 4}, "optimizer": {"learning_rate": 0.25}},
  "g_1": {"base": "_1_step", "meta_gradient": {"name": "reptile", "step_weights": (1.0,)}},
  "g_2": {"base": "_2_steps", "meta_gradient": {"name": "reptile", "step_weights": (0.0, 1.0)}},
  "g_3": {"base": "_3_steps", "meta_gradient": {"name": "reptile", "step_weights": (0.0, 0.0, 1.0)}},
  "g_4": {"base": "_4_steps", "meta_gradient": {"name": "reptile", "step_weights": (0.0, 0.0, 0.0, 1.0)}},
  "sum_2": {"base": "_2_steps", "meta_gradient": {"name": "reptile", "step_weights": (1.0, 1.0)}},
  "sum_3": {"base": "_3_steps", "meta_gradient": {"name": "reptile", "step_weights": (1.0, 1.0, 1.0)}},
  "sum_4": {"base": "_4_steps", "meta_gradient": {"name": "reptile", "step_weights": (1.0, 1.0, 1.0, 1.0)}},
  "mean_2": {"base": "sum_2", "optimizer": {"learning_rate": 0.25 / 2}},
  "mean_3": {"base": "sum_3", "optimizer": {"learning_rate": 0.25 / 3}},
  "mean_4": {"base": "sum_4", "optimizer": {"learning_rate": 0.25 / 4}},
  "shared_tail": {"meta_gradient": {"name": "reptile", "step_weights": (0.0, 0.0, 0.0, 1.0)}},
  "separate_tail": _SEPARATE,
  "reptile": {},
  "shared_tail_overlapping": {
    "inner": {"num_steps": 10},
    "meta_gradient": {"name": "reptile", "step_weights": (0.0,) * 9 + (1.0,)},
  },
  "separate_tail_overlapping": {**_SEPARATE, "inner": {"num_steps": 9}},
  "reptile_overlapping": {"inner": {"num_steps": 10}},
}
VARIANTS = {"_cpu": {"num_meta_steps": 5_000}}

ALSO_PUBLISHED = dict.fromkeys(METHODS, {"figure": "a figure"})
