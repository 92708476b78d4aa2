"""MAML in PyTorch: by hand with `create_graph`, by `torch.func` under `vmap`, by `higher`, by `torchopt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from experiments.peers import cases, torch_network, torch_trajectory
from experiments.peers.cases import Case
from experiments.peers.torch_network import Network, Params, loss_of

QueryLoss = Callable[[torch_network.Batch, torch_network.Batch], torch.Tensor]


def by_hand(network: Network, case: Case) -> QueryLoss:
  """One task's query loss, differentiable in the network's parameters: `autograd.grad(..., create_graph=True)`."""

  def query_loss(support: torch_network.Batch, query: torch_network.Batch) -> torch.Tensor:
    params: Params = dict(network.named_parameters())
    for _ in range(case.num_steps):
      loss = loss_of(case, torch.func.functional_call(network, params, (support[0],)), support[1])
      grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
      params = {name: p - case.learning_rate * g for (name, p), g in zip(params.items(), grads, strict=True)}
    return loss_of(case, torch.func.functional_call(network, params, (query[0],)), query[1])

  return query_loss


def by_higher(network: Network, case: Case) -> QueryLoss:
  """The same by `higher.innerloop_ctx`."""
  import higher

  optimizer = torch.optim.SGD(network.parameters(), lr=case.learning_rate)

  def query_loss(support: torch_network.Batch, query: torch_network.Batch) -> torch.Tensor:
    with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (learner, inner):
      for _ in range(case.num_steps):
        inner.step(loss_of(case, learner(support[0]), support[1]))
      return loss_of(case, learner(query[0]), query[1])

  return query_loss


def by_torchopt(network: Network, case: Case) -> QueryLoss:
  """The same by `torchopt.MetaSGD`."""
  import torchopt

  inner = torchopt.MetaSGD(network, lr=case.learning_rate)

  def query_loss(support: torch_network.Batch, query: torch_network.Batch) -> torch.Tensor:
    start, start_of_inner = (torchopt.extract_state_dict(each, by="reference") for each in (network, inner))
    for _ in range(case.num_steps):
      inner.step(network.loss(*support))
    loss = network.loss(*query)
    torchopt.recover_state_dict(network, start)
    torchopt.recover_state_dict(inner, start_of_inner)
    return loss

  return query_loss


QUERY_LOSSES: dict[str, Callable[[Network, Case], QueryLoss]] = {
  "torch": by_hand,
  "higher": by_higher,
  "torchopt": by_torchopt,
}


class Maml:
  """A meta-step over a loop of tasks, each of whose graphs is freed once it has been differentiated."""

  def __init__(self, name: str, case: Case):
    self.device = torch_network.device(case)
    self.autocast = case.precision == "bfloat16"
    network = Network(case).to(self.device)
    self.params: list[Any] = list(network.parameters())
    self.optimizer = torch.optim.Adam(self.params, lr=cases.OUTER_LEARNING_RATE)
    support, query = torch_network.tasks(case, self.device)
    self.tasks = [((support[0][i], support[1][i]), (query[0][i], query[1][i])) for i in range(case.num_tasks)]
    self.gradients = self._under_vmap(network, case, support, query) if name == "torch_func" else None
    self.query_loss = QUERY_LOSSES[name](network, case) if name in QUERY_LOSSES else None
    loss = self.backward()
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in self.params]))
    self.facts = {"numbers": {"loss": loss, "grad_norm/initial": norm}, **torch_network.facts(self.device)}

  def _under_vmap(self, network: Network, case: Case, support: Any, query: Any) -> Callable[[], float]:
    def query_loss(params: Params, support: torch_network.Batch, query: torch_network.Batch) -> torch.Tensor:
      def loss(params: Params, batch: torch_network.Batch) -> torch.Tensor:
        return loss_of(case, torch.func.functional_call(network, params, (batch[0],)), batch[1])

      for _ in range(case.num_steps):
        grads = torch.func.grad(loss)(params, support)
        params = {name: p - case.learning_rate * grads[name] for name, p in params.items()}
      return loss(params, query)

    def mean(params: Params) -> torch.Tensor:
      return torch.func.vmap(query_loss, (None, 0, 0))(params, support, query).mean()

    gradient = torch.func.grad_and_value(mean)

    def run() -> float:
      grads, loss = gradient(dict(network.named_parameters()))
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
    torch_network.finish(self.device)


def make(name: str, case: Case) -> Any:
  """The peer of that name."""
  torch.manual_seed(0)
  torch.set_num_threads(cases.cores())
  return Maml(name, case) if case.method == "maml" else torch_trajectory.make(name, case)
