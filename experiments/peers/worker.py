"""One peer in a process of its own: it prints what it computes, then times a meta-step for each line that it reads.

A short meta-step is run several times in a row, and its mean counts.

python -m experiments.peers.worker '["torch", ["sine", "mlp", 25, 10, 10, 1, ["torch"], 5, 64, 0.01]]'
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable

from experiments.peers.cases import TORCH, Case

WARM_UP = 2
AT_LEAST = 0.1  # seconds of each turn, so that waking up and cold caches are little of it


def main() -> None:
  """Serves until its standard input ends."""
  name, fields = json.loads(sys.argv[1])
  # Whatever a library prints goes to stderr; the pipe carries answers alone.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)

  if name in TORCH:
    from experiments.peers.torch_peers import make
  else:
    from experiments.peers.jax_peers import make, use_cores

    if name == "warpjax":
      use_cores(Case(*fields))
  peer = make(name, Case(*fields))
  seconds = [_mean_seconds(peer, 1) for _ in range(WARM_UP)]
  times = math.ceil(AT_LEAST / seconds[-1])
  print(json.dumps(peer.facts), file=answers, flush=True)
  for _ in sys.stdin:
    print(json.dumps(_mean_seconds(peer, times)), file=answers, flush=True)


def _mean_seconds(peer: Callable[[], object], times: int) -> float:
  start = time.perf_counter()
  for _ in range(times):
    peer()
  return (time.perf_counter() - start) / times


if __name__ == "__main__":
  main()
