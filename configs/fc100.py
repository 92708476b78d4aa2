"""FC100: 5-way 1-shot and 5-shot, 60, 20 and 20 classes of CIFAR-100 by superclass.

Data: Oreshkin, Rodriguez, Lacoste 2018, arXiv 1805.10123; CIFAR-100 as tensorflow-datasets prepares it
(warpjax prepare cifar100 --data_dir=DIR), or its binary archive, 32x32. None of the papers of these
methods has numbers for it.

Command: python -m experiments.train --config=configs/fc100.py:maml --workdir=runs/maml --data_dir=DIR
Rows end in _5shot for 5 shots, in _strict for the strict protocol, e.g. maml_5shot_strict: the query examples are
classified under the batch statistics of the support set alone (no transduction), the checkpoint is chosen by 300
validation tasks, 15 queries for each class, 1000 test tasks; with --seeds=0,1,2 the 95% interval is over seeds.

All rows are those of configs/mini_imagenet.py, of Finn et al. 2017, arXiv 1703.03400, and the other papers named there,
whose experiments on other images have the same settings.
"""

BASE = "mini_imagenet"
DATA = "fc100"
METHODS: dict = {}
