"""Multi-shot Omniglot: one alphabet is one 20-way task, 100 SGD steps of 20 augmented drawings; 10 alphabets held out.

Paper: Flennerhag et al. 2020, arXiv 1909.00025, section 4.2, appendices E and F, and its released code: 20 tasks a
meta-step, 1000 meta-steps, SGD at 0.1 inside and outside (FOMAML and MAML 0.5, MAML with 5 steps in training), 5 of
each character's 20 drawings held out, every drawing turned, shifted and scaled at random. The released code's batch is
128; "100-shot" (100 steps of 20 over 20 classes) says that the paper's was 20: --config.data.batch_size=128 for it.
Accuracy is under running statistics, reset for each task, as in the released code; MAML's alone is under those of the
batch, as there. result.json has both for every method. As there, drawings are made smaller, turned and shifted by the
nearest pixel; the sizes for CPU have smooth ones (resample=lanczos, augmentation=affine). Not as there: tasks are drawn
with replacement, minibatches anew at every step.

Command: python -m experiments.train --config=configs/multi_shot_omniglot.py:warp_leap_offline --workdir=runs/warp_leap
Fewer alphabets: --config.data.alphabets=10 (the paper sweeps 1, 3, 5, 10, 15, 20, 25).

| method             | published, 25 alphabets | 10 alphabets | measured    | time |
|--------------------|-------------------------|--------------|-------------|------|
| warp_leap_offline  | 83.8 +/- 1.9            | 81.2 +/- 2.4 | not yet run |      |
| warp_first_order   | 83.1 +/- 2.7            | -            | not yet run |      |
| warp_scale         | 77.5                    | -            | not yet run |      |
| warp_1x1           | 79.4                    | -            | not yet run |      |
| warp_relu          | 83.4                    | -            | not yet run |      |
| warp_norm          | 85.0                    | -            | not yet run |      |
| warp_residual      | 86.3                    | -            | not yet run |      |
| warp_two_layers    | 88.0                    | -            | not yet run |      |
| warp_leap_online   | 76.3                    | -            | not yet run |      |
| leap               | 74.8                    | -            | not yet run |      |
| reptile            | 70.8                    | -            | not yet run |      |
| maml               | 56.7                    | -            | not yet run |      |
| fomaml             | -                       | -            | not yet run |      |
| fine_tuning        | 76.4                    | -            | not yet run |      |
| scratch            | 51.0 (4x batch, 10x lr) | -            | not yet run |      |

warp_scale to warp_two_layers: the capacity ladder of appendix F: channel scaling; a 1x1 convolution; a 3x3 convolution
with ReLU, batch norm and ReLU, the same with a residual connection; two layers of that without ReLU.
fine_tuning: joint training with a head for each alphabet, then a fresh head: one SGD step at 0.1 for each batch of one
alphabet, as many batches as the others take inner steps (20 x 100 x 1000), as in the released code, where all alphabets
have one head instead.
maml: L_meta is that of the held-out drawings of a training alphabet, whole; the released code takes them in minibatches
and adds the last inner loss. The other methods draw both losses from the 15 drawings that are not held out.
scratch: no meta-training; a batch of 80 and a rate of 1.0, with which the paper has its number. With 30 test tasks
(--config.eval.num_tasks=30, 2 min): 24.0 under running statistics, 39.8 under those of the held-out drawings; with the
smooth drawings of the sizes for CPU 28.5 and 47.4.
leap, reptile, fomaml: each task, of the test too, begins with a random head of its own, which is not learned, as in the
released code; MAML and the methods with warp-layers learn one, as there.
warp_leap_online: the warp's gradients are summed over the points, as Leap's are, which has no loss term (as offline).
The alphabets are split once, the same way for each seed; the paper draws a split for each run, and its +/- is the
standard deviation over runs.

A size for CPU: 10 alphabets, width 16, one task by 1,000 meta-steps. Each of the 10 held-out alphabets is adapted to
three times, which is averaged first: intervals over test tasks are Student's, over 10. Warp-Leap and fine-tuning: five
seeds, interval over seeds; the others: seed 0, interval over test tasks, difference from Warp-Leap's seed 0. Time
is that of one seed on one core.
python -m experiments.train --config=configs/multi_shot_omniglot.py:warp_leap_offline_cpu --seeds=0,1,2,3,4
--workdir=runs/multi_shot/warp_leap_offline_cpu

| method                | published, 10 alphabets | measured     | Warp-Leap minus it | time             |
|-----------------------|-------------------------|--------------|--------------------|------------------|
| warp_leap_offline_cpu | 81.2 +/- 2.4            | 62.8 +/- 1.7 |                    | 31 min, EPYC AVX-512 |
| leap_cpu              | -                       | 57.0 +/- 6.4 | +5.4               | 6 min, EPYC AVX-512 |
| fine_tuning_cpu       | -                       | 57.7 +/- 2.0 | +5.1 +/- 3.5       | 6 min, EPYC AVX-512 |
| reptile_cpu           | -                       | 45.9 +/- 4.5 | +16.5              | 6 min, EPYC AVX-512 |
| maml_cpu              | -                       | 27.8 +/- 3.9 | +34.6              | 1 min, EPYC AVX-512 |
| fomaml_cpu            | -                       | 27.3 +/- 2.8 | +35.1              | 6 min, EPYC AVX-512 |
| scratch_cpu           | 51.0                    | 16.2 +/- 5.5 | +46.2              | 8 s, EPYC AVX-512 |

The same of 25 alphabets, seed 0, interval and difference over test tasks (`experiments.plot`), times of an EPYC with
AVX-512, evaluation included:

| method                   | published, 25 alphabets | measured     | Warp-Leap minus it | time                 |
|--------------------------|-------------------------|--------------|--------------------|----------------------|
| warp_leap_offline_25_cpu | 83.8 +/- 1.9            | 67.0 +/- 2.6 |                    | 22 min, EPYC AVX-512 |
| leap_25_cpu              | 74.8                    | 60.0 +/- 4.7 | +7.0 +/- 2.8       | 6 min, EPYC AVX-512  |
| fine_tuning_25_cpu       | 76.4                    | 60.4 +/- 4.5 | +6.6 +/- 3.2       | 4 min, EPYC AVX-512  |
| reptile_25_cpu           | 70.8                    | 48.4 +/- 6.1 | +18.6 +/- 5.1      | 5 min, EPYC AVX-512  |
| maml_25_cpu              | 56.7                    | 22.2 +/- 2.3 | +44.8              | 1 min, EPYC AVX-512  |
| fomaml_25_cpu            | -                       | 25.3 +/- 2.5 | +41.7 +/- 2.7      | 4 min, EPYC AVX-512  |
| scratch_25_cpu           | 51.0                    | 12.5 +/- 2.9 | +54.5              | 14 s, EPYC AVX-512   |

After 40 of the 100 steps: Warp-Leap 60.1, Leap 53.4, Reptile 44.8, fine-tuning 42.3.

The curve over alphabets, likewise; the 10 test alphabets follow those of training in the shuffled list, as in the
released code, so that they differ from one number of alphabets to another:

| method                   | published    | measured     | Warp-Leap minus it | time                 |
|--------------------------|--------------|--------------|--------------------|----------------------|
| warp_leap_offline_1_cpu  | 49.5 +/- 7.8 | 26.9 +/- 4.2 |                    | 26 min, EPYC AVX-512 |
| leap_1_cpu               | -            | 39.5 +/- 5.2 | -12.7 +/- 4.3      | 5 min, EPYC AVX-512  |
| fine_tuning_1_cpu        | -            | 45.4 +/- 3.1 | -18.5 +/- 3.9      | 5 min, EPYC AVX-512  |
| reptile_1_cpu            | -            | 39.5 +/- 5.2 | -12.6 +/- 5.3      | 6 min, EPYC AVX-512  |
| warp_leap_offline_3_cpu  | 68.8 +/- 2.8 | 51.7 +/- 5.6 |                    | 27 min, EPYC AVX-512 |
| leap_3_cpu               | -            | 51.0 +/- 6.1 | +0.7 +/- 3.6       | 5 min, EPYC AVX-512  |
| fine_tuning_3_cpu        | -            | 52.7 +/- 5.9 | -1.0 +/- 3.2       | 4 min, EPYC AVX-512  |
| reptile_3_cpu            | -            | 45.6 +/- 4.8 | +6.1 +/- 4.9       | 5 min, EPYC AVX-512  |
| warp_leap_offline_5_cpu  | 75.0 +/- 3.6 | 58.2 +/- 5.3 |                    | 23 min, EPYC AVX-512 |
| leap_5_cpu               | -            | 54.7 +/- 6.2 | +3.5 +/- 1.7       | 6 min, EPYC AVX-512  |
| fine_tuning_5_cpu        | -            | 53.6 +/- 5.6 | +4.6 +/- 3.3       | 5 min, EPYC AVX-512  |
| reptile_5_cpu            | -            | 46.0 +/- 5.7 | +12.2 +/- 5.2      | 6 min, EPYC AVX-512  |
| warp_leap_offline_15_cpu | 82.7 +/- 3.3 | 65.6 +/- 4.3 |                    | 27 min, EPYC AVX-512 |
| leap_15_cpu              | -            | 57.4 +/- 4.0 | +8.2 +/- 3.7       | 5 min, EPYC AVX-512  |
| fine_tuning_15_cpu       | -            | 58.6 +/- 2.7 | +7.0 +/- 3.9       | 5 min, EPYC AVX-512  |
| reptile_15_cpu           | -            | 52.2 +/- 4.6 | +13.4 +/- 4.1      | 5 min, EPYC AVX-512  |
| maml_15_cpu              | -            | 20.5 +/- 3.0 | +45.1 +/- 4.2      | 1 min, EPYC AVX-512  |
| fomaml_15_cpu            | -            | 22.2 +/- 2.7 | +43.4 +/- 4.1      | 5 min, EPYC AVX-512  |
| warp_leap_offline_20_cpu | 82.0 +/- 2.6 | 66.4 +/- 4.6 |                    | 29 min, EPYC AVX-512 |
| leap_20_cpu              | -            | 61.6 +/- 2.8 | +4.8 +/- 4.8       | 4 min, EPYC AVX-512  |
| fine_tuning_20_cpu       | -            | 59.2 +/- 3.7 | +7.2 +/- 3.5       | 5 min, EPYC AVX-512  |
| reptile_20_cpu           | -            | 47.3 +/- 5.2 | +19.1 +/- 4.0      | 6 min, EPYC AVX-512  |
| maml_20_cpu              | -            | 15.6 +/- 1.2 | +50.8 +/- 5.0      | 2 min, EPYC AVX-512  |
| fomaml_20_cpu            | -            | 23.9 +/- 3.2 | +42.5 +/- 5.1      | 5 min, EPYC AVX-512  |

Warp-Leap is behind every baseline with 1 alphabet, level with the best with 3, ahead from 5 on. Its warp-layers fit the
alphabets they see: accuracy on the training tasks of the last 100 meta-steps is 95.5 with 1 alphabet, 75.9 with 3, 73.5
with 5.

The ablation ladder, of 25 alphabets, at a quarter of the meta-steps, seed 0:

| method                       | published | measured    | time |
|------------------------------|-----------|-------------|------|
| leap_ladder_cpu              | 74.8      | 50.5 +/- 4.2 | 1 min, EPYC AVX-512 |
| warp_leap_online_ladder_cpu  | 76.3      | 43.8 +/- 5.1 | 6 min, EPYC AVX-512 |
| warp_scale_ladder_cpu        | 77.5      | 50.7 +/- 3.9 | 4 min, EPYC AVX-512 |
| warp_1x1_ladder_cpu          | 79.4      | 45.1 +/- 4.3 | 4 min, EPYC AVX-512 |
| warp_leap_offline_ladder_cpu | 83.8 +/- 1.9 | 51.0 +/- 3.5 | 6 min, EPYC AVX-512 |
| warp_first_order_ladder_cpu  | 83.1 +/- 2.7 | 49.0 +/- 4.5 | 4 min, EPYC AVX-512 |
| warp_relu_ladder_cpu         | 83.4      | 42.3 +/- 5.4 | 6 min, EPYC AVX-512 |
| warp_norm_ladder_cpu         | 85.0      | 48.5 +/- 4.2 | 6 min, EPYC AVX-512 |
| warp_residual_ladder_cpu     | 86.3      | 63.3 +/- 4.8 | 7 min, EPYC AVX-512 |
| warp_two_layers_ladder_cpu   | 88.0      | 53.2 +/- 4.3 | 14 min, EPYC AVX-512 |

The residual connection gains most. The recipes of 10 alphabets and more, and of the ladder's rungs but warp_relu, have
biases from zero (network.bias_init), with which they were measured; the other rows start from PyTorch's random ones, as
the released code does. With zeros the last warp-layer's 16 ReLUs in warp_relu die: after meta-step 59 the warp has no
gradient (5.0).

The size here has a quarter of the filters and a 20th of the tasks.
Of 10 alphabets Warp-Leap's seeds have 62.4, 63.6, 60.7, 64.2 and 62.9, fine-tuning's 57.5, 58.5, 59.8, 55.6 and 56.9,
paired by seed: +5.1 +/- 3.5. The last two were added since the first three have +3.6 +/- 5.8. Of those three, under the
statistics of the held-out drawings: Warp-Leap 64.4 +/- 3.6, fine-tuning 58.6 +/- 2.3; Reptile 53.7. After 40 of the 100
steps: Warp-Leap 58.5, fine-tuning 43.1, and of seed 0 Leap 49.1, Reptile 43.4.
Other runs: seed 1 with one head for all test tasks, Leap 56.9, Reptile 47.8; seed 0 on another machine, with the
same: Leap 56.6, FOMAML 21.2, and fine-tuning 59.3.
With a learned head (--config.meta_gradient.redrawn=nothing) leap_cpu has 15.2, fomaml_cpu 18.0.
With half the meta-steps Warp-Leap had 55.4 and 59.4 (seeds 0, 1), fine-tuning with half its steps 56.4 (seed 0).
"""

PAPER = "Flennerhag et al. 2020, arXiv 1909.00025"
SOURCE = f"{PAPER}, 25 alphabets"

COMMON = {
  "seed": 0,
  "num_meta_steps": 1000,
  "tasks_per_step": 20,
  "checkpoint_every": 10,
  "steps_per_dispatch": 1,
  "task_chunk": 0,
  "data": {
    "name": "multi_shot_omniglot",
    "alphabets": 25,
    "ways": 20,
    "held_out": 5,
    "batch_size": 20,
    "augmentation": "affine_nearest",
    "resample": "nearest",
    "query": "support",
    "split_seed": 0,
  },
  "network": {"name": "warpgrad_omniglot", "width": 64},
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 100},
  "optimizer": {"name": "sgd", "learning_rate": 0.1},
  "eval": {"num_tasks": 100, "num_steps": 100, "norm_stats": "running"},
}

OFFLINE = {"name": "warp_offline", "initial": "leap", "leap_loss": False, "objective": "full", "eta": 1}
RESIDUAL = {"kind": "conv3x3", "batch_norm": True, "residual": True}
UNTRAINED = {"num_meta_steps": 1, "checkpoint_every": 1}

METHODS = {
  "_paper": {"published": {"interval": 0.0, "source": SOURCE}},
  "_offline": {"base": "_paper", "meta_gradient": OFFLINE},
  "warp_leap_offline": {
    "base": "_offline",
    "network": {"warp": {"kind": "conv3x3"}},
    "published": {"number": 0.838, "interval": 0.019},
  },
  "warp_first_order": {
    "base": "_paper",
    "network": {"warp": {"kind": "conv3x3"}},
    "meta_gradient": {**OFFLINE, "objective": "first_order"},
    "published": {"number": 0.831, "interval": 0.027},
  },
  # The capacity ladder of appendix F, table 3; the 3x3 convolution alone is warp_leap_offline.
  "warp_scale": {"base": "_offline", "network": {"warp": {"kind": "scale"}}, "published": {"number": 0.775}},
  "warp_1x1": {"base": "_offline", "network": {"warp": {"kind": "conv1x1"}}, "published": {"number": 0.794}},
  "warp_relu": {
    "base": "_offline",
    "network": {"warp": {"kind": "conv3x3", "activation": "relu"}},
    "published": {"number": 0.834},
  },
  "warp_norm": {
    "base": "_offline",
    "network": {"warp": {"kind": "conv3x3", "batch_norm": True, "activation": "relu"}},
    "published": {"number": 0.850},
  },
  "warp_residual": {
    "base": "_offline",
    "network": {"warp": {**RESIDUAL, "activation": "relu"}},
    "published": {"number": 0.863},
  },
  "warp_two_layers": {
    "base": "_offline",
    "network": {"warp": {**RESIDUAL, "num_layers": 2}},
    "published": {"number": 0.88},
  },
  "warp_leap_online": {
    "base": "_paper",
    "network": {"warp": {"kind": "conv3x3"}},
    "meta_gradient": {"name": "warp", "initial": "leap", "leap_loss": False, "objective": "full", "reduction": "sum"},
    "published": {"number": 0.763},
  },
  "leap": {"base": "_paper", "meta_gradient": {"name": "leap", "redrawn": "head"}, "published": {"number": 0.748}},
  "reptile": {
    "base": "_paper",
    "meta_gradient": {"name": "reptile", "redrawn": "head"},
    "published": {"number": 0.708},
  },
  "fomaml": {
    "meta_gradient": {"name": "unrolled", "derivative": "first_order", "redrawn": "head"},
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
  },
  "maml": {
    "base": "_paper",
    "data": {"query": "held_out"},
    "inner": {"num_steps": 5},
    "meta_gradient": {"name": "unrolled"},
    "optimizer": {"name": "sgd", "learning_rate": 0.5},
    "eval": {"norm_stats": "transductive"},
    "published": {"number": 0.567},
  },
  "fine_tuning": {
    "base": "_paper",
    "num_meta_steps": 2_000_000,
    "tasks_per_step": 1,
    "checkpoint_every": 5000,
    "steps_per_dispatch": 500,
    "data": {"numbered": True},
    "network": {"name": "multi_headed_omniglot", "alphabets": 25, "width": 64},
    "meta_gradient": {"name": "multi_head"},
    "published": {"number": 0.764},
  },
  "scratch": {
    "base": "_paper",
    **UNTRAINED,
    "data": {"batch_size": 80},
    "inner": {"learning_rate": 1.0},
    "meta_gradient": {"name": "untrained"},
    "published": {"number": 0.51},
  },
}

# A size for CPU: a 20th of the tasks, a quarter of the filters; one task a meta-step, so that there are many.
_CPU = {
  "num_meta_steps": 1000,
  "tasks_per_step": 1,
  "checkpoint_every": 50,
  "data": {"augmentation": "affine", "resample": "lanczos"},
  "network": {"width": 16},
  "eval": {"num_tasks": 30},  # three of each alphabet; the accuracy after each of 100 steps costs more than training
}
# Warp-Leap's numbers by meta-training alphabets; of those the paper has no other method's.
_CURVE = {
  1: (0.495, 0.078),
  3: (0.688, 0.028),
  5: (0.75, 0.036),
  10: (0.812, 0.024),
  15: (0.827, 0.033),
  20: (0.82, 0.026),
}
for _alphabets in (*_CURVE, 25):
  _suffix = "_cpu" if _alphabets == 10 else f"_{_alphabets}_cpu"
  _part, _hidden = f"_cpu_{_alphabets}", {} if _alphabets == 25 else {"published": None}
  METHODS[_part] = {
    **_CPU,
    "data": {**_CPU["data"], "alphabets": _alphabets},
    # Measured before these networks started from PyTorch's biases, but for those of few alphabets.
    "network": {**_CPU["network"], **({"bias_init": "zeros"} if _alphabets >= 10 else {})},
  }
  for _method in ("warp_leap_offline", "leap", "reptile", "maml", "fomaml"):
    METHODS[_method + _suffix] = {"base": (_method, _part), **_hidden}
  METHODS["fine_tuning" + _suffix] = {
    "base": ("fine_tuning", _part),
    "num_meta_steps": 100_000,
    "checkpoint_every": 10_000,
    "network": {"alphabets": _alphabets},
    **_hidden,
  }
  METHODS["scratch" + _suffix] = {"base": ("scratch", _part), **UNTRAINED}
for _alphabets, (_number, _interval) in _CURVE.items():
  METHODS[f"warp_leap_offline{'' if _alphabets == 10 else f'_{_alphabets}'}_cpu"]["published"] = {
    "number": _number,
    "interval": _interval,
    "source": f"{PAPER}, {_alphabets} alphabets",
  }

# The ladder at a quarter of the meta-steps, beside its ends: no warp-layers, and the convolution online and offline.
METHODS["_ladder"] = {"base": "_cpu_25", "num_meta_steps": 250}
LADDER = (
  *("leap", "warp_leap_online", "warp_leap_offline", "warp_first_order"),
  *("warp_scale", "warp_1x1", "warp_relu", "warp_norm", "warp_residual", "warp_two_layers"),
)
for _method in LADDER:
  METHODS[f"{_method}_ladder_cpu"] = {"base": (_method, "_ladder")}
METHODS["warp_relu_ladder_cpu"]["network"] = {"bias_init": None}  # its ReLUs die with biases of zero
