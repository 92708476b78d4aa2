"""One peer in a process of its own: it prints what it computes, then runs a meta-step for each line that it reads.

python -m experiments.peers.worker '["torch", ["sine", "mlp", 25, 10, 10, 1, ["torch"], 5, 64, 0.01]]'
"""

from __future__ import annotations

import json
import os
import sys
import time

from experiments.peers.cases import TORCH, Case

WARM_UP = 2


def main() -> None:
  """Serves until its standard input ends."""
  name, fields = json.loads(sys.argv[1])
  # Whatever a library prints goes to stderr; the pipe carries answers alone.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)

  if name in TORCH:
    from experiments.peers.torch_peers import make
  else:
    from experiments.peers.jax_peers import make
  peer = make(name, Case(*fields))
  for _ in range(WARM_UP):
    peer()
  print(json.dumps(peer.facts), file=answers, flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    peer()
    print(json.dumps(time.perf_counter() - start), file=answers, flush=True)


if __name__ == "__main__":
  main()
