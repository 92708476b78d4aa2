"""The peers in JAX: warpjax, also in plain reverse mode, flax's convolution under `vmap`, JAX by hand, a product."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import cost
from experiments.peers import cases, plain_jax
from experiments.peers.cases import Case
from warpjax import losses, meta_gradients, networks, rules
from warpjax.networks import conv
from warpjax.runner.components import outer_step
from warpjax.types import InnerLoop, LossFn, MetaParams, Task

NAMES = ("warpjax", "reverse", "flax", "jax", "matmul")
# Large enough that a GPU works for milliseconds.
MATMUL_SIZES = {"cpu": 2048, "gpu": 16384}


class JaxPeer:
  """A meta-step that is ready to be timed; `facts` says what it computes and costs."""

  def __init__(self, name: str, case: Case):
    arrays = jax.tree.map(jnp.asarray, cases.tasks(case))
    tasks = Task(*((arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in ("support", "query")))
    inner = InnerLoop(_loss(name, case), rules.sgd(case.learning_rate), case.num_steps)
    plain: dict[str, Any] = {"derivative": "reverse", "memory": "save_all"} if name in ("reverse", "flax") else {}
    outer = outer_step.resolve(meta_gradients.unrolled(inner, **plain), None)
    todo = cost.Work(inner, MetaParams(jax.tree.map(jnp.asarray, cases.parameters(case))), tasks)
    # A device is a core on a CPU; several accelerators are left alone, as the others' code leaves them.
    devices = jax.device_count() if jax.default_backend() == "cpu" else 1
    chunk = case.num_tasks if name == "flax" else None  # as `jax.vmap` over the tasks has it
    adam = optax.adam(cases.OUTER_LEARNING_RATE)
    self.step, self.state = cost.ready(todo, outer, adam, devices=devices, task_chunk=chunk)
    self.tasks = tasks
    _, known = cost.compiled(self.step, self.state, tasks)
    _, metrics = self.step(self.state, tasks)
    self.facts = {
      "loss": float(metrics["loss"]),
      "grad_norm": float(metrics["grad_norm/initial"]),
      "flops": known["flops"] * devices,
      "temp_bytes": known["temp_bytes"] * devices,
      "version": jax.__version__,
      "device": jax.devices()[0].device_kind,
      "num_devices": devices,
    }

  def __call__(self) -> None:
    """One meta-step, to its end."""
    self.state, _ = jax.block_until_ready(self.step(self.state, self.tasks))


class Matmul:
  """A matrix product, the yardstick of the machine."""

  def __init__(self, case: Case):
    dtype = jnp.bfloat16 if case.precision == "bfloat16" else jnp.float32
    size = MATMUL_SIZES.get(jax.default_backend(), 8192)
    self.x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    self.product = jax.jit(partial(jnp.dot, preferred_element_type=jnp.float32))
    self.facts = {"flops": 2.0 * size**3, "version": jax.__version__}

  def __call__(self) -> None:
    """One product."""
    jax.block_until_ready(self.product(self.x, self.x))


def network(name: str, case: Case) -> networks.Network:
  """The case's network; flax's has its own convolution."""
  if case.network == "mlp":
    return networks.from_linen(networks.MLP(cases.HIDDEN))
  products: conv.Products = "bfloat16" if case.precision == "bfloat16" else "float32"
  ours = partial(conv.conv_general_dilated, lowering=case.lowering, products=products)
  convolve = jax.lax.conv_general_dilated if name == "flax" else ours
  module = networks.Conv4(case.ways, case.width, norm_epsilon=cases.NORM_EPSILON, conv_general_dilated=convolve)
  return networks.from_linen(module)


def _loss(name: str, case: Case) -> LossFn:
  make_loss = losses.regression if case.network == "mlp" else losses.classification
  return make_loss(network(name, case).apply)


def use_cores(case: Case) -> None:
  """Makes a device of each core where a task fills one, as `--cpu_devices` does; before JAX has run anything."""
  if case.network == "conv4" and case.num_tasks % cases.cores() == 0:
    jax.config.update("jax_num_cpu_devices", cases.cores())


def use_precision(case: Case) -> None:
  """Sets the precision of products of single-precision arrays on a GPU, of warpjax and of the others alike."""
  jax.config.update("jax_default_matmul_precision", "highest" if case.precision == "float32" else None)


def make(name: str, case: Case) -> JaxPeer | Matmul | plain_jax.PlainJax:
  """The peer of that name.

  Raises:
    ValueError: For an unknown name.
  """
  if name not in NAMES:
    raise ValueError(f"peer must be one of {', '.join(NAMES)}; got {name!r}")
  if name == "jax":
    return plain_jax.PlainJax(case)
  return Matmul(case) if name == "matmul" else JaxPeer(name, case)
