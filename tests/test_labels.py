"""Labels and tasks in every array type: the library's losses run eagerly, closed over by jit, and in a scan."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from warpjax import losses, rules
from warpjax.padding import pad, per_example
from warpjax.tasks import continual

KEY = jax.random.key(0)
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
W = jnp.linspace(-1, 1, 6).reshape(2, 3)
MADE = {"np": np.asarray, "jnp": jnp.asarray}
LABELS = [(made, dtype) for made in MADE for dtype in ("int32", "uint8")]

APPLY = per_example(lambda params, shared, x: x @ params)
LOSSES = {"classification": losses.classification(APPLY), "margins": losses.margins(APPLY)}
CALLS = {
  "eager": lambda loss: loss(W),
  "closed over in jit": lambda loss: jax.jit(loss)(W),
  "closed over in a scan": lambda loss: jax.lax.scan(lambda sums, _: (sums + loss(W), None), 0.0, None, length=1)[0],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("made", "dtype"), LABELS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_closes_over_its_labels(name, made, dtype, call):
  batch = lambda *labels: (MADE[made](X), MADE[made](np.array(labels, dtype)))
  run = lambda batch: CALLS[call](lambda params: LOSSES[name](params, (), batch)[0])
  expected = -np.mean(np.asarray(jax.nn.log_softmax(X @ W))[np.arange(4), [0, 1, 2, 0]])
  np.testing.assert_allclose(run(batch(0, 1, 2, 0)), expected, rtol=1e-6)
  with pytest.raises(ValueError, match="y must be classes 0 to 2, of which apply returns logits; got 0 to 3"):
    run(batch(0, 1, 2, 3))


BATCHES = {"whole": wj.full_batch, "minibatch": wj.minibatch(2), "epochs": wj.epochs(3)}


@pytest.mark.parametrize(
  ("batch_fn", "padded"),
  [
    *(("whole", True), ("epochs", True), ("minibatch", False)),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in (("whole", False), ("epochs", False), ("minibatch", True))),
  ],
)
def test_adaptation_outside_of_jit(batch_fn, padded):
  """To a task of NumPy's arrays and to one of JAX's, as inside."""
  inner = wj.InnerLoop(LOSSES["classification"], rules.sgd(0.1), 2, batch_fn=BATCHES[batch_fn])
  part = pad(X[:3], np.array([0, 1, 2]), 4) if padded else (X, np.array([0, 1, 2, 0]))
  adapt = lambda task: wj.adapt(inner, wj.MetaParams(W), task, KEY).final.params
  task = wj.Task(part, part)
  expected = jax.jit(adapt)(task)
  assert not np.allclose(expected, W)
  for made in MADE.values():
    chex.assert_trees_all_close(adapt(jax.tree.map(made, task)), expected, rtol=1e-6)


def test_sub_tasks_of_numpy_outside_of_jit():
  loss_fn = losses.regression(lambda params, shared, x: x * params)
  inner = wj.InnerLoop(loss_fn, rules.sgd(0.1), 2, batch_fn=continual.in_sequence(1))
  part = (np.ones((2, 3, 1), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3, 1))
  final = wj.adapt(inner, wj.MetaParams(jnp.array(0.0)), wj.Task(part, part), KEY).final.params
  np.testing.assert_allclose(final, 0.8 * 0.2 * 1.0 + 0.2 * 4.0, rtol=1e-6)  # from 0, towards the means 1 and 4
