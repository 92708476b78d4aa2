"""Omniglot, 5-way 1-shot, unseen characters: 1200 characters at random to train on, 423 to test on, 28x28.

Command: python -m experiments.train --config=configs/omniglot.py:maml --workdir=runs/omniglot/maml
Evaluate on more tasks: python -m experiments.evaluate --workdir=runs/omniglot/maml --num_tasks=4000

| method         | published         | measured    | meta-steps, tasks of the paper's | time |
|----------------|-------------------|-------------|----------------------------------|------|
| maml           | 98.7 +/- 0.4      | not yet run |                                  |      |
| fomaml         | 98.3 +/- 0.5      | not yet run |                                  |      |
| anil           | -                 | not yet run |                                  |      |
| meta_sgd       | 99.53 +/- 0.26    | not yet run |                                  |      |
| reptile        | 97.68 +/- 0.04    | not yet run |                                  |      |
| reptile_serial | -                 | not yet run |                                  |      |
| leap           | -                 | not yet run |                                  |      |
| imaml          | 99.16 +/- 0.35    | not yet run |                                  |      |
| imaml_hf       | 99.50 +/- 0.26    | not yet run |                                  |      |
| t_net          | -                 | not yet run |                                  |      |
| warp_maml      | -                 | not yet run |                                  |      |
| meta_lstm      | -                 | not yet run |                                  |      |
| meta_curvature | -                 | not yet run |                                  |      |
| mamlpp         | 99.47             | not yet run |                                  |      |

5 shots, 20 ways, and both, of the papers that are compared here, with the settings of each paper:

| method               | published      | measured    |
|----------------------|----------------|-------------|
| maml_5shot           | 99.9 +/- 0.1   | not yet run |
| fomaml_5shot         | 99.2 +/- 0.2   | not yet run |
| meta_sgd_5shot       | 99.93 +/- 0.09 | not yet run |
| reptile_5shot        | 99.48 +/- 0.06 | not yet run |
| imaml_5shot          | 99.67 +/- 0.12 | not yet run |
| imaml_hf_5shot       | 99.74 +/- 0.11 | not yet run |
| mamlpp_5shot         | 99.93          | not yet run |
| maml_20way           | 95.8 +/- 0.3   | not yet run |
| fomaml_20way         | 89.4 +/- 0.5   | not yet run |
| anil_20way           | 96.2 +/- 0.5   | not yet run |
| meta_sgd_20way       | 95.93          | not yet run |
| reptile_20way        | 89.43 +/- 0.14 | not yet run |
| imaml_20way          | 94.46 +/- 0.42 | not yet run |
| imaml_hf_20way       | 96.18 +/- 0.36 | not yet run |
| maml_20way_5shot     | 98.9 +/- 0.2   | not yet run |
| fomaml_20way_5shot   | 97.9 +/- 0.1   | not yet run |
| anil_20way_5shot     | 98.0 +/- 0.3   | not yet run |
| meta_sgd_20way_5shot | 98.97          | not yet run |
| reptile_20way_5shot  | 97.12 +/- 0.32 | not yet run |
| imaml_20way_5shot    | 98.69 +/- 0.10 | not yet run |
| imaml_hf_20way_5shot | 99.14 +/- 0.10 | not yet run |

Recipes sized for one CPU core, whose time is given (accuracy on 4000 test tasks, interval over tasks, seed 0):

| method       | published      | measured       | meta-steps, tasks of paper's   | time      |
|--------------|----------------|----------------|--------------------------------|-----------|
| maml_cpu     | 98.7 +/- 0.4   | 98.68 +/- 0.18 | 14,000 of 60,000, 16 of 32     | 33 min    |
| fomaml_cpu   | 98.3 +/- 0.5   | 98.29 +/- 0.20 | 30,000 of 60,000, 16 of 32     | 30 min    |
| anil_cpu     | -              | 97.12 +/- 0.24 | 8,000 of 60,000, 16 of 32      | 20 min    |
| meta_sgd_cpu | 99.53 +/- 0.26 | 99.07 +/- 0.15 | 14,000 of 60,000, 16 of 32     | 34 min    |
| reptile_cpu  | 97.68 +/- 0.04 | 97.24 +/- 0.24 | 40,000 of 100,000, 5 of 5      | 61 min    |
| imaml_cpu    | 99.16 +/- 0.35 | 96.18 +/- 0.27 | 4,000 of 20,000, 8 of 32       | 41 min    |
| meta_lstm_cpu      | -        | 91.46 +/- 0.43 | 6,000 of 75,000, 4 of 1        | 34 min    |
| meta_curvature_cpu | -        | 99.35 +/- 0.13 | 10,000 of 60,000, 16 of 32     | 40 min    |

5 shots, likewise; the EPYC (7003, AVX2) had other work beside:

| method             | published      | measured       | meta-steps, tasks of paper's | time             |
|--------------------|----------------|----------------|------------------------------|------------------|
| maml_5shot_cpu     | 99.9 +/- 0.1   | 99.47 +/- 0.05 | 28,000 of 60,000, 4 of 32    | 91 min, AMD EPYC |
| fomaml_5shot_cpu   | 99.2 +/- 0.2   | 98.89 +/- 0.07 | 7,000 of 60,000, 8 of 32     | 17 min, AMD EPYC |
| meta_sgd_5shot_cpu | 99.93 +/- 0.09 | 99.46 +/- 0.05 | 10,000 of 60,000, 8 of 32    | 69 min, AMD EPYC |
| reptile_5shot_cpu  | 99.48 +/- 0.06 | 99.27 +/- 0.12 | 40,000 of 100,000, 5 of 5    | 73 min, AMD EPYC |

20 ways, accuracy on 1000 test tasks, times of an EPYC with AVX-512:

| method               | published      | measured       | meta-steps, tasks of paper's | time                 |
|----------------------|----------------|----------------|------------------------------|----------------------|
| maml_20way_cpu       | 95.8 +/- 0.3   | 92.69 +/- 0.35 | 5,000 of 60,000, 16 of 16    | 16 min, EPYC AVX-512 |
| fomaml_20way_cpu     | 89.4 +/- 0.5   | 88.61 +/- 0.43 | 5,000 of 60,000, 16 of 16    | 11 min, EPYC AVX-512 |
| meta_sgd_20way_cpu   | 95.93          | 94.12 +/- 0.32 | 5,000 of 60,000, 16 of 32    | 17 min, EPYC AVX-512 |
| reptile_20way_cpu    | 89.43 +/- 0.14 | 74.78 +/- 0.61 | 8,000 of 200,000, 5 of 5     | 19 min, EPYC AVX-512 |
| imaml_20way_cpu      | 94.46 +/- 0.42 | 64.30 +/- 0.68 | 1,500 of 20,000, 8 of 32     | 14 min, EPYC AVX-512 |
| maml_20way_5shot_cpu     | 98.9 +/- 0.2   | 96.91 +/- 0.13 | 3,000 of 60,000, 4 of 16     | 16 min, EPYC AVX-512 |
| fomaml_20way_5shot_cpu   | 97.9 +/- 0.1   | 95.93 +/- 0.14 | 3,000 of 60,000, 4 of 16     | 13 min, EPYC AVX-512 |
| meta_sgd_20way_5shot_cpu | 98.97          | 97.26 +/- 0.12 | 3,000 of 60,000, 4 of 32     | 15 min, EPYC AVX-512 |
| reptile_20way_5shot_cpu  | 97.12 +/- 0.32 | 91.77 +/- 0.39 | 8,000 of 200,000, 5 of 5     | 19 min, EPYC AVX-512 |
| imaml_hf_20way_cpu       | 96.18 +/- 0.36 | 47.51 +/- 0.69 | 350 of 20,000, 8 of 32       | 10 min, EPYC AVX-512 |
| imaml_hf_20way_5shot_cpu | 99.14 +/- 0.10 | 66.26 +/- 0.38 | 350 of 20,000, 8 of 32       | 10 min, EPYC AVX-512 |
| anil_20way_cpu           | 96.2 +/- 0.5   | 90.30 +/- 0.43 | 5,000 of 60,000, 16 of 16    | 17 min, EPYC AVX-512 |
| anil_20way_5shot_cpu     | 98.0 +/- 0.3   | 93.06 +/- 0.24 | 3,000 of 60,000, 4 of 16     | 16 min, EPYC AVX-512 |
| imaml_20way_5shot_cpu    | 98.69 +/- 0.10 | 84.90 +/- 0.27 | 1,500 of 20,000, 8 of 32     | 14 min, EPYC AVX-512 |

reptile_20way_5shot_cpu is trained as reptile_20way_cpu is, so its number is of that run, by python -m
experiments.evaluate --workdir=runs/omniglot/reptile_20way_cpu --set=data.shots=5 --name=5_shots. So are
imaml_20way_5shot_cpu and imaml_hf_20way_5shot_cpu as their rows of 1 shot, and imaml_hf_5shot_cpu, with
--set=data.queries=5 --num_tasks=1000 besides: trained with 5 shots, for 800 meta-steps of 4 tasks in 22 min
(--config.data.train_shots=5 --config.data.train_queries=5 --config.num_meta_steps=800 --config.tasks_per_step=4),
imaml_20way_5shot_cpu had 59.82 +/- 0.53.
MAML takes one inner step in training where its paper takes five: steps of
0.5, 1.0, 2.0 and 4.0 had 72.4, 74.1, 74.6 and 72.1 in training at the end of 500 meta-steps (maml_20way with
--config.inner.num_steps=1 --config.num_meta_steps=500 --config.tasks_per_step=8 --config.network.head_init=xavier
--config.optimizer.learning_rate=3e-3 --config.inner.learning_rate=2.0). FOMAML takes three of 1.0: in 600 meta-steps,
likewise, 70.3, with one 60.8, with one of 2.0 18.1, with five of 0.5 71.3.

5 ways by iMAML, 4000 test tasks (imaml_hf_5shot_cpu 1000):

| method               | published      | measured       | meta-steps, tasks of paper's | time                 |
|----------------------|----------------|----------------|------------------------------|----------------------|
| imaml_hf_cpu         | 99.50 +/- 0.26 | 89.97 +/- 0.45 | 4,000 of 20,000, 8 of 32     | 31 min, EPYC AVX-512 |
| imaml_hf_5shot_cpu   | 99.74 +/- 0.11 | 95.91 +/- 0.29 | 4,000 of 20,000, 8 of 32     | 31 min, EPYC AVX-512 |
| imaml_5shot_cpu      | 99.67 +/- 0.12 | 94.86 +/- 0.16 | 1,000 of 20,000, 8 of 32     | 12 min, EPYC AVX-512 |

20 ways, 1 shot, at equal meta-steps (1,000 of 4 tasks, 16 filters, 5 steps), 1000 test tasks, interval over 3 seeds:
python -m experiments.train --config=configs/omniglot.py:warp_maml_20way_small_cpu --seeds=0,1,2
--workdir=runs/warp_maml_20

| method                    | published, 60,000 of 16 tasks | measured      | time, one seed |
|---------------------------|-------------------------------|---------------|----------------|
| maml_20way_small_cpu      | 95.8 +/- 0.3                  | 57.6 +/- 10.5 | 2 min          |
| warp_maml_20way_small_cpu | -                             | 71.6 +/- 6.0  | 24 min         |

Warp-MAML minus MAML, paired by seed: +14.1 +/- 5.2. Inner steps of 0.5, a quarter of the paper's, as MAML learns less
with longer ones here: on seed 0 48.4 +/- 0.7 with 1.0, 43.3 +/- 0.7 with 2.0 (over 1000 tasks).

Drawings are made smaller by Lanczos, as in iMAML's released code; in MAML's and Reptile's they stay black
and white, since Pillow has no Lanczos for images of one bit: --config.data.resample=nearest.

All numbers are transductive: batch norm sees the query examples of a task together. With up to 25 of them, or when
asked, result.json has `support_plus_one` beside it, where each query example is classified with the support set alone,
as Reptile's numbers without transduction are, and always `support` and `running`, under the statistics of the support
set and of the inner steps:

| method                  | alone, published | alone, measured |
|-------------------------|------------------|-----------------|
| reptile_cpu             | 95.39 +/- 0.09   | 95.09 +/- 0.30  |
| reptile_5shot_cpu       | 98.90 +/- 0.10   | 98.58 +/- 0.17  |
| reptile_20way_cpu       | 88.14 +/- 0.15   | 72.76 +/- 0.61  |
| reptile_20way_5shot_cpu | 96.65 +/- 0.33   | 90.79 +/- 0.40  |

maml, fomaml: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2 and its released code. Its loss is a sum over
  the 5 examples divided by the shots, so its step size of 0.4 is 2.0 on the mean loss used here. One inner step in
  training, three at test, K query examples of each class, rotations for each class of a task at training and test,
  batch norm with an offset and no scale, which no task adapts. The recipes for CPU have half the step size (those that
  end in 20way_small_cpu a quarter), but maml_20way_cpu, maml_20way_5shot_cpu and maml_5shot_cpu the paper's, with
  which the last learns faster: 97.88 in training over meta-steps 2,501 to 3,000, 97.64 with
  --config.inner.learning_rate=1.0.
anil: Raghu et al. 2020, arXiv 1909.09157: the head alone adapts; the settings are MAML's, in the recipes for CPU with
  three inner steps in training. With 20 ways its paper's own MAML has 93.7 +/- 0.7 with 1 shot and 96.4 +/- 0.1 with 5,
  below those of MAML's paper.
meta_sgd: Li et al. 2017, arXiv 1707.09835, one inner step, step sizes from U(0.005, 0.1). The paper's network has
  max-pooling and a layer of 32 before the head; here it is MAML's, so that the methods compare, and so are the tasks a
  meta-step, the query examples and the optimizer, which the paper does not state. For the paper's network:
  --config.network.name=meta_sgd_omniglot --config.network.adapts=all. In meta_sgd_cpu the step sizes learn ten times
  faster than the network, at 3e-2: after 1,500 meta-steps 95.64 +/- 0.85 (--config.num_meta_steps=1500
  --config.eval.num_tasks=500), at the same rate 93.44 +/- 1.04 (--config.optimizer.rule_learning_rate=3e-3 too).
reptile: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, table 3: Adam at 1e-3 with b1 = 0, 5 steps of 10 out of 10
  shots, outer step 1 annealed to 0, 5 tasks a meta-step, rotated characters as further training classes, no rotation
  at test, 50 steps of 5 at test. Adam's moments go on from task to task, in each of the 5 places of a meta-step, and
  test tasks start from them (the mean over the places), as in the released code, which never resets them. With fresh
  moments at test (--config.eval.optimizer_state=fresh), whose first steps are all of one length, the same reptile_cpu
  had 95.71 +/- 0.29; with fresh moments in training too (--config.meta_gradient.carry_optimizer=False
  --config.eval.optimizer_state=fresh --config.num_meta_steps=16000) it had 82.9 on 400 test tasks.
reptile_serial: The same with one task a meta-step.
leap: Flennerhag et al. 2019, arXiv 1812.01054, has another Omniglot experiment; the step sizes here are ours.
imaml: Rajeswaran et al. 2019, arXiv 1909.04630, table 2: lambda = 2, 5 CG steps, 16 inner steps at 0.1, the paper's
  operator (I + H / lambda); --config.meta_gradient.operator=released for that of its released code, which differs: it
  halves the meta-gradient, beside the same eps of 1e-3 in Adam.
  Its released test permutes the characters by another seed than training, so that 73% of its test characters were
  trained on; whether the published numbers come from it is not known. It takes 16 plain steps, without the
  proximal term (--config.eval.prox=0). Its training takes 16 plain steps too, then moves a fifth of the way back to the
  initial parameters. Here the term is in every step, as in the paper's equation.
imaml_cpu: lambda = 0.5. At 2 (imaml with --config.tasks_per_step=8 --config.data.train_queries=5) the relative residual
  of the linear system passed 1 within 140 meta-steps and the accuracy stopped at 59, as 16 steps of 0.1 no longer
  solved the inner problem.
imaml_hf: The Hessian-free inner solver: 5 CG steps for the direction, then a line search; its 6 steps, and the damping
  of 5 that is added to the Hessian, are ours. From the initial parameters 8 steps (--config.num_meta_steps=1
  --config.inner.num_steps=8) leave an inner gradient of norm 0.44 with it, 1.32 without (--config.inner.damping=0.0),
  imaml's 16 steps one of 0.26. With 3 steps and no damping (--config.inner.num_steps=3 --config.inner.damping=0.0
  --config.num_meta_steps=120 --config.tasks_per_step=8 --config.optimizer.learning_rate=3e-3) the residual of the
  linear system stays above 3 and the accuracy in training below 46.
imaml_hf_cpu, imaml_hf_20way_cpu: lambda = 0.5 too. At 2 (--config.inner.prox=2.0) the accuracy of imaml_hf_cpu in
  training was 72 to 75 over meta-steps 1,400 to 2,460, where it is 84 to 88. At the end of 120
  (--config.num_meta_steps=120 --config.optimizer.schedule=constant) it was 59.3 with 2, 68.5 with 0.5, and with a
  damping of 2 besides 66.3. imaml_hf_20way_cpu had 37.90 +/- 0.67 with 2.
t_net: Lee and Choi 2018, arXiv 1801.05558: MAML with a linear warp (1x1 convolutions) after each block, unrolled.
warp_maml: Flennerhag et al. 2020, arXiv 1909.00025: MAML's inner loop with 3x3 warp-layers, which learn online from the
  identity (those of the released multi-shot code from random weights). For 20 ways at equal steps:
  --config.data.ways=20 here and for maml.
meta_lstm: Ravi and Larochelle 2017, "Optimization as a model for few-shot learning", which has no Omniglot experiment:
  the settings are those of mini-ImageNet's 1-shot tasks in its released code (32 filters, 12 steps on the whole support
  set, one task a meta-step, 15 queries of each class, gradient norm clipped at 0.25), on MAML's network for Omniglot.
  Gradients are held constant. meta_lstm_cpu has 16 filters, as its time goes into an LSTM step for every parameter,
  takes 5 steps, and learns the rule at 1e-2. Its budget bounds it: accuracy in training, 87.3, 87.7, 88.9, 89.2 over
  the third to the sixth thousand of meta-steps, still rose when the annealed step size ended it.
meta_curvature: Park and Oliva 2019, arXiv 1902.03356: MAML with a meta-learned preconditioner, a Kronecker product for
  every tensor. Its inner step size is MAML's. The budget bounds meta_curvature_cpu too: 99.36 in training over
  the last two thousand meta-steps (99.23 over the two before), no more than on new characters.
mamlpp: Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, and its released code, whose split is 1150, 50 and 423 (here
  1200 and 423) and whose step size ends at 1e-5 (here 0): a step size for every tensor and step from 0.1, 5 steps, the
  loss after each step annealed to the last one over 10 epochs of 500 meta-steps, 8 tasks a meta-step, cosine, rotations
  in training alone. Second order from the start, as released; the paper's annealing of the order is
  --config.meta_gradient.first_order_epochs=50. Batch norm has a scale and an offset for every step; its per-step
  statistics, which its code does not use, are --config.eval.norm_stats=per_step. The rest of the network is MAML's. The
  published number is as listed by Lian et al. 2020, without an interval.
"""

MAML = "Finn et al. 2017, arXiv 1703.03400"
ANIL = "Raghu et al. 2020, arXiv 1909.09157, table 2"
FOMAML = "Reported by Nichol et al. 2018, arXiv 1803.02999, with transduction"
MAMLPP = "Antoniou et al. 2019, arXiv 1810.09502, an ensemble of five checkpoints, as listed by Lian et al. 2020"
META_SGD = "Li et al. 2017, arXiv 1707.09835"
REPTILE = "Nichol et al. 2018, arXiv 1803.02999, with transduction"
IMAML = "Rajeswaran et al. 2019, arXiv 1909.04630, table 2"

COMMON = {
  "seed": 0,
  "num_meta_steps": 60_000,
  "tasks_per_step": 32,
  "checkpoint_every": 1_000,
  "steps_per_dispatch": 20,
  "task_chunk": 0,
  "data": {
    "name": "omniglot",
    "ways": 5,
    "shots": 1,
    "queries": 1,
    "train_shots": 0,
    "train_queries": 0,
    "split": "random_characters",
    "split_seed": 0,
    "rotations": "per_class",
    "test_rotations": "per_class",
    "invert": True,
  },
  "network": {"name": "maml_omniglot", "width": 64, "adapts": "all_but_norm"},
  "inner": {"rule": "sgd", "learning_rate": 2.0, "num_steps": 1},
  "meta_gradient": {"name": "unrolled"},
  "optimizer": {"name": "adam", "learning_rate": 1e-3},
  "eval": {"num_tasks": 4000, "num_steps": 3},
}

_REPTILE = {
  "num_meta_steps": 100_000,
  "tasks_per_step": 5,
  "data": {"train_shots": 10, "rotations": "as_classes", "test_rotations": "none", "invert": False},
  "network": {"name": "reptile_omniglot", "width": 64, "adapts": "all"},
  "inner": {
    "rule": "adam",
    "learning_rate": 1e-3,
    "b1": 0.0,
    "eps_root": 0.0,
    "num_steps": 5,
    "batch": "epochs",
    "batch_size": 10,
  },
  "meta_gradient": {"name": "reptile", "carry_optimizer": True},
  "optimizer": {"name": "sgd", "learning_rate": 1.0, "schedule": "linear"},
  "eval": {"num_steps": 50, "batch_size": 5, "optimizer_state": "trained"},
  "published": {"number": 0.9768, "interval": 0.0004, "source": REPTILE},
}

_IMAML = {
  "num_meta_steps": 20_000,
  "data": {"invert": False},
  "network": {"name": "imaml_omniglot", "width": 64, "adapts": "all"},
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 16, "prox": 2.0},
  "meta_gradient": {"name": "implicit", "operator": "paper", "solver_steps": 5},
  "optimizer": {"name": "adam", "learning_rate": 1e-3, "eps": 1e-3},
  "eval": {"num_steps": 16},
  "published": {"number": 0.9916, "interval": 0.0035, "source": IMAML},
}

METHODS = {
  "maml": {"published": {"number": 0.987, "interval": 0.004, "source": MAML}},
  "fomaml": {
    "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
    "published": {"number": 0.983, "interval": 0.005, "source": FOMAML},
  },
  "anil": {"network": {"adapts": "head"}},
  "meta_sgd": {
    "inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.1), "num_steps": 1},
    "eval": {"num_steps": 1},
    "published": {"number": 0.9953, "interval": 0.0026, "source": META_SGD},
  },
  "reptile": _REPTILE,
  "reptile_serial": {"base": "reptile", "tasks_per_step": 1, "published": None},
  "leap": {
    "network": {"name": "reptile_omniglot", "width": 64, "adapts": "all"},
    "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 5},
    "meta_gradient": {"name": "leap"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "eval": {"num_steps": 5},
  },
  "imaml": _IMAML,
  "imaml_hf": {
    **_IMAML,
    "inner": {"rule": "newton_cg", "cg_steps": 5, "damping": 5.0, "num_steps": 6, "prox": 2.0},
    "eval": {"num_steps": 6},
    "published": {"number": 0.995, "interval": 0.0026, "source": IMAML},
  },
  "t_net": {"network": {"warp": {"kind": "conv1x1", "identity_init": True}}},
  "warp_maml": {
    "network": {"warp": {"kind": "conv3x3", "identity_init": True}},
    "meta_gradient": {"name": "warp", "initial": "maml", "objective": "full"},
  },
  "meta_lstm": {
    "num_meta_steps": 75_000,
    "tasks_per_step": 1,
    "data": {"train_queries": 15},
    "network": {"width": 32},
    "inner": {"rule": "meta_lstm", "units": 20, "num_steps": 12},
    "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip_norm": 0.25},
    "eval": {"num_steps": 12},
  },
  "meta_curvature": {
    "inner": {"rule": "kronecker", "learning_rate": 2.0, "num_steps": 1},
    "eval": {"num_steps": 1},
  },
  "mamlpp": {
    "num_meta_steps": 50_000,
    "tasks_per_step": 8,
    "data": {"test_rotations": "none", "invert": False},
    "network": {"norm_scale": True, "adapts": "all"},
    "inner": {"rule": "per_step_sgd", "learning_rate": 0.1, "own_steps": 5, "per_step_norm": True, "num_steps": 5},
    "meta_gradient": {"name": "unrolled", "multi_step_epochs": 10, "steps_per_epoch": 500},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "cosine"},
    "eval": {"num_steps": 5},
    "published": {"number": 0.9947, "interval": 0.0, "source": MAMLPP},
  },
}

# Further shots and ways: what each paper changes, and its numbers.
METHODS |= {
  "_5shot": {"data": {"shots": 5, "queries": 5}},
  "_one_query": {"data": {"queries": 1}},
  "_20way": {"data": {"ways": 20}},
  # MAML's step size of 0.1 is on the sum over 20 classes: 2.0 on the mean, the same as its 0.4 is for 5.
  "_maml_20way": {"base": "_20way", "tasks_per_step": 16, "inner": {"num_steps": 5}, "eval": {"num_steps": 5}},
  "_reptile_20way": {
    "base": "_20way",
    "num_meta_steps": 200_000,
    "inner": {"learning_rate": 5e-4, "num_steps": 10, "batch_size": 20},
    "eval": {"batch_size": 10},
  },
  "_imaml_20way": {"base": "_20way", "inner": {"num_steps": 25}, "eval": {"num_steps": 25}},
  "maml_5shot": {"base": ("maml", "_5shot"), "published": {"number": 0.999, "interval": 0.001}},
  "fomaml_5shot": {"base": ("fomaml", "_5shot"), "published": {"number": 0.992, "interval": 0.002}},
  "meta_sgd_5shot": {"base": ("meta_sgd", "_5shot"), "published": {"number": 0.9993, "interval": 0.0009}},
  "reptile_5shot": {"base": ("reptile", "_5shot", "_one_query"), "published": {"number": 0.9948, "interval": 0.0006}},
  "imaml_5shot": {"base": ("imaml", "_5shot"), "published": {"number": 0.9967, "interval": 0.0012}},
  "imaml_hf_5shot": {"base": ("imaml_hf", "_5shot"), "published": {"number": 0.9974, "interval": 0.0011}},
  "mamlpp_5shot": {"base": ("mamlpp", "_5shot", "_one_query"), "published": {"number": 0.9993, "interval": 0.0}},
  "maml_20way": {"base": ("maml", "_maml_20way"), "published": {"number": 0.958, "interval": 0.003}},
  "fomaml_20way": {"base": ("fomaml", "_maml_20way"), "published": {"number": 0.894, "interval": 0.005}},
  "anil_20way": {
    "base": ("anil", "_maml_20way"),
    "published": {"number": 0.962, "interval": 0.005, "source": ANIL},
  },
  "meta_sgd_20way": {"base": ("meta_sgd", "_20way"), "published": {"number": 0.9593, "interval": 0.0}},
  "reptile_20way": {"base": ("reptile", "_reptile_20way"), "published": {"number": 0.8943, "interval": 0.0014}},
  "imaml_20way": {"base": ("imaml", "_imaml_20way"), "published": {"number": 0.9446, "interval": 0.0042}},
  "imaml_hf_20way": {"base": ("imaml_hf", "_20way"), "published": {"number": 0.9618, "interval": 0.0036}},
  "maml_20way_5shot": {"base": ("maml_20way", "_5shot"), "published": {"number": 0.989, "interval": 0.002}},
  "fomaml_20way_5shot": {"base": ("fomaml_20way", "_5shot"), "published": {"number": 0.979, "interval": 0.001}},
  "anil_20way_5shot": {"base": ("anil_20way", "_5shot"), "published": {"number": 0.98, "interval": 0.003}},
  "meta_sgd_20way_5shot": {"base": ("meta_sgd_20way", "_5shot"), "published": {"number": 0.9897, "interval": 0.0}},
  "reptile_20way_5shot": {
    "base": ("reptile_20way", "_5shot", "_one_query"),
    "published": {"number": 0.9712, "interval": 0.0032},
  },
  "imaml_20way_5shot": {"base": ("imaml_20way", "_5shot"), "published": {"number": 0.9869, "interval": 0.001}},
  "imaml_hf_20way_5shot": {"base": ("imaml_hf_20way", "_5shot"), "published": {"number": 0.9914, "interval": 0.001}},
}

# Recipes for one CPU core: fewer tasks a step, a smaller initial head, a larger annealed outer step.
METHODS |= {
  "_annealed": {"optimizer": {"learning_rate": 3e-3, "schedule": "cosine"}},
  "_cpu": {"base": "_annealed", "num_meta_steps": 14_000, "tasks_per_step": 16, "network": {"head_init": "xavier"}},
  "_half_steps": {"inner": {"learning_rate": 1.0}},
  # The paper's step sizes start near 0.05, twenty times below MAML's here, so the rule learns faster than the network.
  "_fast_rule": {"optimizer": {"rule_learning_rate": 3e-2}},
  "_1000_tasks": {"eval": {"num_tasks": 1000}},
  "_cpu_20way": {"base": ("_cpu", "_1000_tasks"), "num_meta_steps": 5_000},
  "_cpu_20way_5shot": {"base": "_cpu_20way", "num_meta_steps": 3_000, "tasks_per_step": 4},
  "_3_steps": {"inner": {"learning_rate": 1.0, "num_steps": 3}},
  "_1_step": {"inner": {"num_steps": 1}},
  "_cpu_imaml": {
    "base": "_annealed",
    "num_meta_steps": 4_000,
    "tasks_per_step": 8,
    "inner": {"prox": 0.5},
  },
  "_16_steps": {"base": "_1000_tasks", "num_meta_steps": 1_500, "inner": {"num_steps": 16}},
  # A task of 5 shots costs five: in equal time training with 1 shot brings iMAML further on 20 ways.
  "_trained_with_1_shot": {"base": "_1000_tasks", "data": {"train_shots": 1, "train_queries": 1}},
  "maml_cpu": {"base": ("maml", "_cpu", "_half_steps")},
  "fomaml_cpu": {"base": ("fomaml", "_cpu", "_half_steps"), "num_meta_steps": 30_000},
  "anil_cpu": {"base": ("anil", "_cpu", "_3_steps"), "num_meta_steps": 8_000},
  "meta_sgd_cpu": {"base": ("meta_sgd", "_cpu", "_fast_rule")},
  "reptile_cpu": {"base": "reptile", "num_meta_steps": 40_000},
  "imaml_cpu": {"base": ("imaml", "_cpu_imaml"), "data": {"train_queries": 5}},
  "meta_lstm_cpu": {
    "base": ("meta_lstm", "_cpu"),
    "num_meta_steps": 6_000,
    "tasks_per_step": 4,
    "task_chunk": 1,
    "data": {"train_queries": 5},
    "network": {"width": 16},
    "inner": {"num_steps": 5},
    "optimizer": {"rule_learning_rate": 1e-2, "clip_norm": 1.0},
    "eval": {"num_steps": 5},
  },
  "meta_curvature_cpu": {"base": ("meta_curvature", "_cpu", "_half_steps"), "num_meta_steps": 10_000},
  # A task of 5 shots costs five of 1 shot.
  "maml_5shot_cpu": {"base": ("maml_5shot", "_cpu"), "num_meta_steps": 28_000, "tasks_per_step": 4},
  "fomaml_5shot_cpu": {
    "base": ("fomaml_5shot", "_cpu", "_half_steps"),
    "num_meta_steps": 7_000,
    "tasks_per_step": 8,
  },
  "meta_sgd_5shot_cpu": {
    "base": ("meta_sgd_5shot", "_cpu", "_fast_rule"),
    "num_meta_steps": 10_000,
    "tasks_per_step": 8,
  },
  "reptile_5shot_cpu": {"base": "reptile_5shot", "num_meta_steps": 40_000},
  "imaml_hf_cpu": {"base": ("imaml_hf", "_cpu_imaml")},
  "imaml_hf_5shot_cpu": {"base": ("imaml_hf_5shot", "_cpu_imaml", "_trained_with_1_shot")},
  "imaml_hf_20way_cpu": {"base": ("imaml_hf_20way", "_cpu_imaml", "_1000_tasks"), "num_meta_steps": 350},
  "imaml_hf_20way_5shot_cpu": {
    "base": ("imaml_hf_20way_5shot", "_cpu_imaml", "_trained_with_1_shot"),
    "num_meta_steps": 350,
  },
  "imaml_5shot_cpu": {"base": ("imaml_5shot", "_cpu_imaml"), "num_meta_steps": 1_000},
  "imaml_20way_cpu": {"base": ("imaml_20way", "_cpu_imaml", "_16_steps")},
  "imaml_20way_5shot_cpu": {"base": ("imaml_20way_5shot", "_cpu_imaml", "_16_steps", "_trained_with_1_shot")},
  # One inner step in training where the paper has five: a quarter of the time, and as good after 4,000 tasks.
  "maml_20way_cpu": {"base": ("maml_20way", "_cpu_20way", "_1_step")},
  "fomaml_20way_cpu": {"base": ("fomaml_20way", "_cpu_20way", "_3_steps")},
  "meta_sgd_20way_cpu": {"base": ("meta_sgd_20way", "_cpu_20way", "_fast_rule")},
  "anil_20way_cpu": {"base": ("anil_20way", "_cpu_20way", "_3_steps")},
  "reptile_20way_cpu": {"base": ("reptile_20way", "_1000_tasks"), "num_meta_steps": 8_000},
  "anil_20way_5shot_cpu": {"base": ("anil_20way_5shot", "_cpu_20way_5shot", "_3_steps")},
  "maml_20way_5shot_cpu": {"base": ("maml_20way_5shot", "_cpu_20way_5shot", "_1_step")},
  "fomaml_20way_5shot_cpu": {"base": ("fomaml_20way_5shot", "_cpu_20way_5shot", "_3_steps")},
  "meta_sgd_20way_5shot_cpu": {"base": ("meta_sgd_20way_5shot", "_cpu_20way_5shot", "_fast_rule")},
  "reptile_20way_5shot_cpu": {"base": ("reptile_20way_5shot", "_1000_tasks"), "num_meta_steps": 8_000},
  # Two methods at equal meta-steps on 20 ways; a warp's step costs twelve of MAML's at this width.
  "_small": {
    "base": "_annealed",
    "num_meta_steps": 1_000,
    "tasks_per_step": 4,
    "checkpoint_every": 100,
    "data": {"ways": 20},
    "network": {"head_init": "xavier", "width": 16},
    "inner": {"learning_rate": 0.5, "num_steps": 5},
    "eval": {"num_tasks": 1000, "num_steps": 5},
  },
  "maml_20way_small_cpu": {"base": ("maml", "_small"), "published": {"number": 0.958, "interval": 0.003}},
  "warp_maml_20way_small_cpu": {"base": ("warp_maml", "_small")},
}
