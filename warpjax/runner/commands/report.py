"""Writes RESULTS.md, and the tables of README and of the docs, from the records in `results/` of a checkout.

  warpjax report
  warpjax report --check      # exits with 1 if a file is out of date

A table in README or docs stands between `<!-- report: NAME -->` and `<!-- end of report -->`.
"""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Callable

from absl import flags

from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.machine import provenance
from warpjax.runner.reporting import records, results

ROOT = provenance.ROOT
PAGES = ("README.md", *(f"docs/{folder}*.md" for folder in ("", "get_started/", "how_to/", "papers/", "reference/")))
BLOCK = re.compile(r"(<!-- report: (\w+)/?(\w*) -->\n).*?(<!-- end of report -->)", re.DOTALL)
BLOCKS: dict[str, Callable[..., str]] = {
  "highlights": results.highlights,
  "why": results.why,
  "paper": results.paper,
  "benchmark": results.benchmark,
}


def stale() -> dict[pathlib.Path, str]:
  """The files that are out of date, with their new contents."""
  pages = {path: path.read_text(encoding="utf-8") for names in PAGES for path in sorted(ROOT.glob(names))}
  wanted = {path: BLOCK.sub(_filled, text) for path, text in pages.items()} | {ROOT / "RESULTS.md": results.results()}
  return {path: text for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text}


def _filled(match: re.Match[str]) -> str:
  return f"{match[1]}{BLOCKS[match[2]](*filter(None, [match[3]]))}\n{match[4]}"


def main() -> int | None:
  """Exits with 0; with `--check`, exits with 1 if a file is out of date."""
  records.check_checkout()
  texts = stale()
  if FLAGS.check and texts:
    names = ", ".join(str(path.relative_to(ROOT)) for path in texts)
    print(f"error: {names} must agree with the records; run warpjax report.", file=sys.stderr)
    return 1
  for path, text in texts.items():
    workdir.write_text(path, text)
  return None


def command() -> None:
  """Defines the flags and runs."""
  cli.define(places=False)
  flags.DEFINE_bool("check", False, "Write nothing; exit with 1 if a file is out of date.")
  cli.run(main)
