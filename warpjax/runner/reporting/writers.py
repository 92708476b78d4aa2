"""Writers: receivers of the rows of `metrics.jsonl`, such as TensorBoard."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from warpjax.runner import workdir
from warpjax.runner.config import schema

Writer = Callable[[Mapping[str, Any]], object]
"""Called with each row: `step`, `split` ("train" or "val"), and values by name."""


@contextlib.contextmanager
def opened(directory: pathlib.Path, first: int, writers: Sequence[str | Writer]) -> Iterator[Writer]:
  """Opens a writer to `metrics.jsonl` and to further writers.

  Args:
    directory: The workdir.
    first: The meta-step at which training starts; later rows, of a run that was killed, are removed.
    writers: Functions, or names in `WRITERS`.

  Yields:
    The writer.

  Raises:
    ValueError: For an unknown name.
  """
  with contextlib.ExitStack() as stack:
    others: list[Writer] = []
    for writer in writers:
      if isinstance(writer, str):
        make = schema.choose("--writer", writer, WRITERS)
        others.append(stack.enter_context(make(directory, first)))
      else:
        others.append(writer)

    def write(row: Mapping[str, Any]) -> None:
      workdir.append_metrics(directory, [row])
      for other in others:
        other(row)

    yield write


@contextlib.contextmanager
def tensorboard(directory: pathlib.Path, first: int) -> Iterator[Writer]:
  """Writes event files for TensorBoard into the workdir's `tensorboard/`.

  Raises:
    ImportError: If tensorboardX is not installed.
  """
  try:
    from tensorboardX import SummaryWriter
  except ImportError as error:
    raise ImportError('--writer=tensorboard needs tensorboardX: pip install "warpjax[tensorboard]"') from error
  # Its default writes every two minutes, and a run that is killed would lose them.
  made = SummaryWriter(str(directory / "tensorboard"), purge_step=first + 1, flush_secs=1)
  with contextlib.closing(made) as events:

    def write(row: Mapping[str, Any]) -> None:
      for name, value in row.items():
        if name not in ("step", "split") and isinstance(value, int | float):
          events.add_scalar(f"{row['split']}/{name}", value, row["step"])

    yield write


WRITERS = {"tensorboard": tensorboard}
