"""The peers in PyTorch: by hand with `create_graph`, by `torch.func` under `vmap`, by `higher`, by `torchopt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from experiments.peers import cases
from experiments.peers.cases import Case

Params = dict[str, torch.Tensor]


class Layer(torch.nn.Module):
  """Holds the parameters of one layer; `higher` cannot take a bare `torch.nn.Module`."""


class Network(torch.nn.Module):
  """Either network, as a module whose parameters are named as in `cases.parameters`, dots in place of slashes."""

  def __init__(self, case: Case):
    super().__init__()
    self.case = case
    for layer, leaves in cases.parameters(case).items():
      module = Layer()
      for name, value in leaves.items():
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        module.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))
      self.add_module(layer, module)
    # The second derivative of batch norm fails without a scale, so there is one that nothing learns.
    self.register_buffer("scale", torch.ones(case.width))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Logits `[examples, ways]` of images NCHW, or predictions `[examples, 1]`."""
    layers: Any = self._modules
    if self.case.network == "mlp":
      for i in range(len(cases.HIDDEN)):
        x = F.relu(x @ layers[f"dense_{i}"].kernel + layers[f"dense_{i}"].bias)
    else:
      for i in range(cases.NUM_BLOCKS):
        x = F.conv2d(F.pad(x, _same(x.shape[-1])), layers[f"conv_{i}"].kernel, stride=2)
        x = F.batch_norm(x, None, None, self.scale, layers[f"norm_{i}"].bias, training=True, eps=cases.NORM_EPSILON)
        x = F.relu(x)
      x = x.mean((2, 3))
    return x @ layers["head"].kernel + layers["head"].bias

  def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, or mean squared error."""
    return _loss(self.case, self(x), y)


def _same(size: int) -> tuple[int, int, int, int]:
  """The zeros that "SAME" puts around an image for a 3x3 kernel at stride 2."""
  total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
  return (total // 2, total - total // 2) * 2


def _loss(case: Case, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
  return F.mse_loss(outputs, y) if case.network == "mlp" else F.cross_entropy(outputs, y)


def by_hand(network: Network, case: Case) -> Callable[..., torch.Tensor]:
  """One task's query loss, differentiable in the network's parameters: `autograd.grad(..., create_graph=True)`."""

  def query_loss(support: tuple, query: tuple) -> torch.Tensor:
    params = dict(network.named_parameters())
    for _ in range(case.num_steps):
      loss = _loss(case, torch.func.functional_call(network, params, (support[0],)), support[1])
      grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
      params = {name: p - case.learning_rate * g for (name, p), g in zip(params.items(), grads, strict=True)}
    return _loss(case, torch.func.functional_call(network, params, (query[0],)), query[1])

  return query_loss


def by_higher(network: Network, case: Case) -> Callable[..., torch.Tensor]:
  """The same by `higher.innerloop_ctx`."""
  import higher

  optimizer = torch.optim.SGD(network.parameters(), lr=case.learning_rate)

  def query_loss(support: tuple, query: tuple) -> torch.Tensor:
    with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (learner, inner):
      for _ in range(case.num_steps):
        inner.step(_loss(case, learner(support[0]), support[1]))
      return _loss(case, learner(query[0]), query[1])

  return query_loss


def by_torchopt(network: Network, case: Case) -> Callable[..., torch.Tensor]:
  """The same by `torchopt.MetaSGD`."""
  import torchopt

  inner = torchopt.MetaSGD(network, lr=case.learning_rate)

  def query_loss(support: tuple, query: tuple) -> torch.Tensor:
    start, start_of_inner = (torchopt.extract_state_dict(each, by="reference") for each in (network, inner))
    for _ in range(case.num_steps):
      inner.step(network.loss(*support))
    loss = network.loss(*query)
    torchopt.recover_state_dict(network, start)
    torchopt.recover_state_dict(inner, start_of_inner)
    return loss

  return query_loss


QUERY_LOSSES = {"torch": by_hand, "higher": by_higher, "torchopt": by_torchopt}


class TorchPeer:
  """A meta-step over a loop of tasks, each of whose graphs is freed once it has been differentiated."""

  def __init__(self, name: str, case: Case):
    torch.manual_seed(0)
    torch.set_num_threads(cases.cores())
    self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if self.device.type == "cuda":  # TF32 is what JAX has by default, and torch itself for convolutions
      torch.set_float32_matmul_precision("highest" if case.precision == "float32" else "high")
      torch.backends.cudnn.allow_tf32 = case.precision != "float32"
    self.autocast = case.precision == "bfloat16"
    network = Network(case).to(self.device)
    self.params: list[Any] = list(network.parameters())
    self.optimizer = torch.optim.Adam(self.params, lr=cases.OUTER_LEARNING_RATE)
    arrays = {name: self._tensor(name, value) for name, value in cases.tasks(case).items()}
    self.tasks = [
      tuple((arrays[f"{part}_x"][i], arrays[f"{part}_y"][i]) for part in ("support", "query"))
      for i in range(case.num_tasks)
    ]
    self.gradients = self._under_vmap(network, case) if name == "torch_func" else None
    self.query_loss = QUERY_LOSSES[name](network, case) if name in QUERY_LOSSES else None
    loss = self.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in self.params))
    device = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
    self.facts = {"loss": loss, "grad_norm": float(norm), "version": torch.__version__, "device": device}

  def _tensor(self, name: str, value: Any) -> torch.Tensor:
    tensor = torch.tensor(value, device=self.device)
    tensor = tensor.permute(0, 1, 4, 2, 3).contiguous() if tensor.ndim == 5 else tensor
    return tensor.long() if tensor.dtype == torch.int32 else tensor

  def _under_vmap(self, network: Network, case: Case) -> Callable[[], float]:
    def query_loss(params: Params, support: tuple, query: tuple) -> torch.Tensor:
      def loss(params: Params, batch: tuple) -> torch.Tensor:
        return _loss(case, torch.func.functional_call(network, params, (batch[0],)), batch[1])

      for _ in range(case.num_steps):
        grads = torch.func.grad(loss)(params, support)
        params = {name: p - case.learning_rate * grads[name] for name, p in params.items()}
      return loss(params, query)

    def mean(params: Params, support: tuple, query: tuple) -> torch.Tensor:
      return torch.func.vmap(query_loss, (None, 0, 0))(params, support, query).mean()

    support, query = (
      tuple(torch.stack(leaves) for leaves in zip(*(task[i] for task in self.tasks), strict=True)) for i in (0, 1)
    )
    gradient = torch.func.grad_and_value(mean)

    def run() -> float:
      grads, loss = gradient(dict(network.named_parameters()), support, query)
      for name, p in network.named_parameters():
        p.grad = grads[name].detach()
      return float(loss.detach())

    return run

  def backward(self) -> float:
    """Puts the meta-gradient into `.grad`; returns the mean query loss."""
    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
      return self._backward()

  def _backward(self) -> float:
    if self.gradients is not None:
      return self.gradients()
    assert self.query_loss is not None
    self.optimizer.zero_grad()
    total = 0.0
    for support, query in self.tasks:
      loss = self.query_loss(support, query) / len(self.tasks)
      loss.backward(inputs=self.params)
      total += float(loss.detach())
    return total

  def __call__(self) -> None:
    """One meta-step, to its end."""
    self.backward()
    self.optimizer.step()
    if self.device.type == "cuda":
      torch.cuda.synchronize()


def make(name: str, case: Case) -> Any:
  """The peer of that name."""
  return TorchPeer(name, case)
