"""Writes RESULTS.md, and the tables of README and of the docs, from the records in `results/`.

  python -m experiments.report
  python -m experiments.report --check      # exits with 1 where a file is not what it would write

A table in README or docs stands between `<!-- report: NAME -->` and `<!-- end of report -->`.
"""

from __future__ import annotations

import pathlib
import re
import sys

from absl import flags

from experiments.report import sections, tables
from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.reporting import records

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("README.md", "docs/*.md", "docs/papers/*.md")
BLOCK = re.compile(r"(<!-- report: (\w+)/?(\w*) -->\n).*?(<!-- end of report -->)", re.DOTALL)
BLOCKS = {"highlights": lambda name: tables.highlights(), "paper": tables.paper, "benchmark": tables.benchmark}


def results() -> str:
  """The whole of RESULTS.md."""
  every, parts = list(tables.entries()), [sections.HEAD]
  small = [entry for entry in every if tables.is_smoke(entry)]
  for section in sections.SECTIONS:
    if shown := [entry for entry in every if entry.section == section and entry not in small]:
      parts += [f"## {section.title}\n\n{section.text}\n", f"{tables.of(shown, tables.COLUMNS)}\n"]
      parts.append(tables.others(shown))
  parts += [sections.SMOKE_HEAD, tables.notes(small), f"{tables.of(small, tables.OF_SMOKE)}\n"]
  parts.append(tables.others(small))
  for name in sections.BENCHMARKS:
    title = workdir.read_json(records.FOLDER / "benchmark" / f"{name}.json")["title"]
    parts.append(f"## {title}\n\n{tables.benchmark(name)}\n")
  return "\n".join(filter(None, [*parts, f"## Never run\n\n{tables.not_run()}\n"]))


def files() -> dict[pathlib.Path, str]:
  """Every file that the records go into, with what it should hold."""
  texts = {path: path.read_text(encoding="utf-8") for pages in PAGES for path in sorted(ROOT.glob(pages))}
  filled = {path: BLOCK.sub(_block, text) for path, text in texts.items() if BLOCK.search(text)}
  return {ROOT / "RESULTS.md": results(), **filled}


def _block(match: re.Match[str]) -> str:
  return f"{match[1]}{BLOCKS[match[2]](match[3])}\n{match[4]}"


def stale() -> dict[pathlib.Path, str]:
  """The files that are not what the records say, with what they should hold."""
  wanted = files()
  return {path: wanted[path] for path in wanted if not path.exists() or path.read_text("utf-8") != wanted[path]}


def main() -> int | None:
  """Exits with 0, or with `--check` 1 where a file is stale."""
  texts = stale()
  if FLAGS.check and texts:
    names = ", ".join(str(path.relative_to(ROOT)) for path in texts)
    print(f"error: {names} must be what the records say; run python -m experiments.report.", file=sys.stderr)
    return 1
  for path, text in texts.items():
    workdir.write_text(path, text)
  return None


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_bool("check", False, "Write nothing; exit with 1 where a file is stale.")
  cli.run(main)
