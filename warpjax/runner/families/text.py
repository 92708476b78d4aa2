"""Text in chunks, for test-time training."""

from __future__ import annotations

from warpjax import networks
from warpjax.checks import check_counts
from warpjax.datasets import text as text_files
from warpjax.runner.config.schema import OfProblem, OfTest, OfTraining
from warpjax.runner.families.base import Data, Spec, frozen
from warpjax.tasks import text as text_tasks
from warpjax.types import InnerLoop

HELD_OUT = {"val": 0.05, "test": 0.1}  # shares of the text, at its end


def text(
  data_dir: str | None,
  num_chunks: OfProblem[int] = 16,
  chunk: OfProblem[int] = 128,
  context: OfProblem[int] = 64,
  train_adapts: OfTraining[bool] = True,
  test_adapts: OfTest[bool] = True,
) -> Spec:
  """Stretches of a text: inner step k predicts the bytes of chunk k, and the query after k steps is chunk k.

  The last tenth of the text is for tests, the twentieth before it for validation; both are cut into stretches that do
  not overlap. `data_dir` is a file, or a folder with one `.txt` file.

  Args:
    data_dir: The text.
    num_chunks: Chunks of a task.
    chunk: Bytes of a chunk.
    context: Bytes before a chunk that the network sees too.
    train_adapts: Whether the inner steps of training change the parameters; if not, all chunks see the initial ones.
    test_adapts: Whether the inner steps of the test change the parameters.
  """
  check_counts(num_chunks=num_chunks, chunk=chunk)
  check_counts(least=0, context=context)
  chunks = text_tasks.Chunks(num_chunks, chunk, context)

  def load() -> Data:
    whole = text_files.load(data_dir)
    first, second = (int(len(whole.data) * (1 - part)) for part in (sum(HELD_OUT.values()), HELD_OUT["test"]))
    parts = whole.data[:first], whole.data[first:second], whole.data[second:]
    if min(map(len, parts)) < chunks.length:
      raise ValueError(
        f"--data_dir must be a text of which a twentieth has the {chunks.length} bytes of a task; "
        f"{whole.name} has {len(whole.data)} bytes."
      )
    val, test = (text_tasks.windows(part, chunks) for part in parts[1:])
    description = {"text": whole.name, "sha256": whole.sha256, "bytes": len(whole.data)}
    return Data(text_tasks.sampler(parts[0], chunks), test, description, val)

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    del network
    rule = inner.rule if (train_adapts if training else test_adapts) else frozen(inner.rule)
    return inner._replace(rule=rule, batch_fn=chunks.batch_fn, query_batch_fn=chunks.query_batch_fn)

  return Spec("bits_per_byte", text_tasks.NUM_BYTES, load, loop=loop, own_batches=True)
