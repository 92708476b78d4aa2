"""Two-dimensional surfaces, random variations of MATLAB's `peaks`, descended for 100 steps from random starts.

Paper: Flennerhag et al. 2020, "Meta-learning with warped gradient descent", arXiv 1909.00025, appendix D: SGD at 0.1
for 100 steps, an explicit warp of the plane (two layers of 30 tanh units), 100 meta-steps of one surface with 10
starts, online. The outer optimizer is not given; here Adam at 1e-3. The warp is residual and starts as the identity,
since a random warp only reaches a part of the square. The last exponent is that of `peaks`; the paper prints x1 twice.

Command: python -m experiments.surfaces --workdir=runs/surfaces
It trains `warp` below, draws surfaces.png (contours with trajectories, on the surface and in the learner's own space)
and counts, over 1000 random starts, how often warped descent ends lower than plain descent: statement.json. From most
starts both end in the same place.
"""

COMMON = {
  "seed": 0,
  "num_meta_steps": 100,
  "tasks_per_step": 1,
  "checkpoint_every": 50,
  "steps_per_dispatch": 50,
  "task_chunk": 0,
  "data": {"name": "surfaces", "starts": 10},
  "network": {"name": "plane_warp", "hidden": 30, "warped": True},
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 100},
  "meta_gradient": {"name": "warp", "initial": "none", "objective": "full"},
  "optimizer": {"name": "adam", "learning_rate": 1e-3},
  "eval": {"num_tasks": 100, "num_steps": 100},
}

METHODS = {
  "warp": {},
  "warp_first_order": {"meta_gradient": {"name": "warp", "initial": "none", "objective": "first_order"}},
  "plain": {
    "num_meta_steps": 50,
    "network": {"name": "plane_warp", "warped": False},
    "meta_gradient": {"name": "untrained"},
  },
}

ALSO_PUBLISHED = {"warp": {"figure": "a figure"}}
