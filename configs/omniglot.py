"""Omniglot, 5-way 1-shot, unseen characters: 1200 characters at random to train on, 423 to test on, 28x28.

Command: python -m experiments.train --config=configs/omniglot.py:maml --workdir=runs/omniglot/maml
Evaluate on more tasks: python -m experiments.evaluate --workdir=runs/omniglot/maml --num_tasks=4000
_5shot, _20way and _20way_5shot are the other tasks of the papers that are compared here, with each paper's settings.

All numbers are transductive: batch norm sees the query examples of a task together. result.json also has numbers under
other batch statistics: those of the support set (`support`), of the inner steps (`running`), and of the support set
with one query example (`support_plus_one`), as in Reptile's numbers without transduction. The last is computed for up
to 25 query examples, or if eval.norm_stats names it. Drawings are resized by Lanczos, as in iMAML's released code.
MAML's and Reptile's codes keep them black and white, since Pillow has no Lanczos for images of one bit:
--config.data.resample=nearest does the same.

maml, fomaml: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2 and its released code.
anil: Raghu et al. 2020, arXiv 1909.09157: the head alone adapts; the settings are MAML's.
meta_sgd: Li et al. 2017, arXiv 1707.09835, on MAML's network, so that the methods compare.
reptile: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, table 3. reptile_serial: one task a meta-step.
leap: Flennerhag et al. 2019, arXiv 1812.01054, has another Omniglot experiment; the step sizes here are ours.
imaml, imaml_hf: Rajeswaran et al. 2019, arXiv 1909.04630, table 2, by gradient descent and by the Hessian-free solver.
t_net: Lee and Choi 2018, arXiv 1801.05558: MAML with a linear warp (1x1 convolutions) after each block, unrolled.
warp_maml: Flennerhag et al. 2020, arXiv 1909.00025: MAML's inner loop with 3x3 warp-layers, which learn online. They
  start as the identity; those of the released multi-shot code start from random weights.
meta_lstm: Ravi and Larochelle 2017, "Optimization as a model for few-shot learning", which has no Omniglot experiment:
  the settings are those of mini-ImageNet's 1-shot tasks, on MAML's network for Omniglot.
meta_curvature: Park and Oliva 2019, arXiv 1902.03356: MAML with a Kronecker product for every tensor.
mamlpp: Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, and its released code.
alfa, cavia, proto_maml, bootstrapped: Baik et al. 2020, arXiv 2011.00209, Zintgraf et al. 2019, arXiv 1810.03642,
  Triantafillou et al. 2020, arXiv 1903.03096, Flennerhag et al. 2022, arXiv 2109.04504: the settings are ours, as no
  paper has this experiment.
What each paper states, and where the rows differ, is on its page in docs/papers.

_cpu: Sized for one CPU core: fewer and smaller meta-steps, a Xavier head, a larger annealed outer step, and the changes
  of each row. reptile_20way_5shot_cpu, imaml_20way_5shot_cpu, imaml_hf_20way_5shot_cpu and imaml_hf_5shot_cpu are
  evaluations of the 1-shot runs: python -m experiments.evaluate --workdir=runs/omniglot/reptile_20way_cpu
  --set=data.shots=5 --name=5_shots, and for iMAML also --set=data.queries=5 --num_tasks=1000
maml_minutes_cpu: MAML with the meta-steps, tasks and filters of alfa_cpu, proto_maml_cpu and bootstrapped_cpu.
maml_20way_small_cpu, warp_maml_20way_small_cpu: Equal numbers of meta-steps, over three seeds (--seeds=0,1,2). Inner
  steps have a size of 0.5, a quarter of the paper's, since MAML learns less here with larger steps.
"""

MAML = "Finn et al. 2017, arXiv 1703.03400"
ANIL = "Raghu et al. 2020, arXiv 1909.09157, table 2"
FOMAML = "Reported by Nichol et al. 2018, arXiv 1803.02999, with transduction"
MAMLPP = "Antoniou et al. 2019, arXiv 1810.09502, an ensemble of five checkpoints, as listed by Lian et al. 2020"
META_SGD = "Li et al. 2017, arXiv 1707.09835"
REPTILE = "Nichol et al. 2018, arXiv 1803.02999, with transduction"
IMAML = "Rajeswaran et al. 2019, arXiv 1909.04630, table 2"

COMMON = {
  "seed": 0,
  "num_meta_steps": 60_000,
  "tasks_per_step": 32,
  "checkpoint_every": 1_000,
  "steps_per_dispatch": 20,
  "task_chunk": 0,
  "data": {
    "name": "omniglot",
    "ways": 5,
    "shots": 1,
    "queries": 1,
    "train_shots": 0,
    "train_queries": 0,
    "split": "random_characters",
    "split_seed": 0,
    "rotations": "per_class",
    "test_rotations": "per_class",
    "invert": True,
  },
  "network": {"name": "maml_omniglot", "width": 64, "adapts": "all_but_norm"},
  "inner": {"rule": "sgd", "learning_rate": 2.0, "num_steps": 1},
  "meta_gradient": {"name": "unrolled"},
  "optimizer": {"name": "adam", "learning_rate": 1e-3},
  "eval": {"num_tasks": 4000, "num_steps": 3},
}

_REPTILE = {
  "num_meta_steps": 100_000,
  "tasks_per_step": 5,
  "data": {"train_shots": 10, "rotations": "as_classes", "test_rotations": "none", "invert": False},
  "network": {"name": "reptile_omniglot", "width": 64, "adapts": "all"},
  "inner": {
    "rule": "adam",
    "learning_rate": 1e-3,
    "b1": 0.0,
    "eps_root": 0.0,
    "num_steps": 5,
    "batch": "epochs",
    "batch_size": 10,
  },
  "meta_gradient": {"name": "reptile", "carry_optimizer": True},
  "optimizer": {"name": "sgd", "learning_rate": 1.0, "schedule": "linear"},
  "eval": {"num_steps": 50, "batch_size": 5, "optimizer_state": "trained"},
  "published": {"number": 0.9768, "interval": 0.0004, "source": REPTILE},
}

_IMAML = {
  "num_meta_steps": 20_000,
  "data": {"invert": False},
  "network": {"name": "imaml_omniglot", "width": 64, "adapts": "all"},
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 16, "prox": 2.0},
  "meta_gradient": {"name": "implicit", "operator": "paper", "solver_steps": 5},
  "optimizer": {"name": "adam", "learning_rate": 1e-3, "eps": 1e-3},
  "eval": {"num_steps": 16},
  "published": {"number": 0.9916, "interval": 0.0035, "source": IMAML},
}

METHODS = {
  "maml": {"published": {"number": 0.987, "interval": 0.004, "source": MAML}},
  "fomaml": {
    "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
    "published": {"number": 0.983, "interval": 0.005, "source": FOMAML},
  },
  "anil": {"network": {"adapts": "head"}},
  "meta_sgd": {
    "inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.1), "num_steps": 1},
    "eval": {"num_steps": 1},
    "published": {"number": 0.9953, "interval": 0.0026, "source": META_SGD},
  },
  "reptile": _REPTILE,
  "reptile_serial": {"base": "reptile", "tasks_per_step": 1, "published": None},
  "leap": {
    "network": {"name": "reptile_omniglot", "width": 64, "adapts": "all"},
    "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 5},
    "meta_gradient": {"name": "leap"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "eval": {"num_steps": 5},
  },
  "imaml": _IMAML,
  "imaml_hf": {
    **_IMAML,
    "inner": {"rule": "newton_cg", "cg_steps": 5, "damping": 5.0, "num_steps": 6, "prox": 2.0},
    "eval": {"num_steps": 6},
    "published": {"number": 0.995, "interval": 0.0026, "source": IMAML},
  },
  "t_net": {"network": {"warp": {"kind": "conv1x1", "identity_init": True}}},
  "warp_maml": {
    "network": {"warp": {"kind": "conv3x3", "identity_init": True}},
    "meta_gradient": {"name": "warp", "initial": "maml", "objective": "full"},
  },
  "meta_lstm": {
    "num_meta_steps": 75_000,
    "tasks_per_step": 1,
    "data": {"train_queries": 15},
    "network": {"width": 32},
    "inner": {"rule": "meta_lstm", "units": 20, "num_steps": 12},
    "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip_norm": 0.25},
    "eval": {"num_steps": 12},
  },
  "meta_curvature": {"inner": {"rule": "kronecker", "learning_rate": 2.0, "num_steps": 1}, "eval": {"num_steps": 1}},
  "alfa": {"inner": {"rule": "alfa", "learning_rate": 1.0, "own_steps": 5, "num_steps": 5}, "eval": {"num_steps": 5}},
  "proto_maml": {"inner": {"learning_rate": 0.4}, "meta_gradient": {"start": "prototypes"}},
  "bootstrapped": {
    "meta_gradient": {"name": "bootstrapped", "target_rate": 1.0, "target_steps": 5, "match": "probabilities"}
  },
  "cavia": {
    "network": {"name": "cavia_omniglot", "width": 64, "size": 100},
    "inner": {"learning_rate": 1.0, "num_steps": 2},
    "meta_gradient": {"redrawn": "context"},
    "eval": {"num_steps": 2},
  },
  "mamlpp": {
    "num_meta_steps": 50_000,
    "tasks_per_step": 8,
    "data": {"test_rotations": "none", "invert": False},
    "network": {"norm_scale": True, "adapts": "all"},
    "inner": {"rule": "per_step_sgd", "learning_rate": 0.1, "own_steps": 5, "per_step_norm": True, "num_steps": 5},
    "meta_gradient": {"name": "unrolled", "multi_step_epochs": 10, "steps_per_epoch": 500},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "cosine"},
    "eval": {"num_steps": 5},
    "published": {"number": 0.9947, "interval": 0.0, "source": MAMLPP},
  },
}

# Further shots and ways: what each paper changes, and its numbers.
METHODS |= {
  "_5shot": {"data": {"shots": 5, "queries": 5}},
  "_one_query": {"data": {"queries": 1}},
  "_20way": {"data": {"ways": 20}},
  # MAML's step size of 0.1 is on the sum over 20 classes: 2.0 on the mean, the same as its 0.4 is for 5.
  "_maml_20way": {"base": "_20way", "tasks_per_step": 16, "inner": {"num_steps": 5}, "eval": {"num_steps": 5}},
  "_reptile_20way": {
    "base": "_20way",
    "num_meta_steps": 200_000,
    "inner": {"learning_rate": 5e-4, "num_steps": 10, "batch_size": 20},
    "eval": {"batch_size": 10},
  },
  "_imaml_20way": {"base": "_20way", "inner": {"num_steps": 25}, "eval": {"num_steps": 25}},
  "maml_5shot": {"base": ("maml", "_5shot"), "published": {"number": 0.999, "interval": 0.001}},
  "fomaml_5shot": {"base": ("fomaml", "_5shot"), "published": {"number": 0.992, "interval": 0.002}},
  "meta_sgd_5shot": {"base": ("meta_sgd", "_5shot"), "published": {"number": 0.9993, "interval": 0.0009}},
  "reptile_5shot": {"base": ("reptile", "_5shot", "_one_query"), "published": {"number": 0.9948, "interval": 0.0006}},
  "imaml_5shot": {"base": ("imaml", "_5shot"), "published": {"number": 0.9967, "interval": 0.0012}},
  "imaml_hf_5shot": {"base": ("imaml_hf", "_5shot"), "published": {"number": 0.9974, "interval": 0.0011}},
  "mamlpp_5shot": {"base": ("mamlpp", "_5shot", "_one_query"), "published": {"number": 0.9993, "interval": 0.0}},
  "maml_20way": {"base": ("maml", "_maml_20way"), "published": {"number": 0.958, "interval": 0.003}},
  "fomaml_20way": {"base": ("fomaml", "_maml_20way"), "published": {"number": 0.894, "interval": 0.005}},
  "anil_20way": {"base": ("anil", "_maml_20way"), "published": {"number": 0.962, "interval": 0.005, "source": ANIL}},
  "meta_sgd_20way": {"base": ("meta_sgd", "_20way"), "published": {"number": 0.9593, "interval": 0.0}},
  "reptile_20way": {"base": ("reptile", "_reptile_20way"), "published": {"number": 0.8943, "interval": 0.0014}},
  "imaml_20way": {"base": ("imaml", "_imaml_20way"), "published": {"number": 0.9446, "interval": 0.0042}},
  "imaml_hf_20way": {"base": ("imaml_hf", "_20way"), "published": {"number": 0.9618, "interval": 0.0036}},
  "maml_20way_5shot": {"base": ("maml_20way", "_5shot"), "published": {"number": 0.989, "interval": 0.002}},
  "fomaml_20way_5shot": {"base": ("fomaml_20way", "_5shot"), "published": {"number": 0.979, "interval": 0.001}},
  "anil_20way_5shot": {"base": ("anil_20way", "_5shot"), "published": {"number": 0.98, "interval": 0.003}},
  "meta_sgd_20way_5shot": {"base": ("meta_sgd_20way", "_5shot"), "published": {"number": 0.9897, "interval": 0.0}},
  "reptile_20way_5shot": {
    "base": ("reptile_20way", "_5shot", "_one_query"),
    "published": {"number": 0.9712, "interval": 0.0032},
  },
  "imaml_20way_5shot": {"base": ("imaml_20way", "_5shot"), "published": {"number": 0.9869, "interval": 0.001}},
  "imaml_hf_20way_5shot": {"base": ("imaml_hf_20way", "_5shot"), "published": {"number": 0.9914, "interval": 0.001}},
}

# Without transduction.
ALSO_PUBLISHED = {
  "reptile": {"support_plus_one": (0.9539, 0.0009)},
  "reptile_5shot": {"support_plus_one": (0.989, 0.001)},
  "reptile_20way": {"support_plus_one": (0.8814, 0.0015)},
  "reptile_20way_5shot": {"support_plus_one": (0.9665, 0.0033)},
}

# Recipes for one CPU core: fewer tasks a step, a smaller initial head, a larger annealed outer step.
METHODS |= {
  "_annealed": {"optimizer": {"learning_rate": 3e-3, "schedule": "cosine"}},
  "_cpu": {"base": "_annealed", "num_meta_steps": 14_000, "tasks_per_step": 16, "network": {"head_init": "xavier"}},
  "_half_steps": {"inner": {"learning_rate": 1.0}},
  # The paper's step sizes start near 0.05, twenty times below MAML's here, so the rule learns faster than the network.
  "_fast_rule": {"optimizer": {"rule_learning_rate": 3e-2}},
  "_1000_tasks": {"eval": {"num_tasks": 1000}},
  "_cpu_20way": {"base": ("_cpu", "_1000_tasks"), "num_meta_steps": 5_000},
  "_cpu_20way_5shot": {"base": "_cpu_20way", "num_meta_steps": 3_000, "tasks_per_step": 4},
  "_3_steps": {"inner": {"learning_rate": 1.0, "num_steps": 3}},
  "_1_step": {"inner": {"num_steps": 1}},
  "_cpu_imaml": {"base": "_annealed", "num_meta_steps": 4_000, "tasks_per_step": 8, "inner": {"prox": 0.5}},
  "_16_steps": {"base": "_1000_tasks", "num_meta_steps": 1_500, "inner": {"num_steps": 16}},
  # A task of 5 shots costs as much as five of 1 shot; on 20 ways iMAML learns more in equal time with 1 shot.
  "_trained_with_1_shot": {"base": "_1000_tasks", "data": {"train_shots": 1, "train_queries": 1}},
  "maml_cpu": {"base": ("maml", "_cpu", "_half_steps")},
  "fomaml_cpu": {"base": ("fomaml", "_cpu", "_half_steps"), "num_meta_steps": 30_000},
  "anil_cpu": {"base": ("anil", "_cpu", "_3_steps"), "num_meta_steps": 8_000},
  "meta_sgd_cpu": {"base": ("meta_sgd", "_cpu", "_fast_rule")},
  "reptile_cpu": {"base": "reptile", "num_meta_steps": 40_000},
  "imaml_cpu": {"base": ("imaml", "_cpu_imaml"), "data": {"train_queries": 5}},
  "meta_lstm_cpu": {
    "base": ("meta_lstm", "_cpu"),
    "num_meta_steps": 6_000,
    "tasks_per_step": 4,
    "task_chunk": 1,
    "data": {"train_queries": 5},
    "network": {"width": 16},
    "inner": {"num_steps": 5},
    "optimizer": {"rule_learning_rate": 1e-2, "clip_norm": 1.0},
    "eval": {"num_steps": 5},
  },
  "meta_curvature_cpu": {"base": ("meta_curvature", "_cpu", "_half_steps"), "num_meta_steps": 10_000},
  # Minutes: 16 filters, a sixteenth of the multiplications.
  "_minutes": {"base": ("_cpu", "_1000_tasks"), "num_meta_steps": 2_000, "network": {"width": 16}},
  "maml_minutes_cpu": {"base": ("maml", "_minutes", "_half_steps"), "published": None},
  "alfa_cpu": {"base": ("alfa", "_minutes")},
  "cavia_cpu": {"base": ("cavia", "_minutes"), "num_meta_steps": 10_000},
  "proto_maml_cpu": {"base": ("proto_maml", "_minutes")},
  "bootstrapped_cpu": {"base": ("bootstrapped", "_minutes", "_half_steps")},
  # A task of 5 shots costs five of 1 shot.
  "maml_5shot_cpu": {"base": ("maml_5shot", "_cpu"), "num_meta_steps": 28_000, "tasks_per_step": 4},
  "fomaml_5shot_cpu": {"base": ("fomaml_5shot", "_cpu", "_half_steps"), "num_meta_steps": 7_000, "tasks_per_step": 8},
  "meta_sgd_5shot_cpu": {
    "base": ("meta_sgd_5shot", "_cpu", "_fast_rule"),
    "num_meta_steps": 10_000,
    "tasks_per_step": 8,
  },
  "reptile_5shot_cpu": {"base": "reptile_5shot", "num_meta_steps": 40_000},
  "imaml_hf_cpu": {"base": ("imaml_hf", "_cpu_imaml")},
  "imaml_hf_5shot_cpu": {"base": ("imaml_hf_5shot", "_cpu_imaml", "_trained_with_1_shot")},
  "imaml_hf_20way_cpu": {"base": ("imaml_hf_20way", "_cpu_imaml", "_1000_tasks"), "num_meta_steps": 350},
  "imaml_hf_20way_5shot_cpu": {
    "base": ("imaml_hf_20way_5shot", "_cpu_imaml", "_trained_with_1_shot"),
    "num_meta_steps": 350,
  },
  "imaml_5shot_cpu": {"base": ("imaml_5shot", "_cpu_imaml"), "num_meta_steps": 1_000},
  "imaml_20way_cpu": {"base": ("imaml_20way", "_cpu_imaml", "_16_steps")},
  "imaml_20way_5shot_cpu": {"base": ("imaml_20way_5shot", "_cpu_imaml", "_16_steps", "_trained_with_1_shot")},
  # One inner step in training instead of the paper's five: a quarter of the time, and as good after 4,000 tasks.
  "maml_20way_cpu": {"base": ("maml_20way", "_cpu_20way", "_1_step")},
  "fomaml_20way_cpu": {"base": ("fomaml_20way", "_cpu_20way", "_3_steps")},
  # Validation rises to the end of its 40,000 meta-steps.
  "meta_sgd_20way_cpu": {
    "base": ("meta_sgd_20way", "_cpu_20way", "_fast_rule"),
    "num_meta_steps": 40_000,
    "checkpoint_every": 2_000,
    "data": {"val_classes": 100},
    "eval": {"val_tasks": 300},
  },
  "anil_20way_cpu": {"base": ("anil_20way", "_cpu_20way", "_3_steps")},
  "reptile_20way_cpu": {"base": ("reptile_20way", "_1000_tasks"), "num_meta_steps": 8_000},
  "anil_20way_5shot_cpu": {"base": ("anil_20way_5shot", "_cpu_20way_5shot", "_3_steps")},
  "maml_20way_5shot_cpu": {"base": ("maml_20way_5shot", "_cpu_20way_5shot", "_1_step")},
  "fomaml_20way_5shot_cpu": {"base": ("fomaml_20way_5shot", "_cpu_20way_5shot", "_3_steps")},
  "meta_sgd_20way_5shot_cpu": {"base": ("meta_sgd_20way_5shot", "_cpu_20way_5shot", "_fast_rule")},
  "reptile_20way_5shot_cpu": {"base": ("reptile_20way_5shot", "_1000_tasks"), "num_meta_steps": 8_000},
  # Two methods at equal meta-steps on 20 ways.
  "_small": {
    "base": "_annealed",
    "num_meta_steps": 1_000,
    "tasks_per_step": 4,
    "checkpoint_every": 100,
    "data": {"ways": 20},
    "network": {"head_init": "xavier", "width": 16},
    "inner": {"learning_rate": 0.5, "num_steps": 5},
    "eval": {"num_tasks": 1000, "num_steps": 5},
  },
  "maml_20way_small_cpu": {"base": ("maml", "_small"), "published": {"number": 0.958, "interval": 0.003}},
  "warp_maml_20way_small_cpu": {"base": ("warp_maml", "_small")},
}
