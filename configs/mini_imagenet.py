"""mini-ImageNet: 5-way 1-shot and 5-shot, 64 classes to train on, 16 for validation, 20 to test.

Data: the 84x84 images in folders {train,val,test}/<wnid>/*, in folders <wnid>/*, beside train.csv, val.csv and
test.csv (Ravi and Larochelle 2017), or as experiments.prepare_data makes them from one of these or from a zip archive.
A part of the set is loaded and called partial, in result.json too; --config.data.require_complete=True refuses it.

Command: python -m experiments.train --config=configs/mini_imagenet.py:maml --workdir=runs/maml --data_dir=FOLDER
Rows end in _5shot for 5 shots, in _strict for the strict protocol, e.g. maml_5shot_strict: the query examples are
classified under the batch statistics of the support set alone (no transduction), the checkpoint is chosen by 300
validation tasks, 15 queries for each class, 1000 test tasks; with --seeds=0,1,2 the 95% interval is over seeds.

| row                | published, 1 shot | published, 5 shots | measured    | strict, measured |
|--------------------|-------------------|--------------------|-------------|------------------|
| maml               | 48.70 +/- 1.84    | 63.11 +/- 0.92     | not yet run | not yet run      |
| fomaml             | 48.07 +/- 1.75    | 63.15 +/- 0.91     | not yet run | not yet run      |
| anil               | 46.70 +/- 0.40    | 61.50 +/- 0.50     | not yet run | not yet run      |
| meta_sgd           | 50.47 +/- 1.87    | 64.03 +/- 0.94     | not yet run | not yet run      |
| reptile            | 49.97 +/- 0.32    | 65.99 +/- 0.58     | not yet run | not yet run      |
| leap               | -                 | -                  | not yet run | not yet run      |
| imaml              | -                 | -                  | not yet run | not yet run      |
| imaml_hf           | 49.30 +/- 1.88    | -                  | not yet run | not yet run      |
| t_net              | -                 | -                  | not yet run | not yet run      |
| warp_maml          | 52.30 +/- 0.80    | 68.40 +/- 0.60     | not yet run | not yet run      |
| warp_leap_online   | -                 | -                  | not yet run | not yet run      |
| warp_leap_offline  | -                 | -                  | not yet run | not yet run      |
| meta_lstm          | 43.44 +/- 0.77    | 60.60 +/- 0.71     | not yet run | not yet run      |
| meta_curvature     | 54.08 +/- 0.93    | 67.99 +/- 0.73     | not yet run | not yet run      |
| mamlpp             | 52.15 +/- 0.26    | 68.32 +/- 0.44     | not yet run | not yet run      |
| maml_48            | -                 | -                  | not yet run | not yet run      |
| maml_resnet12      | -                 | -                  | not yet run | not yet run      |
| warp_maml_resnet12 | -                 | -                  | not yet run | not yet run      |

Sizes for a CPU: 16 filters; 3 steps in training and 5 at test of MAML, FOMAML and ANIL, and in training 5 query
examples but for Reptile, whose network alone is smaller; 600 test tasks, one seed. maml_5shot_cpu, whose validation
curve is in metrics.jsonl, has the checkpoint of the best of 15 validations; the others are shorter, and have their last
one:

| row                | measured       | meta-steps of the paper's | time                 |
|--------------------|----------------|---------------------------|----------------------|
| maml_5shot_cpu     | 46.57 +/- 0.99 | 3,000 of 60,000           | 2 h 30 min           |
| maml_cpu           | 34.13 +/- 1.83 | 2,000 of 60,000           | 12 min, EPYC AVX-512 |
| fomaml_cpu         | 32.53 +/- 1.78 | 3,000 of 60,000           | 10 min, EPYC AVX-512 |
| anil_cpu           | not yet run    | 3,000 of 60,000           |                      |
| meta_sgd_cpu       | 36.67 +/- 1.80 | 3,000 of 60,000           | 11 min, EPYC AVX-512 |
| reptile_cpu        | 31.90 +/- 1.73 | 1,500 of 100,000          | 14 min, EPYC AVX-512 |
| imaml_cpu          | 27.47 +/- 1.69 | 1,500 of 60,000           | 15 min, EPYC AVX-512 |
| imaml_hf_cpu       | 25.07 +/- 1.42 | 500 of 60,000             | 9 min, EPYC AVX-512  |
| warp_maml_cpu      | 28.12 +/- 0.58 | 1,000 of 60,000           | 11 min, EPYC AVX-512 |
| fomaml_5shot_cpu   | 44.03 +/- 0.92 | 2,000 of 60,000           | 9 min, EPYC AVX-512  |
| anil_5shot_cpu     | not yet run    | 3,000 of 60,000           |                      |
| meta_sgd_5shot_cpu | 44.10 +/- 0.85 | 3,000 of 60,000           | 11 min, EPYC AVX-512 |
| reptile_5shot_cpu  | 44.13 +/- 1.95 | 1,500 of 100,000          | 14 min, EPYC AVX-512 |
| imaml_5shot_cpu    | 30.39 +/- 0.73 | 500 of 60,000             | 21 min, EPYC AVX-512 |
| warp_maml_5shot_cpu | 37.72 +/- 0.64 | 600 of 60,000             | 22 min, EPYC AVX-512 |

meta_sgd_5shot_cpu and reptile_5shot_cpu are trained as meta_sgd_cpu and reptile_cpu are, so their numbers are of those
runs, by python -m experiments.evaluate --workdir=runs/mini/meta_sgd_cpu --data_dir=FOLDER --name=5_shots
--set=data.shots=5 --set=data.queries=5, for Reptile --set=data.shots=5 --set=eval.batch_size=15.
Without transduction, each query example beside the support set alone (`support_plus_one` in result.json and here):

| row               | alone, published | alone, measured |
|-------------------|------------------|-----------------|
| reptile_cpu       | 47.07 +/- 0.26   | 30.87 +/- 1.59  |
| reptile_5shot_cpu | 62.74 +/- 0.37   | 43.20 +/- 1.77  |

imaml_hf_cpu: Its inner problem stays unsolved, with a relative residual of 5 in the linear system. With 6 steps, a
  damping of 5 and lambda = 2, as in Omniglot's row, it stays above 3 (--config.inner.num_steps=6
  --config.inner.damping=5.0 --config.inner.prox=2.0 --config.num_meta_steps=60); with imaml's 10 steps of gradient
  descent it falls below 1.
maml_5shot_cpu: Accuracy on 100 validation tasks (+/- 2.2) rose from 38.1 at meta-step 200 over 40.3 (1,000), 45.2
  (2,000) and 46.5 (2,600) to 46.1 (3,000); with the statistics of the support set 46.43 +/- 0.95 on test tasks.

All rows:
maml, fomaml: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2 and its released code: 32 filters, 5 steps in
  training and 10 at test, 15 query examples of each class in training and as many as shots at test, 4 tasks a
  meta-step (2 for 5 shots), Adam at 1e-3, 60,000 meta-steps. Its loss is a sum over the examples divided by the shots,
  so its step of 0.01 is 0.05 on the mean loss here, and its bound of 10 on each element of the meta-gradient 10 / 75
  (10 / 15 for 5 shots). No test task chooses anything: the last checkpoint is the result.
anil: Raghu et al. 2020, arXiv 1909.09157: the head alone adapts; the settings are MAML's.
meta_sgd: Li et al. 2017, arXiv 1707.09835: one step, step sizes from U(0.005, 0.1); 5 shots are tested after training
  with 1, as in the paper. The tasks a meta-step and the optimizer, which it does not state, are MAML's.
reptile: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, table 4: 8 steps of 10 out of 15 shots by Adam at 1e-3 with
  b1 = 0, 5 tasks a meta-step, outer step 1 annealed to 0, 50 steps at test, one query example of each class. Its
  numbers without transduction have the statistics of the support set and the one query example.
leap: Flennerhag et al. 2019, arXiv 1812.01054, has no few-shot experiment; the settings are ours.
imaml, imaml_hf: Rajeswaran et al. 2019, arXiv 1909.04630; the paper's settings for these images were not seen:
  lambda = 0.5, 10 steps, 5 CG steps are ours.
t_net: Lee and Choi 2018, arXiv 1801.05558: MAML with 1x1 warp-layers, unrolled.
warp_maml: Flennerhag et al. 2020, arXiv 1909.00025, section 4.1: 3x3 warp-layers after each block, online. What the
  paper does not state is that of a published re-run: 64 filters, 5 steps of 0.1, one task a meta-step. The warp-layers
  start as the identity.
warp_leap_online: The same with Leap's objective for the initial parameters.
warp_leap_offline: The same by Algorithm 2, one warp update for each point of each task, which the paper has for
  multi-shot tasks alone. The settings are ours: the tasks of warp_leap_online, 4 a meta-step.
meta_lstm: Ravi and Larochelle 2017, "Optimization as a model for few-shot learning", and its released code: 32 filters,
  batch norm with a scale, 12 steps on the support set (8 for 5 shots), one task a meta-step, 75,000 meta-steps
  (50,000), 15 query examples of each class, the meta-gradient's norm clipped at 0.25, gradients held constant. It tests
  under moving averages over a task's steps in which the newest support batch weighs 0.9 (0.95), nearest to which is
  `support`. It also divides a step's gradient, of a mean loss, by the batch's size; here it does not.
meta_curvature: Park and Oliva 2019, arXiv 1902.03356: a meta-learned Kronecker product for every tensor; the other
  settings, which were not seen, are MAML's. Its numbers are as others list them, not checked with the paper; listings
  of the 1-shot one disagree.
mamlpp: Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, and its released code: 48 filters, a step size for every
  tensor and step from 0.1 (see maml_48), a scale and an offset of batch norm for every step, 5 steps in training and at
  test, the loss after each step annealed to the last one over 15 epochs of 500 meta-steps, 2 tasks a meta-step, 15
  query examples of each class, each element of the meta-gradient within 10, the checkpoint chosen by 600 validation
  tasks after each epoch. The published number is of an ensemble of the best five: --config.eval.ensemble=5. Statistics
  are those of the batch, as in its code; for the paper's per-step ones: --config.eval.norm_stats=per_step.
maml_48: maml in the network of MAML++ (Antoniou et al. 2019, arXiv 1810.09502): 48 filters, batch norm with a scale.
  Its released configs set init_inner_loop_learning_rate, which its code never reads; the runs start at 0.1 on a mean
  loss.
maml_resnet12, warp_maml_resnet12: ResNet-12 with drop-block (Lee et al. 2019, arXiv 1904.03758) and augmented training
  images; no paper has these numbers.
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

# Step sizes and bounds are for mean losses. MAML's released loss is a sum over the examples divided by the shots: its
# inner step of 0.01 is 5, the ways, times that here, and its bound of 10 on each element of the meta-gradient is 10
# divided by the ratio of its outer loss to the mean, 5 ways * 15 queries / shots.
COMMON = {
  "seed": 0,
  "num_meta_steps": 60_000,
  "tasks_per_step": 4,
  "checkpoint_every": 1_000,
  "steps_per_dispatch": 20,
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
  "warp_leap_online": {
    "base": "_warp",
    "meta_gradient": {"name": "warp", "initial": "leap", "objective": "full"},
  },
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
  "warp_maml_resnet12": {
    "base": ("_warp", "maml_resnet12"),
    "network": {**RESNET, "warp": WARP},
  },
}

# Five shots: what each paper changes, and its numbers.
METHODS |= {
  "_5shot": {"data": {"shots": 5, "queries": 5}},
  "_unrolled_5shot": {"base": "_5shot", "tasks_per_step": 2, "optimizer": {"clip": 10 * 5 / 75}},
  "_15_queries": {"base": "_5shot", "data": {"queries": 15}},
  "maml_5shot": {"base": ("maml", "_unrolled_5shot"), "published": {"number": 0.6311, "interval": 0.0092}},
  "fomaml_5shot": {"base": ("fomaml", "_unrolled_5shot"), "published": {"number": 0.6315, "interval": 0.0091}},
  "anil_5shot": {"base": ("anil", "_unrolled_5shot"), "published": {"number": 0.615, "interval": 0.005}},
  # Its paper trains these with one shot.
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
# No query example sees another, the checkpoint is chosen by validation tasks, 15 queries for each class; with
# --seeds=0,1,2 the interval is over seeds.
VARIANTS = {
  "_strict": {"data": {"queries": 15}, "eval": {"norm_stats": "support", "num_tasks": 1_000, "val_tasks": 300}},
}

# A smaller network, fewer steps and queries: for a learning curve in 2 h 30 min of a core. The other rows: as long as a
# quarter of an hour of a core, no validation. The bound on the meta-gradient stays that of the mean loss.
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
