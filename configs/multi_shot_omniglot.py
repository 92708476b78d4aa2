"""Multi-shot Omniglot: one alphabet is one 20-way task, 100 SGD steps of 20 augmented drawings; 10 alphabets held out.

Paper: Flennerhag et al. 2020, arXiv 1909.00025, section 4.2, appendices E and F, and its released code: 20 tasks a
meta-step, 1000 meta-steps, SGD at 0.1 inside and outside (FOMAML and MAML 0.5, MAML with 5 steps in training), 5 of
each character's 20 drawings held out, every drawing turned, shifted and scaled at random. The released code has
batches of 128 (--config.data.batch_size=128). The paper's "100-shot" means 20: 100 steps of 20 images over 20 classes.
docs/papers/warp.md says where the protocol differs from the released code's.

Command: python -m experiments.train --config=configs/multi_shot_omniglot.py:warp_leap_offline --workdir=runs/warp_leap
Fewer alphabets: --config.data.alphabets=10 (the paper sweeps 1, 3, 5, 10, 15, 20, 25).

warp_scale to warp_two_layers: The capacity ladder of appendix F: channel scaling; a 1x1 convolution; a 3x3 convolution
  with ReLU, batch norm and ReLU, the same with a residual connection; two layers of that without ReLU.
warp_leap_online: The warp's gradients are summed over the points, as Leap's are. Leap has no loss term, as offline.
leap, reptile, fomaml: Each task of training and test begins with a random head, which is not learned. MAML and the
  methods with warp-layers learn a head. Both are as in the released code.
fine_tuning: Joint training with a head for each alphabet; a test task gets a fresh head. Training takes one SGD step at
  0.1 for each batch of one alphabet, with as many batches as the other rows take inner steps (20 x 100 x 1000), as in
  the released code. There all alphabets share one head.
maml: The meta-loss is the loss on all held-out drawings of a training alphabet. The released code takes them in
  minibatches and adds the last inner loss. The other methods draw both losses from the 15 drawings not held out.
scratch: No meta-training. The batch of 80 and the rate of 1.0 are those of the paper's number.

_cpu (10 alphabets) and _1_cpu to _25_cpu: A quarter of the filters and a 20th of the tasks: width 16, 1,000
  meta-steps of one task, smooth drawings. The test adapts three times to each of the 10 held-out alphabets and averages
  the repeats, so that intervals over test tasks are Student's over 10. The test alphabets follow the training alphabets
  in a shuffled list, as in the released code, so they depend on the number of alphabets. Seeds: --seeds=0,1,2,3,4
_ladder_cpu: The ladder with 25 alphabets and a quarter of these meta-steps.
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
  "eval": {"num_tasks": 30},  # three of each alphabet
}
# Warp-Leap's numbers by meta-training alphabets; the paper has them for no other method.
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
    # Measured before these networks started from PyTorch's biases, except the rows of few alphabets.
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

# The ladder at a quarter of the meta-steps, with its ends: no warp-layers, and the convolution online and offline.
METHODS["_ladder"] = {"base": "_cpu_25", "num_meta_steps": 250}
LADDER = (
  *("leap", "warp_leap_online", "warp_leap_offline", "warp_first_order"),
  *("warp_scale", "warp_1x1", "warp_relu", "warp_norm", "warp_residual", "warp_two_layers"),
)
for _method in LADDER:
  METHODS[f"{_method}_ladder_cpu"] = {"base": (_method, "_ladder")}
METHODS["warp_relu_ladder_cpu"]["network"] = {"bias_init": None}  # its ReLUs die with biases of zero
