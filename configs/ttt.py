"""Test-time training: a byte-level transformer that learns from the text it reads, meta-trained end to end.

Method: Tandon et al. 2025, arXiv 2512.23675, at the size of a CPU core. A task is 2,048 bytes in 16 chunks of 128.
Inner step k is SGD on chunk k, and the meta-loss is the mean over chunks of the next-byte loss on chunk k before the
step on it. The network has 4 blocks of width 128, rotary positions, and attention over 64 bytes; it sees the 64 bytes
before a chunk. The MLP of the last block adapts, and all else is shared. There is no clipping of inner gradients.
The inner step of 3 is the best of 0.3, 1 and 3 for `end_to_end`, by validation after 100 meta-steps.

Text: any file, --data_dir=FILE. Ours is the King James Bible of Debian's package bible-kjv (with bible-kjv-text), both
in the public domain: bible 'gen1:1-rev22:21' > kjv.txt
The last tenth is for tests, in stretches that do not overlap, and the twentieth before it for validation. `per_step` in
a result has the bits per byte by position: entry k is that of chunk k after k steps, before the step on it.

Command: python -m experiments.ttt --workdir=runs/ttt --data_dir=kjv.txt
It trains 3 seeds of each row, prints the comparison by position with its intervals, and draws it. A single run:
  python -m experiments.train --config=configs/ttt.py:end_to_end --data_dir=kjv.txt --workdir=runs/ttt/end_to_end/seed_0

no_adaptation: The same network, trained and tested with 0 steps.
in_the_test: Trained as no_adaptation is; it adapts only in the test.
first_order: Inner gradients are held constant in the meta-gradient.
warp: Linear warp-layers around the MLP that adapts, which start as the identity (WarpGrad's preconditioner).
"""

FIRST_ORDER = {"name": "unrolled", "derivative": "first_order", "online": True}

COMMON = {
  "seed": 0,
  "num_meta_steps": 1_200,
  "tasks_per_step": 4,
  "checkpoint_every": 50,
  "steps_per_dispatch": 10,
  "task_chunk": 1,
  "data": {"name": "text", "num_chunks": 16, "chunk": 128, "context": 64, "train_adapts": True, "test_adapts": True},
  "network": {"name": "transformer", "num_blocks": 4, "width": 128, "num_heads": 4, "hidden": 512, "window": 64},
  "inner": {"rule": "sgd", "learning_rate": 3.0, "num_steps": 16},
  "meta_gradient": {"name": "unrolled", "derivative": "reverse", "online": True},
  "optimizer": {"name": "adam", "learning_rate": 2e-3, "clip_norm": 1.0, "schedule": "cosine"},
  "eval": {"num_tasks": 200, "num_steps": 15},
}

METHODS = {
  "end_to_end": {},
  "no_adaptation": {"data": {"train_adapts": False, "test_adapts": False}, "meta_gradient": FIRST_ORDER},
  "in_the_test": {"data": {"train_adapts": False}, "meta_gradient": FIRST_ORDER},
  "first_order": {"meta_gradient": FIRST_ORDER},
  "warp": {"network": {"warp": {"kind": "linear", "identity_init": True}}},
}
