"""The meta-step in JAX by hand: functions of a dictionary, `jax.grad` in a `jax.lax.scan`, and `jax.vmap`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks import cost
from experiments.peers import cases
from experiments.peers.cases import Case

Params = dict[str, dict[str, jax.Array]]
Batch = tuple[jax.Array, jax.Array]


def forward(case: Case, params: Params, x: jax.Array) -> jax.Array:
  """Logits of images NHWC, or predictions; for "bfloat16" every product has operands and a result of that type."""
  product = jnp.bfloat16 if case.precision == "bfloat16" else jnp.float32
  head = params["head"]
  if case.network == "mlp":
    for i in range(len(cases.HIDDEN)):
      layer = params[f"dense_{i}"]
      x = jax.nn.relu((x.astype(product) @ layer["kernel"].astype(product)).astype(jnp.float32) + layer["bias"])
    return x @ head["kernel"] + head["bias"]
  for i in range(cases.NUM_BLOCKS):
    kernel = params[f"conv_{i}"]["kernel"].astype(product)
    x = jax.lax.conv_general_dilated(
      x.astype(product), kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).astype(jnp.float32)
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    x = jax.nn.relu((x - mean) / jnp.sqrt(variance + cases.NORM_EPSILON) + params[f"norm_{i}"]["bias"])
  return jnp.mean(x, (1, 2)) @ head["kernel"] + head["bias"]


def loss(case: Case, params: Params, batch: Batch) -> jax.Array:
  """Mean cross-entropy, or mean squared error."""
  x, y = batch
  outputs = forward(case, params, x)
  if case.network == "mlp":
    return jnp.mean((outputs - y) ** 2)
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, y))


def query_loss(case: Case, params: Params, support: Batch, query: Batch) -> jax.Array:
  """The loss of one task after its inner steps."""

  def step(params: Params, _: None) -> tuple[Params, None]:
    grads = jax.grad(partial(loss, case))(params, support)
    return jax.tree.map(lambda p, g: p - case.learning_rate * g, params, grads), None

  adapted, _ = jax.lax.scan(step, params, length=case.num_steps)
  return loss(case, adapted, query)


class PlainJax:
  """A meta-step that is ready to be timed; `facts` says what it computes and costs."""

  def __init__(self, case: Case):
    arrays = jax.tree.map(jnp.asarray, cases.tasks(case))
    self.tasks = [(arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in ("support", "query")]
    self.params: Params = jax.tree.map(jnp.asarray, cases.parameters(case))
    adam = optax.adam(cases.OUTER_LEARNING_RATE)
    self.state = adam.init(self.params)

    @jax.jit
    def step(params: Params, state: Any, support: Batch, query: Batch) -> Any:
      over_tasks = jax.vmap(partial(query_loss, case), (None, 0, 0))
      value, grads = jax.value_and_grad(lambda params: jnp.mean(over_tasks(params, support, query)))(params)
      updates, state = adam.update(grads, state)
      return optax.apply_updates(params, updates), state, value, optax.tree.norm(grads)

    self.step, known = cost.compiled(step, self.params, self.state, *self.tasks)
    value, norm = self.step(self.params, self.state, *self.tasks)[2:]
    self.facts = {
      "numbers": {"loss": float(value), "grad_norm/initial": float(norm)},
      "flops": known["flops"],
      "temp_bytes": known["temp_bytes"],
      "version": jax.__version__,
      "device": jax.devices()[0].device_kind,
    }

  def __call__(self) -> None:
    """One meta-step, to its end."""
    self.params, self.state, *_ = jax.block_until_ready(self.step(self.params, self.state, *self.tasks))
