"""Leap's and offline WarpGrad's meta-steps in PyTorch by hand, after the algorithms of their papers.

Both are of first order along the trajectory, so that parameters are updated in place. `torch` takes the derivative of
the warp-layers as the code that WarpGrad's authors released does: its step is a constant, even for the objective
"full". `torch_full` differentiates the step too, by `torch.func`.

References: Flennerhag et al. 2019, arXiv 1812.01054, algorithm 1; 2020, arXiv 1909.00025, algorithm 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from experiments.peers import cases, torch_network
from experiments.peers.cases import Case
from experiments.peers.torch_network import Network, Params, loss_of

_EPSILON = 1e-12


class Trajectory:
  """One task's adaptation, the gradient of its path, and one update of the initial parameters."""

  def __init__(self, case: Case):
    self.case, self.device = case, torch_network.device(case)
    self.network = Network(case).to(self.device)
    named = dict(self.network.named_parameters())
    self.task: list[torch.Tensor] = [p for name, p in named.items() if not name.startswith("warp_")]
    self.initial = [p.detach().clone() for p in self.task]
    (x, y), (query_x, query_y) = torch_network.tasks(case, self.device)
    self.batches, self.query = list(zip(x[0], y[0], strict=True)), (query_x[0], query_y[0])
    self.facts: dict[str, Any] = {"numbers": self.meta_step(), **torch_network.facts(self.device)}

  def meta_step(self) -> dict[str, float]:
    """Adapts to the task and updates the initial parameters by Leap's gradient; returns what can be compared."""
    with torch.no_grad():
      torch._foreach_copy_(self.task, self.initial)
    loss, pull = self.adapt(with_loss=True)
    return {"loss": loss, "grad_norm/initial": self.update(pull)}

  def adapt(self, *, with_loss: bool, states: list[Any] | None = None) -> tuple[float, list[torch.Tensor]]:
    """Takes every inner step; returns the query loss at the end, and Leap's gradient.

    Args:
      with_loss: Whether the loss is a coordinate of the path.
      states: Where the parameters before each step are kept.
    """
    pull, rate = [torch.zeros_like(p) for p in self.task], self.case.learning_rate
    grads: tuple[torch.Tensor, ...] = ()
    value = math.nan
    for batch in self.batches[:-1]:
      loss = self.network.loss(*batch)
      before, value = value, float(loss.detach())
      if grads:
        self._pull(pull, grads, value - before if with_loss else 0.0)
      grads = torch.autograd.grad(loss, self.task)
      with torch.no_grad():
        if states is not None:
          states.append([p.clone() for p in self.task])
        torch._foreach_add_(self.task, grads, alpha=-rate)
    with torch.no_grad():
      change = float(self.network.loss(*self.batches[-1])) - value if with_loss else 0.0
      self._pull(pull, grads, change)
      return float(self.network.loss(*self.query)), pull

  def _pull(self, pull: list[torch.Tensor], grads: tuple[torch.Tensor, ...], change: float) -> None:
    """Adds the segment that ends here; its step in the parameters is the step size times the gradient."""
    rate, change = self.case.learning_rate, -abs(change)
    squared = (rate * float(torch.nn.utils.get_total_norm(grads))) ** 2
    torch._foreach_add_(pull, grads, alpha=(rate - change) / math.sqrt(squared + change**2 + _EPSILON))

  def update(self, pull: list[torch.Tensor]) -> float:
    """One outer step of the initial parameters; returns the norm of their gradient."""
    torch._foreach_add_(self.initial, pull, alpha=-cases.OUTER_SGD[self.case.method])
    return float(torch.nn.utils.get_total_norm(pull))

  def __call__(self) -> None:
    """One meta-step, to its end."""
    self.meta_step()
    torch_network.finish(self.device)


class Warp(Trajectory):
  """Collects a trajectory, then updates the warp-layers from each of its iterates, once and in a random order."""

  def __init__(self, case: Case, *, second_order: bool):
    self.second_order = second_order
    super().__init__(case)
    if case.objective == "full" and not second_order:  # another gradient than ours
      del self.facts["numbers"]["grad_norm/shared"]

  def meta_step(self) -> dict[str, float]:
    """Algorithm 2, `eta` one point an update."""
    warp: Params = {name: p for name, p in self.network.named_parameters() if name.startswith("warp_")}
    states: list[Any] = []
    with torch.no_grad():
      torch._foreach_copy_(self.task, self.initial)
    loss, pull = self.adapt(with_loss=False, states=states)
    norms = []
    for index in self.case.order:
      with torch.no_grad():
        torch._foreach_copy_(self.task, states[index])
      gradient = self._second_order if self.second_order else self._first_order
      grads = gradient(warp, self.batches[index])
      with torch.no_grad():
        torch._foreach_add_(list(warp.values()), grads, alpha=-cases.OUTER_SGD["warp"])
      norms.append(float(torch.nn.utils.get_total_norm(grads)))
    shared = sum(norms) / len(norms)
    return {"loss": loss, "grad_norm/initial": self.update(pull), "grad_norm/shared": shared}

  def _first_order(self, warp: Params, batch: torch_network.Batch) -> list[torch.Tensor]:
    grads = torch.autograd.grad(self.network.loss(*batch), self.task)
    with torch.no_grad():
      torch._foreach_add_(self.task, grads, alpha=-self.case.learning_rate)
    return list(torch.autograd.grad(self.network.loss(*self.query), list(warp.values())))

  def _second_order(self, warp: Params, batch: torch_network.Batch) -> list[torch.Tensor]:
    task = {name: p.detach() for name, p in self.network.named_parameters() if name not in warp}

    def loss(task: Params, warp: Params, batch: torch_network.Batch) -> torch.Tensor:
      outputs = torch.func.functional_call(self.network, {**task, **warp}, (batch[0],))
      return loss_of(self.case, outputs, batch[1])

    def after_a_step(warp: Params) -> torch.Tensor:
      grads = torch.func.grad(loss)(task, warp, batch)
      return loss({name: p - self.case.learning_rate * grads[name] for name, p in task.items()}, warp, self.query)

    grads = torch.func.grad(after_a_step)({name: p.detach() for name, p in warp.items()})
    return [grads[name] for name in warp]


def make(name: str, case: Case) -> Any:
  """The peer of that name."""
  return Trajectory(case) if case.method == "leap" else Warp(case, second_order=name == "torch_full")
