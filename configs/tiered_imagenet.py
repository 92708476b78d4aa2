"""tiered-ImageNet: 5-way 1-shot and 5-shot, 351, 97 and 160 classes (20, 6 and 8 categories); 10-way 640-shot.

Data: Ren et al. 2018, arXiv 1803.00676; image files in a layout that mini-ImageNet's loader reads. The arrays take
16 GB. They are on the device if they fit; otherwise a task's images are fetched from a memory-mapped file.

Command: python -m experiments.train --config=configs/tiered_imagenet.py:maml --workdir=runs/maml --data_dir=FOLDER

warp_leap_offline_640shot: Flennerhag et al. 2020, arXiv 1909.00025, section 4.2, 10-way 640-shot. Settings
that the paper does not state are those of its multi-shot Omniglot. 640 shots are read as 100 steps of 64 images over 10
classes. A task has 6,900 images, so the row needs an accelerator.

The rows are those of configs/mini_imagenet.py. It names their papers, such as Finn et al. 2017, arXiv 1703.03400, whose
settings for other images are used here, and says what _5shot and _strict mean.
"""

WARP = "Flennerhag et al. 2020, arXiv 1909.00025"
COMLN = "a run by Deleu et al. 2022 (COMLN)"

BASE = "mini_imagenet"
DATA = "tiered_imagenet"

METHODS = {
  "maml": {"published": {"number": 0.5167, "interval": 0.0181, "source": COMLN}},
  "maml_5shot": {"published": {"number": 0.703, "interval": 0.0175, "source": COMLN}},
  "meta_sgd": {"published": {"number": 0.528, "interval": 0.0044, "source": COMLN}},
  "meta_sgd_5shot": {"published": {"number": 0.6235, "interval": 0.0026, "source": COMLN}},
  "imaml": {"published": {"number": 0.3854, "interval": 0.0137, "source": COMLN}},
  "imaml_5shot": {"published": {"number": 0.6024, "interval": 0.0076, "source": COMLN}},
  "warp_maml": {"published": {"number": 0.572, "interval": 0.0, "source": WARP}},
  "warp_leap_offline_640shot": {
    "num_meta_steps": 1_000,
    "tasks_per_step": 20,
    "checkpoint_every": 10,
    "steps_per_dispatch": 1,
    "data": {"ways": 10, "shots": 640, "queries": 50, "train_queries": 0},
    "network": {"name": "warpgrad_omniglot", "width": 64, "warp": {"kind": "conv3x3"}},
    "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 100, "batch": "minibatch", "batch_size": 64},
    "meta_gradient": {"name": "warp_offline", "initial": "leap", "leap_loss": False, "objective": "full", "eta": 1},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "eval": {"num_tasks": 100, "num_steps": 100, "norm_stats": "running"},
    "published": {"number": 0.804, "interval": 0.016, "source": WARP},
  },
}
