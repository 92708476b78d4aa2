"""The time of a meta-step by layer and operation, from XLA's profiler."""

from __future__ import annotations

import pathlib
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from warpjax.diagnostics import timing
from warpjax.runner import loop
from warpjax.runner.experiment import Experiment

KINDS = ("products", "copies", "elements")
PRODUCTS = ("convolution", "dot_general", "conv_general_dilated")
COPIES = ("broadcast_in_dim", "concatenate", "copy", "dynamic_slice", "gather", "pad", "reshape", "slice", "transpose")
# The parts of an operation's name that belong to the program around the network.
_AROUND = re.compile(
  r"(jit|vmap|jvp|transpose|checkpoint|rematted|while|body|cond|closed_call|shard_map|branch)\b|.*\."
)
_NETWORK = re.compile(r"[\w(]*\(([A-Z]\w*)\)+$")
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?(?:metadata=\{.*?op_name="([^"]*)"|$)')


class Spent(NamedTuple):
  """The time of one operation of one layer.

  Attributes:
    layer: The module's name in the network, or the network's own, or "" outside of the network.
    operation: JAX's primitive; of a fusion, the last one.
    seconds: Seconds in one meta-step.
  """

  layer: str
  operation: str
  seconds: float

  @property
  def kind(self) -> str:
    """The kind of operation: a matrix product, a copy, or elementwise arithmetic and sums."""
    return "products" if self.operation in PRODUCTS else "copies" if self.operation in COPIES else "elements"


def profile(experiment: Experiment, repeats: int = 3) -> tuple[list[Spent], float]:
  """Runs meta-steps of an experiment under the profiler.

  Args:
    experiment: The experiment.
    repeats: Profiled meta-steps, after two without the profiler.

  Returns:
    The time of each operation of each layer, the longest first, and the elapsed seconds of a meta-step.
  """
  programs = loop.Programs(experiment)
  state, sampler = loop.start(experiment), programs.sampler
  step = programs.dispatch(1).trace(state, sampler).lower().compile()
  run = lambda: step(state, sampler)
  timing.seconds_of(run, 1)
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      wall = statistics.mean(timing.seconds_of(run, repeats, warm_up=0))
    names, spent = operations(step.as_text()), defaultdict[tuple[str, str], float](float)
    for name, seconds in _events(pathlib.Path(folder)):
      if name in names:
        spent[place(names[name])] += seconds / repeats
  times = [Spent(*where, seconds) for where, seconds in spent.items()]
  return sorted(times, key=lambda one: -one.seconds), wall


def operations(program: str) -> dict[str, str]:
  """The instructions of a compiled program that compute, by JAX's names, or XLA's if JAX has none.

  Example:
    >>> operations('  %dot.1 = f32[2] dot(%a, %b), metadata={op_name="jit(f)/head/dot_general"}')
    {'dot.1': 'jit(f)/head/dot_general'}
  """
  names = {}
  for line in program.splitlines():
    # A loop's time is that of its body, which is counted by itself.
    if (match := _INSTRUCTION.match(line)) and not re.search(r" (while|call|conditional|tuple|parameter)\(", line):
      names[match[1]] = match[2] or match[1].split(".")[0]
  return names


def place(name: str) -> tuple[str, str]:
  """The layer and the primitive of an operation, from its name in JAX.

  Example:
    >>> place("jit(f)/while/body/jvp(Conv4)/Conv4._layer/norm_0/norm_0._stats/reduce_sum")
    ('norm_0', 'reduce_sum')
  """
  *path, operation = name.split(";")[0].split("/")  # XLA joins the names of what it merges
  networks = [match[1] for part in path if (match := _NETWORK.match(part))]
  layers = networks + [part for part in path if not _AROUND.match(part)]
  return layers[-1] if layers else "", operation


def table(spent: Sequence[Spent], wall: float, lines: int) -> str:
  """The kinds, then the longest operations, for a terminal."""
  total = sum(one.seconds for one in spent) or 1.0
  kinds = {kind: sum(one.seconds for one in spent if one.kind == kind) / total for kind in KINDS}
  said = ", ".join(f"{kind} {share:.0%}" for kind, share in kinds.items())
  rows = [
    f"{1e3 * one.seconds:9.2f} ms {one.seconds / total:5.1%}  {one.layer or '-':<12} {one.operation}" for one in spent
  ]
  head = f"A meta-step takes {1e3 * wall:.4g} ms, its operations {1e3 * total:.4g} ms: {said}."
  return "\n".join([head, *rows[:lines]])


def _events(folder: pathlib.Path) -> Iterator[tuple[str, float]]:
  (path,) = folder.rglob("*.xplane.pb")
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        yield event.name, event.duration_ns / 1e9
