"""Learning to learn by gradient descent by gradient descent: an LSTM that optimizes random 10-d quadratics.

Paper: Andrychowicz et al. 2016, arXiv 1606.04474, section 3.1: f(theta) = |W theta - y|^2, the elements of W and y
from N(0, 1), 100 steps; an LSTM of two layers of 20 units for every coordinate, back-propagation through 20 steps, the
sum of losses, gradients held constant, Adam. Its quadratics have no preprocessing of gradients and 128 functions a
batch; here gradients come as logarithm and sign, updates are scaled by 0.1, and there are 16 functions, Adam at 3e-3
annealed to 0, and 7,500 outer updates (five to a meta-step). Published: figures only.

Command: python -m experiments.l2l --workdir=runs/l2l
It trains `l2l_lstm` below, tunes SGD, momentum, RMSprop and Adam (25 step sizes from 1e-4 to 100, momentum 0.5, 0.9,
0.95 and 0.99) on 500 functions for every setting, and compares them on 1000 others: comparison.json, comparison.png.

| method          | published | measured            | time of training, of comparing |
|-----------------|-----------|---------------------|--------------------------------|
| l2l_lstm        | a figure  | 0.215 +/- 0.041     | 82 s, 5 min                    |
| l2l_lstm_images | a figure  | 0.00014 +/- 0.00011 | 8 min, half an hour            |

Mean loss after 100 steps (200 where it says so) of 1000 held-out functions, seed 0, 95% over functions, one CPU core,
and the paired difference from the best of the tuned optimizers; "diverges": at its best rate, on a function that it was
not tuned on.

| quadratics   | SGD      | momentum | RMSprop | Adam  | L2L   | L2L minus the best |
|--------------|----------|----------|---------|-------|-------|--------------------|
| as trained   | diverges | 0.246    | 0.720   | 0.360 | 0.215 | -0.031 +/- 0.007   |
| 200 steps    | diverges | 0.153    | 0.547   | 0.240 | 0.131 | -0.023 +/- 0.009   |
| dimension 5  | diverges | diverges | 0.335   | 0.146 | 0.104 | -0.042 +/- 0.013   |
| dimension 20 | 1.487    | 0.380    | 1.365   | 0.616 | 0.325 | -0.055 +/- 0.006   |

Real images, section 3.2: networks of one hidden layer of 20 sigmoid units, minibatches of 128, 100 steps. MNIST there;
here each function is the training of such a network on 10 characters of Omniglot at 14x14, 19 drawings of each, with
characters held out for the test functions; the meta-loss is that of all 190 drawings. The baselines are tuned as above,
on 40 functions for every setting. 1000 held-out functions as trained, 200 for the other two:

| images          | SGD   | momentum | RMSprop | Adam   | L2L     | L2L minus the best   | L2L the lower on |
|-----------------|-------|----------|---------|--------|---------|----------------------|------------------|
| as trained      | 0.170 | 0.00100  | 0.0076  | 0.0087 | 0.00014 | -0.00086 +/- 0.00026 | 98.7%            |
| 200 steps       | 0.021 | 0.00013  | 0.0005  | 0.0029 | 0.00015 | 0.00002 +/- 0.00020  | 84.5%            |
| 40 hidden units | 0.271 | 0.00165  | 0.0034  | 0.0086 | 0.00000 | -0.00164 +/- 0.00079 | 100%             |

In the logarithm (base 10) of the loss L2L is 1.90 +/- 0.03, 0.42 +/- 0.09 and 2.33 +/- 0.06 below the best, momentum.

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
