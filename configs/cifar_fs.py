"""CIFAR-FS: 5-way 1-shot and 5-shot, 64, 16 and 20 classes of CIFAR-100 at random.

Data: Bertinetto et al. 2019, arXiv 1805.08136; CIFAR-100, 32x32, as tensorflow-datasets prepares it
(warpjax prepare cifar100 --data_dir=DIR), or its binary archive. No paper of these methods has numbers for it.

Command: python -m experiments.train --config=configs/cifar_fs.py:maml --workdir=runs/maml --data_dir=DIR

The rows are those of configs/mini_imagenet.py. It names their papers, such as Finn et al. 2017, arXiv 1703.03400, whose
settings for other images are used here, and says what _5shot and _strict mean.
"""

BASE = "mini_imagenet"
DATA = "cifar_fs"
METHODS: dict = {}
