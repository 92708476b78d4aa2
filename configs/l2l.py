"""Learning to learn by gradient descent by gradient descent: an LSTM that optimizes random 10-d quadratics.

Paper: Andrychowicz et al. 2016, arXiv 1606.04474, section 3.1: f(theta) = |W theta - y|^2, the elements of W and y
from N(0, 1), 100 steps; an LSTM of two layers of 20 units for every coordinate, back-propagation through 20 steps, the
sum of losses, gradients held constant, Adam. Its quadratics have no preprocessing of gradients and 128 functions a
batch; here gradients come as logarithm and sign, updates are scaled by 0.1, and there are 16 functions, Adam at 3e-3
annealed to 0, and 7,500 outer updates (five to a meta-step). Published: figures only.

Command: python -m experiments.l2l --workdir=runs/l2l
It trains `l2l_lstm` below, tunes SGD, momentum, RMSprop and Adam (25 step sizes from 1e-4 to 100, momentum 0.5, 0.9,
0.95 and 0.99) on 500 functions for every setting, and compares them on 1000 others: comparison.json, comparison.png. A
tuned baseline may diverge on a function that it was not tuned on.

Real images, section 3.2: networks of one hidden layer of 20 sigmoid units, minibatches of 128, 100 steps. The paper has
MNIST. Here each function is the training of such a network on 10 characters of Omniglot at 14x14, 19 drawings of each,
with characters held out for the test functions. The meta-loss is the loss on all 190 drawings. The baselines are tuned
as above, on 40 functions for every setting. The test has 1000 held-out functions for the setting of training, and 200
for each other setting.

Command: python -m experiments.l2l --workdir=runs/l2l_images --method=l2l_lstm_images
"""

COMMON = {
  "seed": 0,
  "num_meta_steps": 1_500,
  "tasks_per_step": 16,
  "checkpoint_every": 200,
  "steps_per_dispatch": 20,
  "task_chunk": 0,
  "data": {"name": "quadratics", "dim": 10},
  "network": {"name": "displacement"},
  "inner": {"rule": "l2l_lstm", "units": (20, 20), "p": 5.0, "scale": 0.1, "num_steps": 100},
  "meta_gradient": {"name": "truncated_unroll", "length": 20},
  "optimizer": {"name": "rule_adam", "learning_rate": 3e-3, "updates_per_step": 5, "clip_norm": 1.0},
  "eval": {"num_tasks": 1000, "num_steps": 100},
}

METHODS = {
  "l2l_lstm": {},
  "l2l_lstm_images": {
    "num_meta_steps": 100,
    "tasks_per_step": 4,
    "checkpoint_every": 20,
    "task_chunk": 1,
    "data": {"name": "trainings", "ways": 10, "hidden": 20, "size": 14, "batch_size": 128},
    "inner": {"rule": "l2l_lstm", "units": (20, 20), "p": 10.0, "scale": 0.1, "num_steps": 100},
    "eval": {"num_tasks": 100, "num_steps": 100},
  },
}

ALSO_PUBLISHED = dict.fromkeys(METHODS, {"figure": "a figure"})
