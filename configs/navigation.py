"""Point navigation: the goal, hidden, is uniform in [-0.5, 0.5]^2; the return is minus the sum of distances to it.

Papers: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.3, in the convention of the released code (distances; the
paper says squared distances): horizon 100, moves of at most 0.1 along each axis, an episode ends within 0.01 of
the goal, 20 episodes an inner step, step size 0.5 and at test 0.25 after the first, 40 episodes a step at test, 40 test
goals; TRPO (KL 0.01), 20 tasks a meta-step, 100 meta-steps. And Li et al. 2017, arXiv 1707.09835: one step, 600 test
tasks, starts at the origin or (`_varying`) uniform; horizon, discount and MAML's step size are not given: here 100,
0.99, 0.1. Policy 2-100-100-2, deviations learned. A linear baseline is subtracted. Advantages are standardized.

Command: python -m experiments.train --config=configs/navigation.py:maml --workdir=runs/navigation/maml
Trajectories before and after adaptation: python -m experiments.navigation --workdir=runs/navigation/maml
Meta-SGD minus MAML, paired over the tasks: python -m experiments.plot
--workdirs=runs/navigation/maml_one_step,runs/navigation/meta_sgd --output=runs/navigation/comparison.png

maml: The second derivative is that of `log pi(a_t) A_t`, as in the released code, which lacks some terms; `maml_dice`
  has all of them (`rl.policy_gradient`).
maml_adam, maml_ppo, reptile, imaml: Adam or SGD as the outer optimizer, and settings of our own.
random: An untrained policy, adapted as `maml` is. It has tanh units, as in the released test; training has ReLU
  (--config.network.activation=relu). The mean is over five initial policies (--seeds=0,1,2,3,4). The published number
  seems to be of one.
imaml: The inner loss is concave in places, more so for small deviations, and I + H / prox must stay positive definite.
  With a prox of 2.0 the minimum is about as far away as a step of 0.5.
"""

CODE = "Finn et al. 2017, arXiv 1703.03400, released results, 40 goals, after 4 steps"
PAPER = "Li et al. 2017, arXiv 1707.09835, 2-D navigation, after 1 step"

COMMON = {
  "seed": 0,
  "num_meta_steps": 100,
  "tasks_per_step": 20,
  "checkpoint_every": 5,
  "steps_per_dispatch": 1,
  "task_chunk": 1,
  "data": {"name": "navigation", "start": "origin", "episodes": 20, "test_episodes": 40, "horizon": 100},
  "network": {"name": "gaussian_mlp", "features": (100, 100)},
  "inner": {"rule": "sgd", "learning_rate": 0.5, "later_learning_rate": 0.25, "num_steps": 1},
  "meta_gradient": {"name": "trpo", "max_kl": 0.01, "derivative": "reverse"},
  "optimizer": {"name": "none"},
  "eval": {"num_tasks": 40, "num_steps": 4},
}

# Meta-SGD's paper takes one step, with 20 episodes before and after it.
ONE_STEP = {
  "data": {"test_episodes": 20},
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 1},
  "eval": {"num_tasks": 600, "num_steps": 1},
}
META_SGD = {**ONE_STEP, "inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.1), "num_steps": 1}}
VARYING = {"start": "uniform", "test_episodes": 20}

ADAM = {"name": "adam", "learning_rate": 1e-2}

METHODS = {
  "maml": {"published": {"number": -3.35, "interval": 0.59, "source": CODE}},
  "fomaml": {"meta_gradient": {"name": "trpo", "max_kl": 0.01, "derivative": "first_order"}},
  "maml_dice": {"data": {"estimator": "dice"}},
  "maml_adam": {"num_meta_steps": 300, "meta_gradient": {"name": "unrolled"}, "optimizer": ADAM},
  "maml_ppo": {
    "meta_gradient": {"name": "ppo", "clip": 0.2, "epochs": 5, "derivative": "reverse"},
    "optimizer": {"name": "adam", "learning_rate": 3e-3},
  },
  "random": {
    "network": {"activation": "tanh"},
    "num_meta_steps": 1,
    "checkpoint_every": 1,
    "meta_gradient": {"name": "untrained"},
    "published": {"number": -42.91, "interval": 1.28, "source": CODE},
  },
  "reptile": {
    "num_meta_steps": 500,
    "inner": {"rule": "sgd", "learning_rate": 0.25, "num_steps": 4},
    "meta_gradient": {"name": "reptile", "carry_optimizer": False},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
  },
  "imaml": {
    "num_meta_steps": 300,
    "inner": {"rule": "sgd", "learning_rate": 0.25, "num_steps": 4, "prox": 2.0},
    "meta_gradient": {"name": "implicit", "operator": "paper", "solver_steps": 5},
    "optimizer": ADAM,
  },
  "maml_one_step": {**ONE_STEP, "published": {"number": -9.12, "interval": 0.66, "source": PAPER}},
  "meta_sgd": {**META_SGD, "published": {"number": -8.64, "interval": 0.68, "source": PAPER}},
  "maml_one_step_varying": {
    **ONE_STEP,
    "data": VARYING,
    "published": {"number": -10.71, "interval": 0.0, "source": PAPER},
  },
  "meta_sgd_varying": {**META_SGD, "data": VARYING, "published": {"number": -10.15, "interval": 0.0, "source": PAPER}},
}

# After 0, 1, 2 and 3 steps; the intervals of `maml` are 4.01, 2.16, 0.55 and 0.58.
ALSO_PUBLISHED = {
  "maml": {"per_step": (-40.41, -11.68, -3.33, -3.2)},
  "random": {"per_step": (-82.7, -58.0, -53.8, -46.8)},
}
