"""FC100: 5-way 1-shot and 5-shot, 60, 20 and 20 classes of CIFAR-100 by superclass.

Data: Oreshkin, Rodriguez, Lacoste 2018, arXiv 1805.10123; CIFAR-100 as tensorflow-datasets prepares it
(python -m experiments.prepare_data cifar100 --data_dir=DIR), or its binary archive, 32x32. None of the papers of these
methods has numbers for it.

Command: python -m experiments.train --config=configs/fc100.py:maml --workdir=runs/maml --data_dir=DIR
Rows end in _5shot for 5 shots, in _strict for the strict protocol, e.g. maml_5shot_strict: the query examples are
classified under the batch statistics of the support set alone (no transduction), the checkpoint is chosen by 300
validation tasks, 15 queries for each class, 1000 test tasks; with --seeds=0,1,2 the 95% interval is over seeds.

| row                | published, 1 shot | published, 5 shots | measured    | strict, measured |
|--------------------|-------------------|--------------------|-------------|------------------|
| maml               | -                 | -                  | not yet run | not yet run      |
| fomaml             | -                 | -                  | not yet run | not yet run      |
| anil               | -                 | -                  | not yet run | not yet run      |
| meta_sgd           | -                 | -                  | not yet run | not yet run      |
| reptile            | -                 | -                  | not yet run | not yet run      |
| leap               | -                 | -                  | not yet run | not yet run      |
| imaml              | -                 | -                  | not yet run | not yet run      |
| imaml_hf           | -                 | -                  | not yet run | not yet run      |
| t_net              | -                 | -                  | not yet run | not yet run      |
| warp_maml          | -                 | -                  | not yet run | not yet run      |
| warp_leap_online   | -                 | -                  | not yet run | not yet run      |
| warp_leap_offline  | -                 | -                  | not yet run | not yet run      |
| meta_lstm          | -                 | -                  | not yet run | not yet run      |
| meta_curvature     | -                 | -                  | not yet run | not yet run      |
| mamlpp             | -                 | -                  | not yet run | not yet run      |
| maml_48            | -                 | -                  | not yet run | not yet run      |
| maml_resnet12      | -                 | -                  | not yet run | not yet run      |
| warp_maml_resnet12 | -                 | -                  | not yet run | not yet run      |

All rows:
As in configs/mini_imagenet.py, of Finn et al. 2017, arXiv 1703.03400, and the other papers named there, whose
experiments on other images have the same settings.
"""

BASE = "mini_imagenet"
COMMON = {
  "data": {
    "name": "fc100",
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
}
METHODS: dict = {}
