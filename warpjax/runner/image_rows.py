"""The rows that mini-ImageNet, tiered-ImageNet, CIFAR-FS and FC100 share: the papers' settings, and a strict protocol.

Step sizes and bounds are for mean losses. MAML's released loss is a sum over the examples divided by the shots: its
inner step of 0.01 is `ways` times that here, 0.05, and its bound of 10 on each element of the meta-gradient is 10
divided by the ratio of its outer loss to the mean, `ways * train_queries / shots`.
"""

from __future__ import annotations

from collections.abc import Mapping

from warpjax.runner import rows

Number = tuple[float, float, str]
"""A published accuracy, its interval (0 for none), and where from."""

WAYS, TRAIN_QUERIES = 5, 15
FIVE_SHOT = "_5shot"


def common(data: str) -> rows.Table:
  """MAML's settings for `data`, 5-way 1-shot, which every method starts from."""
  return {
    "seed": 0,
    "num_meta_steps": 60_000,
    "tasks_per_step": 4,
    "checkpoint_every": 1_000,
    "steps_per_dispatch": 20,
    "task_chunk": 0,
    "data": {
      "name": data,
      "ways": WAYS,
      "shots": 1,
      "queries": 1,
      "train_shots": 0,
      "train_queries": TRAIN_QUERIES,
      "rotations": "none",
      "test_rotations": "none",
      "augmentation": (),
      "require_complete": False,
    },
    "network": {"name": "maml_mini_imagenet", "width": 32, "adapts": "all_but_norm"},
    "inner": {"rule": "sgd", "learning_rate": 0.05, "num_steps": 5},
    "meta_gradient": {"name": "unrolled"},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip": _clip(1)},
    "eval": {"num_tasks": 600, "num_steps": 10, "norm_stats": "transductive"},
  }


def methods(published: Mapping[str, Number]) -> dict[str, rows.Table]:
  """The rows: each method with 1 shot and with 5 (`maml_5shot`), each also strict (`maml_strict`).

  Args:
    published: Numbers of rows, by name; none is of the strict protocol.

  Returns:
    Rows for `rows.select`.
  """
  five = {f"{name}{FIVE_SHOT}": _with_five_shots(name, row) for name, row in _ONE_SHOT.items()}
  numbers = {
    name: {"published": {"number": number, "interval": interval, "source": source}}
    for name, (number, interval, source) in published.items()
  }
  found = {name: {**row, **numbers.get(name, {})} for name, row in {**_ONE_SHOT, **five}.items()}
  bare = {name: rows.unpublished(row) for name, row in found.items()}
  return found | rows.resized(bare, dict.fromkeys(bare, STRICT), suffix="_strict")


def _with_five_shots(name: str, row: rows.Table) -> rows.Table:
  return rows.lay_over(rows.lay_over(row, _FIVE), _FIVE_OF.get(name, {}))


def _clip(shots: int) -> float:
  return 10 * shots / (WAYS * TRAIN_QUERIES)


# No query example sees another, the checkpoint is chosen by validation tasks, 15 queries for each class; with
# --seeds=0,1,2 the interval is over seeds.
STRICT: rows.Table = {
  "data": {"queries": 15},
  "eval": {"norm_stats": "support", "num_tasks": 1_000, "val_tasks": 300},
}

_ADAM_B1_0: rows.Table = {"rule": "adam", "learning_rate": 1e-3, "b1": 0.0, "eps_root": 0.0, "num_steps": 8}
_REPTILE: rows.Table = {
  "num_meta_steps": 100_000,
  "tasks_per_step": 5,
  "data": {"train_shots": 15, "train_queries": 1},
  "network": {"name": "reptile_mini_imagenet", "width": 32, "adapts": "all"},
  "inner": {**_ADAM_B1_0, "batch": "epochs", "batch_size": 10},
  "meta_gradient": {"name": "reptile", "carry_optimizer": True},
  "optimizer": {"name": "sgd", "learning_rate": 1.0, "schedule": "linear"},
  "eval": {"num_steps": 50, "batch_size": 5, "optimizer_state": "trained"},
}
_IMAML: rows.Table = {
  "network": {"name": "maml_mini_imagenet", "width": 32, "adapts": "all"},
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 10, "prox": 0.5},
  "meta_gradient": {"name": "implicit", "operator": "paper", "solver_steps": 5},
  "optimizer": {"name": "adam", "learning_rate": 1e-3},
}
_WARP: rows.Table = {"name": "warpgrad_mini_imagenet", "width": 64, "warp": {"kind": "conv3x3", "identity_init": True}}
_WARP_MAML: rows.Table = {
  "tasks_per_step": 1,
  "data": {"queries": 15},
  "network": _WARP,
  "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 5},
  "meta_gradient": {"name": "warp", "initial": "maml", "objective": "full"},
  "optimizer": {"name": "adam", "learning_rate": 1e-3},
  "eval": {"num_steps": 5},
}
_RESNET: rows.Table = {
  "network": {"name": "resnet12", "drop_rate": 0.1, "adapts": "all"},
  "data": {"queries": 15, "augmentation": ("crop", "flip", "colour")},
}

_ONE_SHOT: dict[str, rows.Table] = {
  "maml": {},
  "fomaml": {"meta_gradient": {"name": "unrolled", "derivative": "first_order"}},
  "anil": {"network": {"adapts": "head"}},
  "meta_sgd": {"inner": {"rule": "meta_sgd", "learning_rate": (0.005, 0.1), "num_steps": 1}, "eval": {"num_steps": 1}},
  "reptile": _REPTILE,
  "leap": {
    "network": {"name": "reptile_mini_imagenet", "width": 32, "adapts": "all"},
    "inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 5},
    "meta_gradient": {"name": "leap"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "eval": {"num_steps": 5},
  },
  "imaml": _IMAML,
  "imaml_hf": {
    **_IMAML,
    "inner": {"rule": "newton_cg", "cg_steps": 5, "num_steps": 3, "prox": 0.5},
    "eval": {"num_steps": 3},
  },
  "t_net": {"network": {"warp": {"kind": "conv1x1", "identity_init": True}}},
  "warp_maml": _WARP_MAML,
  "warp_leap_online": {**_WARP_MAML, "meta_gradient": {"name": "warp", "initial": "leap", "objective": "full"}},
  # The tasks of warp_leap_online, four at a time.
  "warp_leap_offline": {
    **_WARP_MAML,
    "num_meta_steps": 15_000,
    "tasks_per_step": 4,
    "meta_gradient": {"name": "warp_offline", "initial": "leap", "objective": "full", "eta": 1},
  },
  "meta_lstm": {
    "num_meta_steps": 75_000,
    "tasks_per_step": 1,
    "data": {"queries": 15},
    "network": {"name": "maml_mini_imagenet", "width": 32, "norm_scale": True, "adapts": "all"},
    "inner": {"rule": "meta_lstm", "units": 20, "num_steps": 12},
    "meta_gradient": {"name": "unrolled", "derivative": "first_order"},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip_norm": 0.25},
    "eval": {"num_steps": 12, "norm_stats": "support"},
  },
  "meta_curvature": {"inner": {"rule": "kronecker", "learning_rate": 0.05, "num_steps": 5}},
  "mamlpp": {
    "num_meta_steps": 50_000,
    "tasks_per_step": 2,
    "checkpoint_every": 500,
    "data": {"queries": 15},
    "network": {"name": "mamlpp_mini_imagenet", "width": 48, "adapts": "all"},
    "inner": {"rule": "per_step_sgd", "learning_rate": 0.1, "own_steps": 5, "per_step_norm": True, "num_steps": 5},
    "meta_gradient": {"name": "unrolled", "multi_step_epochs": 15, "steps_per_epoch": 500},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "clip": 10.0},
    "eval": {"num_steps": 5, "val_tasks": 600},
  },
  "maml_48": {"network": {"name": "mamlpp_mini_imagenet", "width": 48, "adapts": "all_but_norm"}},
  "maml_resnet12": _RESNET,
  "warp_maml_resnet12": {
    **_WARP_MAML,
    **_RESNET,
    "network": {**_RESNET["network"], "warp": {"kind": "conv3x3", "identity_init": True}},
  },
}
_FIVE: rows.Table = {"data": {"shots": 5, "queries": 5}}
_UNROLLED_FIVE: rows.Table = {"tasks_per_step": 2, "optimizer": {"clip": _clip(5)}}
_FIFTEEN: rows.Table = {"data": {"queries": 15}}
_FIVE_OF: dict[str, rows.Table] = {
  **dict.fromkeys(("maml", "fomaml", "anil", "t_net", "meta_curvature", "maml_48"), _UNROLLED_FIVE),
  # Its paper trains these with one shot.
  "meta_sgd": {"data": {"train_shots": 1}},
  "reptile": {"data": {"queries": 1}, "eval": {"batch_size": 15}},
  **dict.fromkeys(("warp_maml", "warp_leap_online", "warp_leap_offline", "mamlpp", "warp_maml_resnet12"), _FIFTEEN),
  "meta_lstm": {**_FIFTEEN, "num_meta_steps": 50_000, "inner": {"num_steps": 8}, "eval": {"num_steps": 8}},
  "maml_resnet12": {**_UNROLLED_FIVE, **_FIFTEEN},
}
