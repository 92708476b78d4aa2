"""mini-ImageNet: 5-way 1-shot and 5-shot, 64 classes to train on, 16 for validation, 20 to test.

Data: the 84x84 images in folders {train,val,test}/<wnid>/*, in folders <wnid>/*, next to train.csv, val.csv and
test.csv (Ravi and Larochelle 2017), or as warpjax prepare makes them from one of these or from a zip archive.
An incomplete set is loaded, and result.json says so; --config.data.require_complete=True refuses it.

Command: python -m experiments.train --config=configs/mini_imagenet.py:maml --workdir=runs/maml --data_dir=FOLDER
Rows that end in _5shot have 5 shots. Rows that end in _strict, such as maml_5shot_strict, have the strict protocol: the
query examples are classified under the batch statistics of the support set alone (no transduction), 300 validation
tasks choose the checkpoint, and the test has 1000 tasks of 15 queries for each class. With --seeds=0,1,2 the 95%
interval is over seeds.

maml, fomaml: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2 and its released code.
anil: Raghu et al. 2020, arXiv 1909.09157: the head alone adapts; the settings are MAML's.
meta_sgd: Li et al. 2017, arXiv 1707.09835: one step; 5 shots are tested after training with 1, as in the paper.
reptile: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, table 4.
leap: Flennerhag et al. 2019, arXiv 1812.01054, has no few-shot experiment; the settings are ours.
imaml, imaml_hf: Rajeswaran et al. 2019, arXiv 1909.04630; we do not know the paper's settings for these images.
t_net: Lee and Choi 2018, arXiv 1801.05558: MAML with 1x1 warp-layers, unrolled.
warp_maml, warp_leap_online: Flennerhag et al. 2020, arXiv 1909.00025, section 4.1: 3x3 warp-layers after each block,
  online, with MAML's or Leap's objective for the initial parameters. warp_leap_offline: Algorithm 2, settings ours.
meta_lstm: Ravi and Larochelle 2017, "Optimization as a model for few-shot learning", and its released code.
meta_curvature: Park and Oliva 2019, arXiv 1902.03356: a meta-learned Kronecker product for every tensor.
mamlpp, maml_48: Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, and its released code; maml_48 is maml
  with its network.
maml_resnet12, warp_maml_resnet12: ResNet-12 with drop-block (Lee et al. 2019, arXiv 1904.03758) and augmented training
  images; no paper has these numbers.
What each paper states, and where the rows differ, is on its page in docs/papers.

_cpu: 16 filters. MAML, FOMAML and ANIL take 3 steps in training and 5 in the test. Training has 5 query examples of
  each class; Reptile changes only the network. The result of maml_5shot_cpu is from the best of 15 validations. The
  other rows are shorter, and their results are from the last checkpoint. meta_sgd_5shot_cpu and reptile_5shot_cpu are
  evaluations of the 1-shot runs: python -m experiments.evaluate --workdir=runs/mini/meta_sgd_cpu --data_dir=FOLDER
  --name=5_shots --set=data.shots=5 --set=data.queries=5, and for Reptile --set=data.shots=5 --set=eval.batch_size=15
"""

MAML = "Finn et al. 2017, arXiv 1703.03400, with transduction"
ANIL = "Raghu et al. 2020, arXiv 1909.09157"
META_SGD = "Li et al. 2017, arXiv 1707.09835"
REPTILE = "Nichol et al. 2018, arXiv 1803.02999, with transduction"
META_LSTM = "Ravi and Larochelle 2017"
META_CURVATURE = "Park and Oliva 2019, arXiv 1902.03356, as listed by others, not checked with the paper"
MAMLPP = "Antoniou et al. 2019, arXiv 1810.09502, an ensemble of five checkpoints, as listed by Lian et al. 2020"
IMAML = "Rajeswaran et al. 2019, arXiv 1909.04630"
WARPGRAD = "Flennerhag et al. 2020, arXiv 1909.00025"

# Step sizes and bounds are for mean losses. MAML's released loss is a sum over the examples divided by the shots. Its
# inner loss is 5 times the mean, 5 being the ways, so its step size of 0.01 is 0.05 here. Its outer loss is 5 ways * 15
# queries / shots times the mean. Its bound of 10 on each element of the meta-gradient is divided by that ratio.
COMMON = {
  "seed": 0,
  "num_meta_steps": 60_000,
  "tasks_per_step": 4,
  "checkpoint_every": 1_000,
  "steps_per_dispatch": 4,
  "task_chunk": 0,
  "data": {
    "name": "mini_imagenet",
    "ways": 5,
    "shots": 1,
    "queries": 1,
    "train_shots": 0,
    "train_queries": 15,
    "rotations": "none",
    "test_rotations": "none",
    "augmentation": (),
    "require_complete": False,
  },
  "network": {"name": "maml_mini_imagenet", "width": 32, "adapts": "all_but_norm"},
  "inner": {"rule": "sgd", "learning_rate": 0.05, "num_steps": 5},
  "meta_gradient": {"name": "unrolled"},
  "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip": 10 * 1 / 75},
  "eval": {"num_tasks": 600, "num_steps": 10, "norm_stats": "transductive"},
}

ADAM = {"name": "adam", "learning_rate": 1e-3}
REPTILE_NETWORK = {"name": "reptile_mini_imagenet", "width": 32, "adapts": "all"}
RESNET = {"name": "resnet12", "drop_rate": 0.1, "adapts": "all"}
WARP = {"kind": "conv3x3", "identity_init": True}

METHODS = {
  "maml": {"published": {"number": 0.487, "interval": 0.0184, "source": MAML}},
  "fomaml": {
    "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
    "published": {"number": 0.4807, "interval": 0.0175, "source": MAML},
  },
  "anil": {"network": {"adapts": "head"}, "published": {"number": 0.467, "interval": 0.004, "source": ANIL}},
  "meta_sgd": {
    "inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.1), "num_steps": 1},
    "eval": {"num_steps": 1},
    "published": {"number": 0.5047, "interval": 0.0187, "source": META_SGD},
  },
  "reptile": {
    "num_meta_steps": 100_000,
    "tasks_per_step": 5,
    "data": {"train_shots": 15, "train_queries": 1},
    "network": REPTILE_NETWORK,
    "inner": {
      "rule": "adam",
      "learning_rate": 1e-3,
      "b1": 0.0,
      "eps_root": 0.0,
      "num_steps": 8,
      "batch": "epochs",
      "batch_size": 10,
    },
    "meta_gradient": {"name": "reptile", "carry_optimizer": True},
    "optimizer": {"name": "sgd", "learning_rate": 1.0, "schedule": "linear"},
    "eval": {"num_steps": 50, "batch_size": 5, "optimizer_state": "trained"},
    "published": {"number": 0.4997, "interval": 0.0032, "source": REPTILE},
  },
  "leap": {
    "network": REPTILE_NETWORK,
    "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 5},
    "meta_gradient": {"name": "leap"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "eval": {"num_steps": 5},
  },
  "imaml": {
    "network": {"name": "maml_mini_imagenet", "width": 32, "adapts": "all"},
    "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 10, "prox": 0.5},
    "meta_gradient": {"name": "implicit", "operator": "paper", "solver_steps": 5},
    "optimizer": ADAM,
  },
  "imaml_hf": {
    "base": "imaml",
    "inner": {"rule": "newton_cg", "cg_steps": 5, "num_steps": 3, "prox": 0.5},
    "eval": {"num_steps": 3},
    "published": {"number": 0.493, "interval": 0.0188, "source": IMAML},
  },
  "t_net": {"network": {"warp": {"kind": "conv1x1", "identity_init": True}}},
  "_warp": {
    "tasks_per_step": 1,
    "data": {"queries": 15},
    "network": {"name": "warpgrad_mini_imagenet", "width": 64, "warp": WARP},
    "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 5},
    "meta_gradient": {"name": "warp", "initial": "maml", "objective": "full"},
    "optimizer": ADAM,
    "eval": {"num_steps": 5},
  },
  "warp_maml": {"base": "_warp", "published": {"number": 0.523, "interval": 0.008, "source": WARPGRAD}},
  "warp_leap_online": {"base": "_warp", "meta_gradient": {"name": "warp", "initial": "leap", "objective": "full"}},
  # The tasks of warp_leap_online, four at a time.
  "warp_leap_offline": {
    "base": "_warp",
    "num_meta_steps": 15_000,
    "tasks_per_step": 4,
    "meta_gradient": {"name": "warp_offline", "initial": "leap", "objective": "full", "eta": 1},
  },
  "meta_lstm": {
    "num_meta_steps": 75_000,
    "tasks_per_step": 1,
    "data": {"queries": 15},
    "network": {"name": "maml_mini_imagenet", "width": 32, "norm_scale": True, "adapts": "all"},
    "inner": {"rule": "meta_lstm", "units": 20, "num_steps": 12},
    "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip_norm": 0.25},
    "eval": {"num_steps": 12, "norm_stats": "support"},
    "published": {"number": 0.4344, "interval": 0.0077, "source": META_LSTM},
  },
  "meta_curvature": {
    "inner": {"rule": "kronecker", "learning_rate": 0.05, "num_steps": 5},
    "published": {"number": 0.5408, "interval": 0.0093, "source": META_CURVATURE},
  },
  "mamlpp": {
    "num_meta_steps": 50_000,
    "tasks_per_step": 2,
    "checkpoint_every": 500,
    "data": {"queries": 15},
    "network": {"name": "mamlpp_mini_imagenet", "width": 48, "adapts": "all"},
    "inner": {"rule": "per_step_sgd", "learning_rate": 0.1, "own_steps": 5, "per_step_norm": True, "num_steps": 5},
    "meta_gradient": {"name": "unrolled", "multi_step_epochs": 15, "steps_per_epoch": 500},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip": 10.0},
    "eval": {"num_steps": 5, "val_tasks": 600},
    "published": {"number": 0.5215, "interval": 0.0026, "source": MAMLPP},
  },
  "maml_48": {"network": {"name": "mamlpp_mini_imagenet", "width": 48, "adapts": "all_but_norm"}},
  "maml_resnet12": {"network": RESNET, "data": {"queries": 15, "augmentation": ("crop", "flip", "colour")}},
  "warp_maml_resnet12": {"base": ("_warp", "maml_resnet12"), "network": {**RESNET, "warp": WARP}},
}

# Five shots: what each paper changes, and its numbers.
METHODS |= {
  "_5shot": {"data": {"shots": 5, "queries": 5}},
  "_unrolled_5shot": {"base": "_5shot", "tasks_per_step": 2, "optimizer": {"clip": 10 * 5 / 75}},
  "_15_queries": {"base": "_5shot", "data": {"queries": 15}},
  "maml_5shot": {"base": ("maml", "_unrolled_5shot"), "published": {"number": 0.6311, "interval": 0.0092}},
  "fomaml_5shot": {"base": ("fomaml", "_unrolled_5shot"), "published": {"number": 0.6315, "interval": 0.0091}},
  "anil_5shot": {"base": ("anil", "_unrolled_5shot"), "published": {"number": 0.615, "interval": 0.005}},
  # The paper trains these rows with one shot.
  "meta_sgd_5shot": {
    "base": ("meta_sgd", "_5shot"),
    "data": {"train_shots": 1},
    "published": {"number": 0.6403, "interval": 0.0094},
  },
  "reptile_5shot": {
    "base": ("reptile", "_5shot"),
    "data": {"queries": 1},
    "eval": {"batch_size": 15},
    "published": {"number": 0.6599, "interval": 0.0058},
  },
  "leap_5shot": {"base": ("leap", "_5shot")},
  "imaml_5shot": {"base": ("imaml", "_5shot")},
  "imaml_hf_5shot": {"base": ("imaml_hf", "_5shot"), "published": None},
  "t_net_5shot": {"base": ("t_net", "_unrolled_5shot")},
  "warp_maml_5shot": {"base": ("warp_maml", "_15_queries"), "published": {"number": 0.684, "interval": 0.006}},
  "warp_leap_online_5shot": {"base": ("warp_leap_online", "_15_queries")},
  "warp_leap_offline_5shot": {"base": ("warp_leap_offline", "_15_queries")},
  "meta_lstm_5shot": {
    "base": ("meta_lstm", "_15_queries"),
    "num_meta_steps": 50_000,
    "inner": {"num_steps": 8},
    "eval": {"num_steps": 8},
    "published": {"number": 0.606, "interval": 0.0071},
  },
  "meta_curvature_5shot": {
    "base": ("meta_curvature", "_unrolled_5shot"),
    "published": {"number": 0.6799, "interval": 0.0073},
  },
  "mamlpp_5shot": {"base": ("mamlpp", "_15_queries"), "published": {"number": 0.6832, "interval": 0.0044}},
  "maml_48_5shot": {"base": ("maml_48", "_unrolled_5shot")},
  "maml_resnet12_5shot": {"base": ("maml_resnet12", "_unrolled_5shot"), "data": {"queries": 15}},
  "warp_maml_resnet12_5shot": {"base": ("warp_maml_resnet12", "_15_queries")},
}
# Without transduction.
ALSO_PUBLISHED = {
  "reptile": {"support_plus_one": (0.4707, 0.0026)},
  "reptile_5shot": {"support_plus_one": (0.6274, 0.0037)},
}
# No query example sees another, the checkpoint is chosen by validation tasks, 15 queries for each class; with
# --seeds=0,1,2 the interval is over seeds.
VARIANTS = {
  "_strict": {"data": {"queries": 15}, "eval": {"norm_stats": "support", "num_tasks": 1_000, "val_tasks": 300}}
}

# A smaller network, fewer steps and queries: a learning curve takes some hours of a core. The other rows take a quarter
# of an hour, without validation. The bound on the meta-gradient is still that of the mean loss.
METHODS |= {
  "_own_steps": {
    "num_meta_steps": 3_000,
    "checkpoint_every": 500,
    "data": {"train_queries": 5},
    "network": {"width": 16},
    "optimizer": {"learning_rate": 3e-3, "schedule": "cosine"},
  },
  "_short": {"base": "_own_steps", "inner": {"num_steps": 3}, "eval": {"num_steps": 5}},
  "_fast_rule": {"base": "_own_steps", "optimizer": {"rule_learning_rate": 3e-2}},
  "_narrow": {"num_meta_steps": 1_500, "checkpoint_every": 500, "network": {"width": 16}},
  "maml_cpu": {"base": ("maml", "_short"), "num_meta_steps": 2_000},
  "fomaml_cpu": {"base": ("fomaml", "_short")},
  "anil_cpu": {"base": ("anil", "_short")},
  "meta_sgd_cpu": {"base": ("meta_sgd", "_fast_rule")},
  "reptile_cpu": {"base": ("reptile", "_narrow")},
  "imaml_cpu": {"base": ("imaml", "_own_steps"), "num_meta_steps": 1_500},
  "imaml_hf_cpu": {"base": ("imaml_hf", "_own_steps"), "num_meta_steps": 500},
  "warp_maml_cpu": {"base": ("warp_maml", "_own_steps"), "num_meta_steps": 1_000},
  "maml_5shot_cpu": {"base": ("maml_5shot", "_short"), "checkpoint_every": 200, "eval": {"val_tasks": 100}},
  "fomaml_5shot_cpu": {"base": ("fomaml_5shot", "_short"), "num_meta_steps": 2_000},
  "anil_5shot_cpu": {"base": ("anil_5shot", "_short")},
  "imaml_5shot_cpu": {"base": ("imaml_5shot", "_own_steps"), "num_meta_steps": 500},
  "meta_sgd_5shot_cpu": {"base": ("meta_sgd_5shot", "_fast_rule")},
  "reptile_5shot_cpu": {"base": ("reptile_5shot", "_narrow")},
  "warp_maml_5shot_cpu": {"base": ("warp_maml_5shot", "_own_steps"), "num_meta_steps": 600},
}
