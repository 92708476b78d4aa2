"""The 13x13 maze: a goal that the agent cannot see, 200 steps; at the goal it earns 10 and is put elsewhere.

Paper: Flennerhag et al. 2020, "Meta-learning with warped gradient descent", arXiv 1909.00025, section 4.3, and its
released code: 30 mazes with 30 goals at once, A2C (discount 0.9, critic 0.1, sum of squared probabilities 0.03), hidden
width 100, Adam at 1e-3 on the RNN after every episode, on the warp after every 30 episodes on its summed gradients. The
agent keeps what it learns about a goal in its memory; the weights learn along one life (`rl.online`), here of 334 x 30
episodes. Four things differ from the released code: a reward is credited to its own action, no agent is put into a
pillar, every maze has its own baseline, and the optimizers start at once. `hebbian` is the neuromodulated network of
Miconi et al. with the other rows' settings. Kernels and biases start uniform within 1/sqrt(width), as in PyTorch's
RNNCell. (The released Warp-RNN has orthogonal kernels, and one bias of zeros instead of two.) For a seed, `rnn` and
`warp_rnn` start from the same numbers; `hebbian` does too, except for its plasticity (normal, 0.01).

Command: python -m experiments.train --config=configs/maze.py:warp_rnn --workdir=runs/maze/warp_rnn --seeds=0,1,2
Curves, and the paired difference: python -m experiments.maze --workdirs=runs/maze/rnn,runs/maze/warp_rnn
--output=runs/maze/comparison.png
"""

COMMON = {
  "seed": 0,
  "num_meta_steps": 334,
  "tasks_per_step": 1,
  "checkpoint_every": 10,
  "steps_per_dispatch": 1,
  "task_chunk": 0,
  "data": {"name": "maze", "size": 13, "num_steps": 200, "mazes_at_once": 30, "test_episodes": 4},
  # No eps_root, which would damp every coordinate of a small gradient; nothing differentiates these steps.
  "inner": {"rule": "adam", "learning_rate": 1e-3, "eps_root": 0.0, "num_steps": 30},
  "meta_gradient": {"name": "online"},
  "optimizer": {"name": "life", "learning_rate": 1e-3},
  "eval": {"num_tasks": 96, "num_steps": 1},
}

METHODS = {
  "rnn": {"network": {"name": "rnn", "width": 100}},
  "warp_rnn": {"network": {"name": "warp_rnn", "width": 100}},
  "hebbian": {"network": {"name": "hebbian", "width": 100}},
}

WARPGRAD = "Flennerhag et al. 2020, arXiv 1909.00025, a figure"
ALSO_PUBLISHED = {
  "rnn": {"figure": "about 125 an episode, after 60,000, a figure", "source": WARPGRAD},
  "warp_rnn": {"figure": "about 160 an episode, after 60,000, a figure", "source": WARPGRAD},
  "hebbian": {"figure": "between the two, a figure", "source": WARPGRAD},
}
