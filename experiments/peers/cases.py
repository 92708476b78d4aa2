"""The work that every peer does: sizes, data and initial parameters, in NumPy, the same for all of them."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

IMAGE_SIZE, NUM_BLOCKS, NORM_EPSILON = 28, 4, 1e-3
HIDDEN = (40, 40)
OUTER_LEARNING_RATE = 1e-3


class Case(NamedTuple):
  """One MAML meta-step in float32: adapt by SGD to each task, mean query loss, its exact gradient, one Adam step.

  Attributes:
    name: Of the case.
    network: "conv4" (MAML's Omniglot net: [3x3 conv stride 2, batch norm, ReLU] x 4, mean, head) or "mlp" (1-40-40-1).
    num_tasks: Tasks in the meta-step.
    support: Examples that are adapted on, all of them at each inner step.
    query: Examples of the meta-loss.
    num_steps: Inner steps.
    peers: Who takes part besides warpjax.
    ways: Classes.
    width: Filters.
    learning_rate: Of the inner steps.
    precision: Of products on a GPU: "tf32", which JAX and PyTorch's convolutions take by default; "float32"; or
      "bfloat16", operands rounded to it, on a CPU too.
    lowering: Of warpjax's convolutions.
  """

  name: str
  network: str
  num_tasks: int
  support: int
  query: int
  num_steps: int
  peers: tuple[str, ...]
  ways: int = 5
  width: int = 64
  learning_rate: float = 0.1
  precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
  lowering: Literal["auto", "patches", "lax"] = "auto"


TORCH = ("torch", "torch_func", "higher", "torchopt")
CASES = {
  case.name: case
  for case in (
    Case("omniglot_5", "conv4", 32, 5, 75, 5, ("torch", "higher", "torchopt")),
    Case("omniglot_1", "conv4", 32, 5, 75, 1, ("torch", "higher", "torchopt")),
    Case("sine", "mlp", 25, 10, 10, 1, TORCH, learning_rate=0.01),
    Case("long", "conv4", 1, 25, 25, 64, ("torch", "higher", "torchopt", "reverse"), learning_rate=0.01),
    Case("flax", "conv4", 8, 5, 75, 1, ("flax",)),
    Case("flax_32", "conv4", 32, 5, 75, 1, ("flax",)),
  )
}


def cores() -> int:
  """How many cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def smaller(case: Case) -> Case:
  """The case shrunk to seconds, for a test of the program."""
  width = 4 if case.network == "conv4" else case.width
  query = min(case.query, 2 * case.ways)
  return case._replace(num_tasks=min(case.num_tasks, 2), query=query, num_steps=min(case.num_steps, 3), width=width)


def tasks(case: Case) -> Arrays:
  """`support_x`, `support_y`, `query_x`, `query_y`, leaves `[num_tasks, examples, ...]`; images NHWC."""
  rng = np.random.default_rng(0)
  arrays: Arrays = {}
  for part, count in (("support", case.support), ("query", case.query)):
    if case.network == "mlp":
      phase, x = rng.uniform(0, np.pi, (case.num_tasks, 1, 1)), rng.uniform(-5, 5, (case.num_tasks, count, 1))
      arrays[f"{part}_x"], arrays[f"{part}_y"] = x.astype(np.float32), np.sin(x + phase).astype(np.float32)
    else:
      shape = (case.num_tasks, count, IMAGE_SIZE, IMAGE_SIZE, 1)
      arrays[f"{part}_x"] = rng.random(shape, np.float32)
      arrays[f"{part}_y"] = np.tile(np.arange(count) % case.ways, (case.num_tasks, 1)).astype(np.int32)
  return arrays


def parameters(case: Case) -> dict[str, Arrays]:
  """Initial parameters by layer, as flax names and lays them out: kernels HWIO and `[inputs, outputs]`."""
  rng = np.random.default_rng(1)

  def kernel(*shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

  if case.network == "mlp":
    widths = (1, *HIDDEN)
    layers = {
      f"dense_{i}": {"kernel": kernel(n, m), "bias": np.zeros(m, np.float32)}
      for i, (n, m) in enumerate(zip(widths[:-1], widths[1:], strict=True))
    }
    return layers | {"head": {"kernel": kernel(HIDDEN[-1], 1), "bias": np.zeros(1, np.float32)}}
  layers = {}
  for i in range(NUM_BLOCKS):
    layers[f"conv_{i}"] = {"kernel": kernel(3, 3, case.width if i else 1, case.width)}
    layers[f"norm_{i}"] = {"bias": np.zeros(case.width, np.float32)}
  return layers | {"head": {"kernel": kernel(case.width, case.ways), "bias": np.zeros(case.ways, np.float32)}}
