"""The recipe of test-time training: what is held out, which inner loops take steps, and what a result reports."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests import toy
from warpjax.runner import experiment, loop
from warpjax.runner.config import recipes

TINY = {
  "tasks_per_step": 2,
  "data": {"num_chunks": 3, "chunk": 4, "context": 2},
  "network": {"num_blocks": 1, "width": 4, "num_heads": 1, "hidden": 4, "window": 2},
  "inner": {"num_steps": 3},
  "eval": {"num_tasks": 2, "num_steps": 2},
}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
  """400 bytes, each of which says which tenth of the text it is in."""
  file = tmp_path_factory.mktemp("book") / "made.txt"
  file.write_bytes(np.repeat(np.arange(20, dtype=np.uint8), 20).tobytes())
  return str(file)


def built(method, book, *changes):
  config = recipes.settings(f"ttt:{method}")
  for change in (TINY, *changes):
    config = recipes.lay_over(config, change)
  return experiment.build(config, data_dir=book)


def test_the_end_of_the_text_is_held_out(book):
  data = built("end_to_end", book).data
  parts = [np.unique(part.support[0]).tolist() for part in (data.val, data.test)]
  assert parts == [[17], [18, 19]] or parts == [[17], [18]]
  train = jax.vmap(data.train)(jax.random.split(jax.random.key(0), 400))
  assert np.unique(train.support[0]).tolist() == list(range(17))
  assert data.description["text"] == "made.txt" and data.description["bytes"] == 400


def test_a_text_without_room_for_a_held_out_task_is_refused(book):
  with pytest.raises(
    ValueError, match="a text of which a twentieth has the 27 bytes of a task; made.txt has 400 bytes"
  ):
    built("end_to_end", book, {"data": {"num_chunks": 6}})


@pytest.mark.parametrize(
  ("method", "in_training", "in_test"),
  [("end_to_end", True, True), ("in_the_test", False, True), ("no_adaptation", False, False)],
)
def test_which_inner_loops_change_the_parameters(method, in_training, in_test, book):
  made = built(method, book)
  params, grads = {"w": np.ones(2)}, {"w": np.ones(2)}
  for inner, adapts in ((made.inner, in_training), (made.test_inner, in_test)):
    transform = inner.rule.transform(())
    updates, _ = transform.update(grads, transform.init(params), params)
    assert bool(np.any(updates["w"])) == adapts


def test_training_without_steps_is_training_on_every_chunk_from_the_start(book, x64):
  made = built("in_the_test", book)
  task = made.data.train(jax.random.key(1))
  meta_params = loop.start(made).meta_params
  (value, _), grads = toy.run(made.outer_step.meta_grad, meta_params, task)

  def mean(meta_params):
    batches = [made.inner.batch_fn(None, task.support, step, (), ()) for step in range(3)]
    losses = [made.inner.loss_fn(meta_params.initial, meta_params.shared, batch)[0] for batch in batches]
    return sum(losses) / 3

  toy.assert_close((value, grads), toy.jit(jax.value_and_grad(mean))(meta_params), rtol=1e-6)
