"""Options of the compiler."""

from __future__ import annotations

import contextlib
import functools

import jax


@functools.cache
def fast_compilation() -> dict[str, bool | int]:
  """Compiler options for programs that run only a few times: small ones compile five times faster and run slower.

  Returns:
    `compiler_options` of `jax.jit`, those that this XLA has on this backend; none but on a CPU.

  Example:
    >>> import jax
    >>> int(jax.jit(lambda x: x + 1, compiler_options=fast_compilation())(1))
    2
  """
  known: dict[str, bool | int] = {}
  wanted = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,  # parts of a small program cost more than they save
  }
  for name, value in wanted.items() if jax.default_backend() == "cpu" else ():
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # an option that this XLA does not have
      jax.jit(lambda x: x + 1, compiler_options={name: value}).lower(0).compile()  # not called: something may be traced
      known[name] = value
  return known
