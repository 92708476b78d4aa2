"""The cost of a compiled function before it runs: its bytes and its FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from warpjax import jaxprs
from warpjax.differentiation import Memory
from warpjax.memory import plan


class Cost(NamedTuple):
  """The cost of one call on one device.

  Attributes:
    flops: FLOPs of matrix products and convolutions. A scan counts once for each iteration, a `while` loop once.
    argument_bytes: Bytes of the arguments, without constants of the program.
    output_bytes: Bytes of the results.
    temp_bytes: The largest number of bytes of temporaries.
  """

  flops: float
  argument_bytes: int
  output_bytes: int
  temp_bytes: int

  @property
  def peak_bytes(self) -> int:
    """Arguments, results and temporaries together."""
    return self.argument_bytes + self.output_bytes + self.temp_bytes

  def __str__(self) -> str:
    """One line for a person."""
    peak, temp = (size / 2**20 for size in (self.peak_bytes, self.temp_bytes))
    return f"{self.flops / 1e9:.3g} GFLOP, peak {peak:.1f} MiB, of it temporaries {temp:.1f} MiB"


def compiled_cost(function: Callable[..., Any], *args: Any) -> Cost:
  """Compiles a function, without running it, and reads the cost of a call.

  Args:
    function: For example `training.meta_step(...)`; jitted or not.
    *args: Arrays or `jax.ShapeDtypeStruct`s, such as `jax.eval_shape` gives: nothing of their size is made.

  Returns:
    A `Cost`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> square = jax.ShapeDtypeStruct((100, 100), jnp.float32)
    >>> cost = compiled_cost(lambda a, b: a @ b, square, square)
    >>> cost.flops, cost.argument_bytes, cost.output_bytes
    (2000000.0, 80000, 40000)
  """
  jitted: Any = function if hasattr(function, "trace") else jax.jit(function)
  traced = jitted.trace(*args)
  return cost_of(traced, traced.lower().compile())


def cost_of(traced: Any, compiled: Any) -> Cost:
  """`compiled_cost` of a function that is already compiled.

  Args:
    traced: The result of `jax.jit(function).trace(*args)`.
    compiled: The result of `traced.lower().compile()`.

  Returns:
    A `Cost`.
  """
  memory = compiled.memory_analysis()
  sizes = (memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes)
  return Cost(_count(traced.jaxpr), *sizes)


def flops(function: Callable[..., Any], *args: Any) -> float:
  """The FLOPs of a call by count, without compiling: `2 m n k` for each matrix product, convolutions likewise.

  Args:
    function: Any function of arrays.
    *args: As for `compiled_cost`.

  Returns:
    The count; a scan counts once for each iteration, a conditional as its most expensive branch, a `while` loop once.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> power = lambda a: jax.lax.fori_loop(0, 10, lambda i, b: a @ b, a)
    >>> flops(power, jax.ShapeDtypeStruct((100, 100), jnp.float32))
    20000000.0
  """
  return _count(jax.make_jaxpr(function)(*args))


class Growth(NamedTuple):
  """The bytes of an unroll, as a line in the number of states that its memory policy keeps (`memory.plan`).

  Attributes:
    memory: The policy.
    fixed: Bytes that do not depend on the steps.
    boundary: Bytes of a state that is kept for the whole backward sweep.
    step: Bytes of a step whose residuals are stored.
  """

  memory: Memory
  fixed: float
  boundary: float
  step: float

  def bytes_of(self, num_steps: int, snapshots: int | None = None) -> int:
    """The bytes of an unroll of so many steps, predicted."""
    kept = plan(self.memory, num_steps, snapshots)
    return round(self.fixed + self.boundary * kept.boundaries + self.step * kept.segment)


# Numbers of steps and snapshots: small enough to compile fast, and large enough that kept states dominate the bytes.
_LINE = ((32, None), (64, None))
_SAMPLES = {"nested": ((64, 32), (64, 2), (63, 21)), "treeverse": ((64, 32), (64, 64))}
_SAMPLES["offload"] = _SAMPLES["nested"]


def growth(bytes_of: Callable[[int, int | None], int], memory: Memory) -> Growth:
  """Predicts how the bytes of an unroll grow under a memory policy, from programs of at most 64 steps.

  Args:
    bytes_of: `(num_steps, snapshots) -> bytes`, for example the `peak_bytes` of `compiled_cost`.
    memory: The policy of these programs.

  Returns:
    A `Growth`, which predicts other numbers of steps.

  Example:
    >>> line = growth(lambda num_steps, snapshots: 1000 + 10 * num_steps, "recompute")
    >>> line.bytes_of(4096)
    41960
  """
  samples = _SAMPLES.get(memory, _LINE)
  states = np.array([[1, *plan(memory, *sample)] for sample in samples], float)
  return Growth(memory, *np.linalg.lstsq(states, np.array([bytes_of(*sample) for sample in samples], float))[0])


def largest_num_steps(peak_bytes: Callable[[int], int], budget_bytes: float, *, at_most: int = 4096) -> int:
  """The largest number of inner steps whose peak stays within a budget.

  Bytes grow along a line in the number of steps, so a few compilations find it.

  Args:
    peak_bytes: `(num_steps) -> bytes`, growing; for example of `compiled_cost`.
    budget_bytes: The budget.
    at_most: Upper limit of the search.

  Returns:
    The largest number that fits: 0 if one step does not, `at_most` if all do.

  Raises:
    ValueError: when `budget_bytes` or `at_most` is not above 0.

  Example:
    >>> largest_num_steps(lambda num_steps: 1000 + 10 * num_steps, budget_bytes=2000)
    100
  """
  for name, value in (("budget_bytes", budget_bytes), ("at_most", at_most)):
    if value <= 0:
      raise ValueError(f"{name} must be above 0; got {value!r}")
  (low, low_bytes), (high, high_bytes) = ((count, peak_bytes(count)) for count in (1, at_most))
  if low_bytes > budget_bytes:
    return 0
  if high_bytes <= budget_bytes:
    return at_most
  while high - low > 1:
    # Along the line between the two, which is exact after the first steps; kept away from its ends.
    slope = (high_bytes - low_bytes) / (high - low)
    middle = min(max(low + math.floor((budget_bytes - low_bytes) / slope), low + 1), high - 1)
    size = peak_bytes(middle)
    if size <= budget_bytes:
      low, low_bytes = middle, size
    else:
      high, high_bytes = middle, size
  return low


def _count(jaxpr: Any) -> float:
  return float(sum(_equation(equation) for equation in jaxpr.eqns))


def _equation(equation: Any) -> float:
  name, params = equation.primitive.name, jaxprs.parameters(equation)
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    return 2.0 * equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
  if name == "convolution":
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2.0 * params["geometry"].multiplications(math.prod(left[:-3]), left[-1], out[-1])
  if name == "conv_general_dilated":
    kernel = equation.invars[1].aval
    return 2.0 * equation.outvars[0].aval.size * kernel.size / kernel.shape[params["dimension_numbers"].rhs_spec[0]]
  counts = [_count(inner) for inner in jaxprs.inside(equation)]
  if "branches" in params:
    return max(counts)
  return params.get("length", 1) * sum(counts)  # only a scan has a length
