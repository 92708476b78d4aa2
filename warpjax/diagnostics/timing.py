"""Seconds of compiled programs, and the measurement behind `conv.AUTO_LOWERING`: both lowerings of a convolution."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from warpjax.networks import conv


def seconds_of(
  call: Callable[[], Any], repeats: int, *, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
  """The seconds of each of several calls, each to the end of its computation.

  Args:
    call: Returns arrays, which are waited for.
    repeats: Calls that are timed.
    warm_up: Calls before the timed ones; the first may compile.
    clock: Read before and after a call; `time.process_time` leaves out what other processes do.

  Returns:
    The seconds, in order.

  Example:
    >>> len(seconds_of(lambda: jnp.ones(3) + 1, repeats=4))
    4
  """
  seconds = []
  for _ in range(warm_up + repeats):
    started = clock()
    jax.block_until_ready(call())
    seconds.append(clock() - started)
  return seconds[warm_up:]


def time_lowerings(
  *,
  num_tasks: int = 2,
  batch: int = 40,
  size: int = 14,
  channels: int = 64,
  features: int = 64,
  strides: int = 2,
  repeats: int = 5,
) -> dict[str, dict[str, float]]:
  """Times each lowering of a 3x3 convolution whose weights differ by task.

  Args:
    num_tasks: Tasks under `vmap`.
    batch: Images a task.
    size: Height and width of the images.
    channels: Channels of the images.
    features: Channels of the result.
    strides: Strides of the convolution.
    repeats: Timed calls after one that compiles; the median counts.

  Returns:
    `{lowering: {"value", "gradient", "second_order": seconds}}`; second order is the gradient through one inner step.
  """
  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (num_tasks, batch, size, size, channels))
  kernel = 0.05 * jax.random.normal(keys[1], (num_tasks, 3, 3, channels, features))
  return {
    lowering: {name: _median_seconds(f, kernel, x, repeats) for name, f in _functions(lowering, strides).items()}
    for lowering in conv.LOWERINGS
    if lowering != "auto"
  }


def _functions(lowering: conv.Lowering, strides: int) -> dict[str, Callable[..., Any]]:
  convolve = functools.partial(conv.conv_general_dilated, lowering=lowering, dimension_numbers=("NHWC", "HWIO", "NHWC"))

  def value(kernel: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sin(convolve(x, kernel, (strides, strides), "SAME")))

  gradient = jax.grad(value, argnums=(0, 1))
  adapted = lambda kernel, x: value(kernel - 0.1 * gradient(kernel, x)[0], x)
  return {"value": value, "gradient": gradient, "second_order": jax.grad(adapted)}


def _median_seconds(function: Callable[..., Any], kernel: jax.Array, x: jax.Array, repeats: int) -> float:
  compiled = jax.jit(jax.vmap(function)).lower(kernel, x).compile()
  return statistics.median(seconds_of(lambda: compiled(kernel, x), repeats))
