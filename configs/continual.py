"""Continual sine regression: 5 waves one after another, each over its own fifth of [-5, 5], 20 steps each.

Paper: Flennerhag et al. 2020, arXiv 1909.00025, section 4.3 and appendix H: the meta-loss of a step is the mean over
the current and all previous waves; after a switch, the loss on earlier waves stays around 1e-2, within an order of
magnitude. It gives no other setting than Adam for meta-updates: widths, steps and rates are ours.

Commands: python -m experiments.train --config=configs/continual.py:warp --workdir=runs/continual/warp
  python -m experiments.train --config=configs/continual.py:maml --workdir=runs/continual/maml
  python -m experiments.forgetting --workdirs=runs/continual/warp,runs/continual/maml
The last command prints how much the learners forget the first four waves: the loss right after a wave's own steps,
after the steps on the next wave, and after the whole sequence, with geometric means of the ratios to the first. Its
picture, forgetting.png, has the loss of both learners on each wave by step.

warp: Warp-Leap's composition, online: the warp-layers learn from every step, the initial parameters by Leap.
warp_maml: The same warp, the initial parameters by MAML through the whole sequence.
maml: MAML trained on single waves, each over a fifth of the domain; the test is on the sequence.
sequence: MAML through the whole sequence, meta-trained not to forget, without warp-layers.
_cpu: 1,000 meta-steps.
"""

NETWORK = {"name": "mlp", "features": (100, 100), "activation": "tanh"}
WARP = {**NETWORK, "warp": {"kind": "linear", "activation": "tanh", "residual": True}}

COMMON = {
  "seed": 0,
  "num_meta_steps": 10_000,
  "tasks_per_step": 5,
  "checkpoint_every": 1_000,
  "steps_per_dispatch": 100,
  "task_chunk": 0,
  "data": {"name": "continual", "subtasks": 5, "points": 20, "steps_each": 20, "train_subtasks": 0},
  "network": NETWORK,
  "inner": {"rule": "sgd", "learning_rate": 0.01, "num_steps": 100},
  "meta_gradient": {"name": "unrolled"},
  "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip_norm": 10.0},
  "eval": {"num_tasks": 200, "num_steps": 100},
}

METHODS = {
  "warp": {
    "network": WARP,
    "meta_gradient": {"name": "warp", "initial": "leap", "objective": "full", "seen_every": 20},
  },
  "warp_maml": {
    "network": WARP,
    "meta_gradient": {"name": "warp", "initial": "maml", "objective": "full", "seen_every": 20},
  },
  "maml": {"data": {"train_subtasks": 1}, "inner": {"num_steps": 20}},
  "sequence": {},
  "_cpu": {"num_meta_steps": 1_000, "checkpoint_every": 100},
  "warp_cpu": {"base": ("warp", "_cpu")},
  "maml_cpu": {"base": ("maml", "_cpu")},
}

ALSO_PUBLISHED = {"warp": {"figure": "about 1e-2, a figure"}}
