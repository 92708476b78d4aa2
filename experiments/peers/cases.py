"""The work that every peer does: sizes, data and initial parameters, in NumPy, the same for all of them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from warpjax.processor import cores as cores

Arrays = dict[str, np.ndarray]

NUM_BLOCKS, HIDDEN, NORM_EPSILON = 4, (40, 40), 1e-3
OUTER_LEARNING_RATE = 1e-3
"""The step size of MAML's Adam."""
OUTER_SGD = {"leap": 0.1, "warp": 0.001}
"""The outer learning rates of the other two."""


class Architecture(NamedTuple):
  """A network of four blocks with its paper's fields, named as those of `warpjax.networks.Conv4`, and its images."""

  image: tuple[int, int, int]
  layers: tuple[str, ...]
  strides: int
  readout: str
  conv_bias: bool
  norm_scale: bool
  norm_epsilon: float

  def fields(self) -> dict[str, Any]:
    """The fields of the network."""
    return {name: value for name, value in self._asdict().items() if name != "image"}


ARCHITECTURES = {
  "conv4": Architecture((28, 28, 1), ("conv", "norm", "relu"), 2, "mean", False, False, NORM_EPSILON),
  "mini": Architecture((84, 84, 3), ("conv", "norm", "relu", "pool"), 1, "flatten", False, False, NORM_EPSILON),
  "multi_shot": Architecture((28, 28, 1), ("conv", "pool", "norm", "relu"), 1, "flatten", True, True, 1e-5),
}


class Case(NamedTuple):
  """One meta-step in float32.

  `maml` adapts by SGD to each task's support set and takes the exact gradient of the mean query loss. `leap` adapts
  by SGD to a minibatch at a time and shortens the path. `warp` does the same, keeps every iterate and then updates the
  warp-layers once from each of them, in a random order.

  Attributes:
    name: Name of the case.
    title: Its line in a table.
    method: "maml", "leap" or "warp", WarpGrad's Algorithm 2.
    network: "mlp" (1-40-40-1), or one of `ARCHITECTURES`: MAML's for Omniglot and mini-ImageNet, WarpGrad's.
    num_tasks: Tasks in the meta-step.
    support: Examples of an inner step.
    query: Examples of the meta-loss.
    num_steps: Inner steps.
    peers: The peers of warpjax as README writes it; the times of the others are compared with the first.
    ways: Classes.
    width: Filters.
    learning_rate: Step size of the inner steps.
    warp: Whether a 3x3 convolution that no task adapts follows each block.
    objective: Objective of the warp-layers: "full", of second order, or "first_order".
    order: The iterates in the order of their updates.
    precision: Precision of products on a GPU: "tf32", which JAX and PyTorch's convolutions take by default; "float32";
      or "bfloat16", operands rounded to it, on a CPU too.
    lowering: Lowering of warpjax's convolutions.
  """

  name: str
  title: str
  method: Literal["maml", "leap", "warp"]
  network: str
  num_tasks: int
  support: int
  query: int
  num_steps: int
  peers: tuple[str, ...]
  ways: int = 5
  width: int = 64
  learning_rate: float = 0.1
  warp: bool = False
  objective: Literal["full", "first_order"] = "full"
  order: tuple[int, ...] = ()
  precision: Literal["float32", "tf32", "bfloat16"] = "tf32"
  lowering: Literal["auto", "patches", "lax"] = "auto"


TORCH = ("torch", "torch_full", "torch_func", "higher", "torchopt")
MAML_BY = ("torch", "torch_func", "higher", "torchopt")
CORES = ("warpjax_cores", "warpjax_bfloat16", "warpjax_cores_bfloat16")
ONE_TASK = ("warpjax_bfloat16",)


def _multi_shot() -> list[Case]:
  # A hundredth of the recipe's step: 100 larger steps on noise amplify the rounding of single precision.
  common: dict[str, Any] = {"network": "multi_shot", "num_tasks": 1, "ways": 20, "learning_rate": 0.001}
  common |= {"support": 20, "query": 20, "num_steps": 100}
  cases = []
  for width in (16, 64):
    about, kept = f"{width} filters, 100 steps of 20 images", {**common, "width": width}
    peers, warp = ("torch", *ONE_TASK), {**kept, "warp": True}
    second_order = ("torch_full",) if width == 16 else ()  # with 64 filters it takes half a minute
    first, full = "Offline warp", "Offline warp, ours of second order"
    cases += [
      Case(f"leap_{width}", f"Leap, {about}", "leap", peers=peers, **kept),
      Case(f"warp_first_order_{width}", f"{first}, {about}", "warp", peers=peers, objective="first_order", **warp),
      Case(f"warp_full_{width}", f"{full}, {about}", "warp", peers=(*peers, *second_order), **warp),
    ]
  return cases


_FEW_SHOT = ("torch", *CORES)
CASES = {
  case.name: case
  for case in (
    Case("omniglot_5", "MAML Omniglot, 64 filters, 32 tasks, 5 steps", "maml", "conv4", 32, 5, 75, 5, _FEW_SHOT),
    Case("omniglot_1", "MAML Omniglot, 64 filters, 32 tasks, 1 step", "maml", "conv4", 32, 5, 75, 1, _FEW_SHOT),
    Case(
      *("mini_5", "MAML mini-ImageNet, 32 filters, 2 tasks, 5 steps", "maml", "mini", 2, 5, 75, 5, _FEW_SHOT),
      width=32,
      learning_rate=0.01,
    ),
    Case(
      *("mini_1", "MAML mini-ImageNet, 32 filters, 2 tasks, 1 step", "maml", "mini", 2, 5, 75, 1, _FEW_SHOT),
      width=32,
      learning_rate=0.01,
    ),
    *_multi_shot(),
    Case(
      *("warp_maml", "MAML Omniglot, 20 ways, 16 filters, 4 tasks, 5 steps", "maml", "conv4", 4, 20, 20, 5),
      *(("warp_maml",), 20, 16, 0.5),
    ),
    Case("sine", "Sines, MLP 40-40, 25 tasks, 1 step", "maml", "mlp", 25, 10, 10, 1, MAML_BY, learning_rate=0.01),
    Case(
      *("long", "MAML Omniglot, 64 filters, 1 task of 25 images, 64 steps", "maml", "conv4", 1, 25, 25, 64),
      ("torch", "higher", "torchopt", "reverse"),
      learning_rate=0.01,
    ),
    Case("flax", "MAML Omniglot, 64 filters, 8 tasks, 1 step", "maml", "conv4", 8, 5, 75, 1, ("flax",)),
    Case("flax_32", "MAML Omniglot, 64 filters, 32 tasks, 1 step", "maml", "conv4", 32, 5, 75, 1, ("flax",)),
  )
}


def smaller(case: Case) -> Case:
  """The case shrunk to seconds, for a test of the program."""
  width = case.width if case.network == "mlp" else 4
  query = min(case.query, 2 * case.ways)
  return case._replace(num_tasks=min(case.num_tasks, 2), query=query, num_steps=min(case.num_steps, 3), width=width)


def tasks(case: Case) -> Arrays:
  """`support_x`, `support_y`, `query_x`, `query_y`, leaves `[num_tasks, examples, ...]`; images NHWC.

  The support set of `leap` and `warp` has a minibatch for each inner step and one more, for the loss at the end:
  `[num_tasks, num_steps + 1, examples, ...]`.
  """
  rng = np.random.default_rng(0)
  arrays: Arrays = {}
  batches = () if case.method == "maml" else (case.num_steps + 1,)
  for part, count in (("support", (*batches, case.support)), ("query", (case.query,))):
    lead = (case.num_tasks, *count)
    if case.network == "mlp":
      phase, x = rng.uniform(0, np.pi, (case.num_tasks, 1, 1)), rng.uniform(-5, 5, (*lead, 1))
      arrays[f"{part}_x"], arrays[f"{part}_y"] = x.astype(np.float32), np.sin(x + phase).astype(np.float32)
    else:
      arrays[f"{part}_x"] = rng.random((*lead, *ARCHITECTURES[case.network].image), np.float32)
      labels = np.arange(count[-1]) % case.ways
      arrays[f"{part}_y"] = np.broadcast_to(labels, lead).astype(np.int32)
  return arrays


def parameters(case: Case) -> dict[str, Arrays]:
  """Initial parameters by layer, as flax names and lays them out: kernels HWIO and `[inputs, outputs]`."""
  rng = np.random.default_rng(1)

  def layer(*shape: int, bias: bool = True) -> Arrays:
    kernel = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
    return {"kernel": kernel, **({"bias": np.zeros(shape[-1], np.float32)} if bias else {})}

  if case.network == "mlp":
    widths = (1, *HIDDEN)
    layers = {f"dense_{i}": layer(n, m) for i, (n, m) in enumerate(zip(widths[:-1], widths[1:], strict=True))}
    return layers | {"head": layer(HIDDEN[-1], 1)}
  made, size, width = ARCHITECTURES[case.network], ARCHITECTURES[case.network].image[0], case.width
  layers = {}
  for i in range(NUM_BLOCKS):
    layers[f"conv_{i}"] = layer(3, 3, width if i else made.image[2], width, bias=made.conv_bias)
    layers[f"norm_{i}"] = {"bias": np.zeros(width, np.float32)}
    if made.norm_scale:
      layers[f"norm_{i}"]["scale"] = np.ones(width, np.float32)
    if case.warp:
      layers[f"warp_{i}"] = layer(3, 3, width, width)
    size = -(-size // made.strides) // (2 if "pool" in made.layers else 1)
  features = width if made.readout == "mean" else size**2 * width
  return layers | {"head": layer(features, case.ways)}
