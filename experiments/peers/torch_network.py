"""The cases' networks and tasks in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from experiments.peers import cases
from experiments.peers.cases import Case

Params = dict[str, torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]


class Layer(torch.nn.Module):
  """Holds the parameters of one layer; `higher` cannot take a bare `torch.nn.Module`."""


class Network(torch.nn.Module):
  """Any case's network, as a module whose parameters are named as in `cases.parameters`, dots in place of slashes."""

  scale: torch.Tensor

  def __init__(self, case: Case):
    super().__init__()
    self.case, self.made = case, cases.ARCHITECTURES.get(case.network)
    for layer, leaves in cases.parameters(case).items():
      module = Layer()
      for name, value in leaves.items():
        module.register_parameter(name, torch.nn.Parameter(self._laid_out(layer, value)))
      self.add_module(layer, module)
    # The second derivative of batch norm fails without a scale, so there is one that nothing learns.
    self.register_buffer("scale", torch.ones(case.width))

  def _laid_out(self, layer: str, value: Any) -> torch.Tensor:
    """The array as PyTorch has it: kernels OIHW, in memory as images are, and the inputs of the head CHW."""
    if value.ndim == 4:
      return torch.tensor(value.transpose(3, 2, 0, 1)).contiguous(memory_format=torch.channels_last)
    if layer == "head" and value.ndim == 2 and self.made is not None and self.made.readout == "flatten":
      size = round((len(value) / self.case.width) ** 0.5)
      value = value.reshape(size, size, self.case.width, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    return torch.tensor(value)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Logits `[examples, ways]` of images NCHW, or predictions `[examples, 1]`."""
    layers: Any = self._modules
    if self.made is None:
      for i in range(len(cases.HIDDEN)):
        x = F.relu(x @ layers[f"dense_{i}"].kernel + layers[f"dense_{i}"].bias)
    else:
      for i in range(cases.NUM_BLOCKS):
        for kind in self.made.layers:
          x = self._layer(kind, layers, i, x)
        if self.case.warp:
          x = F.conv2d(x, layers[f"warp_{i}"].kernel, layers[f"warp_{i}"].bias, padding=1)
      x = x.mean((2, 3)) if self.made.readout == "mean" else x.flatten(1)
    return x @ layers["head"].kernel + layers["head"].bias

  def _layer(self, kind: str, layers: Any, index: int, x: torch.Tensor) -> torch.Tensor:
    assert self.made is not None
    if kind == "conv":
      layer, strides = layers[f"conv_{index}"], self.made.strides
      low, high = _same(x.shape[-1], strides)
      x = x if low == high else F.pad(x, (low, high, low, high))
      bias = layer.bias if self.made.conv_bias else None
      return F.conv2d(x, layer.kernel, bias, stride=strides, padding=low if low == high else 0)
    if kind == "norm":
      layer = layers[f"norm_{index}"]
      scale = layer.scale if self.made.norm_scale else self.scale
      return F.batch_norm(x, None, None, scale, layer.bias, training=True, eps=self.made.norm_epsilon)
    return F.relu(x) if kind == "relu" else F.max_pool2d(x, 2)

  def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, or mean squared error."""
    return loss_of(self.case, self(x), y)


def _same(size: int, strides: int) -> tuple[int, int]:
  """The zeros that "SAME" puts before and after each row of an image for a 3x3 kernel."""
  total = max((-(-size // strides) - 1) * strides + 3 - size, 0)
  return total // 2, total - total // 2


def loss_of(case: Case, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
  """Mean cross-entropy, or mean squared error."""
  return F.mse_loss(outputs, y) if case.network == "mlp" else F.cross_entropy(outputs, y)


def device(case: Case) -> torch.device:
  """A GPU if there is one, its products of the case's precision."""
  if not torch.cuda.is_available():
    return torch.device("cpu")
  # TF32 is what JAX has by default, and torch itself for convolutions.
  torch.set_float32_matmul_precision("highest" if case.precision == "float32" else "high")
  torch.backends.cudnn.allow_tf32 = case.precision != "float32"
  return torch.device("cuda")


def finish(where: torch.device) -> None:
  """Waits for the device."""
  if where.type == "cuda":
    torch.cuda.synchronize()


def facts(where: torch.device) -> dict[str, Any]:
  """The version and the device."""
  name = torch.cuda.get_device_name() if where.type == "cuda" else "cpu"
  return {"version": torch.__version__, "device": name}


def tasks(case: Case, where: torch.device) -> tuple[Batch, Batch]:
  """The support and the query sets of all tasks, images NCHW, in memory NHWC, which is faster on CPUs."""
  arrays = cases.tasks(case)

  def tensor(name: str) -> torch.Tensor:
    value = torch.tensor(arrays[name], device=where)
    images = case.network != "mlp" and name.endswith("x")
    value = value.movedim(-1, -3) if images else value
    return value.long() if value.dtype == torch.int32 else value

  return (tensor("support_x"), tensor("support_y")), (tensor("query_x"), tensor("query_y"))
