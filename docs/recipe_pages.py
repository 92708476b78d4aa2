"""The pages of the experiments: a recipe's docstring as text, commands and tables, its rows and common settings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from warpjax.runner.config import listing, recipes
from warpjax.runner.reporting.tables import markdown

PAGE = """# {name}

{text}

{rows}

{common}

The file is `configs/{name}.py`. [RESULTS.md](../results.md) has each measured row's budget, time and further runs.
"""
INDEX = """# Experiments

Each page is a recipe: what it trains on, its commands, its rows, and the settings that they share.
One command runs a row:

```
warpjax train --config=NAME:ROW --workdir=DIR
```

| recipe | what it is | rows | measured |
|---|---|---|---|
{rows}

```{{toctree}}
:hidden:

{names}
```
"""
COMMAND = re.compile(r"(?P<label>[^`]*?):?\s*(?P<command>(?:python -m \S+|warpjax \w+) --\S.*)")
PATTERN = re.compile(
  r"`[^`]*`|docs/papers\b(?!/)|arXiv \d{4}\.\d{4,5}|python -m experiments\.\w+(?: --[^\s()]+(?<![,.:;]))*"
  r"|--[\w.-]+=[^\s()]*[\w*/\"]|\b[\w/]+\.(?:py|json|png|md|csv|txt)\b|(?<!\w)\w*_\w+\b|[|*$<>\[\]_]"
)


def pages() -> dict[str, str]:
  """The text of every page, by the name of its file."""
  every = {name: recipes.load(name) for name in recipes.names()}
  rows = []
  for name, recipe in every.items():
    title = marked(recipe.doc.strip().split("\n")[0])
    made = listing.rows(recipe) if listing.is_trained(recipe) else []
    counts = (len(made), sum(not _missing(row) for row in made)) if made else (len(recipe.methods), "-")
    rows.append(f"| [{name}]({name}.md) | {title} | {counts[0]} | {counts[1]} |")
  texts = {f"{name}.md": page(recipe) for name, recipe in every.items()}
  return texts | {"index.md": INDEX.format(rows="\n".join(rows), names="\n".join(every))}


def page(recipe: recipes.Recipe) -> str:
  """The page of a recipe."""
  text = "\n\n".join(_blocks(recipe))
  trained = listing.is_trained(recipe)
  rows, common = (_rows(recipe), _common(recipe)) if trained else ("", "")
  return PAGE.format(name=recipe.name, text=text, rows=rows, common=common)


def _blocks(recipe: recipes.Recipe) -> Iterator[str]:
  """The docstring: paragraphs, commands as code, and lines `name: text` as a table."""
  for paragraph in re.split(r"\n\s*\n", recipe.doc.strip()):
    items: list[tuple[str, str]] = []
    for kind, text in _lines(paragraph, recipe):
      if kind == "item":
        items.append(tuple(text.split(": ", 1)))
        continue
      if items:
        yield _items(items)
        items = []
      yield text
    if items:
      yield _items(items)


def _lines(paragraph: str, recipe: recipes.Recipe) -> Iterator[tuple[str, str]]:
  """The parts of a paragraph, each `item`, `code` or `text`."""
  part: list[str] = []
  for line in [*_joined(paragraph.split("\n"), recipe), None]:
    starts = line is None or _is_item(line, recipe) or _is_code(line)
    if part and (starts or _is_item(part[0], recipe) or _is_code(part[0])):
      yield _part(part, recipe)
      part = []
    if line is not None:
      part.append(line.strip())


def _joined(lines: list[str], recipe: recipes.Recipe) -> Iterator[str]:
  """The lines, with the flags of a command joined to it, and what is indented below an item joined to the item."""
  held = lines[0]
  for line in lines[1:]:
    is_flag = _is_code(held) and line.strip().startswith("--")
    if is_flag or (_is_item(held, recipe) and line.startswith("  ")):
      held = f"{held} {line.strip()}"
    else:
      yield held
      held = line
  yield held


def _part(part: list[str], recipe: recipes.Recipe) -> tuple[str, str]:
  text = " ".join(part)
  if _is_item(text, recipe):
    return "item", text
  if command := COMMAND.fullmatch(text):
    label = command["label"].strip().removesuffix(":")
    call, _, remark = command["command"].partition(" (")
    remark = f" ({remark}" if remark else ""
    return "code", f"{marked(label)}{marked(remark)}:\n\n```\n{call}\n```" if label else f"```\n{call}\n```"
  return "text", re.sub(r"^(Papers?|Data|Task|Method|Text):", r"**\1:**", marked(text))


def _is_code(text: str) -> bool:
  return COMMAND.fullmatch(text.strip()) is not None


def _is_item(line: str, recipe: recipes.Recipe) -> bool:
  """Whether a line begins with names of rows, of suffixes or of patterns, and a colon."""
  names, colon, _ = line.partition(": ")
  words = re.findall(r"[\w*]+", re.sub(r"\([^)]*\)", "", names))
  known = lambda word: word in recipe.methods or word in ("and", "to") or "_" in word or "*" in word
  return bool(colon) and not line.startswith("  ") and bool(words) and all(map(known, words))


def _items(items: list[tuple[str, str]]) -> str:
  coded = lambda names: re.sub(r"(?<!\w)(?!and\b|to\b|alphabets\b)([\w*]*[a-z][\w*]*)", r"`\1`", names)
  return markdown(("row", "what it is"), [(coded(names), marked(text)) for names, text in items])


def _rows(recipe: recipes.Recipe) -> str:
  """The rows with their papers and numbers, the measured ones first; rows of neither number are named at the end."""
  made = listing.rows(recipe)
  shown = [row for row in made if not (_missing(row) and row.published == "-")]
  others = [f"`{row.method}`" for row in made if row not in shown]
  lines = [(f"`{row.method}`", marked(row.published), marked(row.measured), marked(row.paper)) for row in shown]
  parts = ["## Rows"]
  parts += [markdown(("row", "published", "measured", "paper"), lines)] if lines else []
  parts += [f"Not yet run, and without a published number: {', '.join(others)}."] if others else []
  return "\n\n".join(parts)


def _missing(row: listing.Row) -> bool:
  return row.measured in (listing.NOT_RUN, "-")


def _common(recipe: recipes.Recipe) -> str:
  lines = [(f"`{path}`", f"`{value!r}`") for path, value in recipes.flat(recipe.common)]
  command = f"`warpjax train --config={recipe.name}:ROW --settings`"
  text = f"A row changes some of them. {command} prints those of a row, [with their meaning](../settings/index.md)."
  return f"## Common settings\n\n{text}\n\n{markdown(('setting', 'value'), lines)}"


def marked(text: str) -> str:
  """Plain text as Markdown: papers become links, flags and files code, and marks are escaped."""

  def one(match: re.Match[str]) -> str:
    word = match[0]
    if word.startswith("`"):
      return word.replace("|", "\\|")
    if word == "docs/papers":
      return f"[{word}](../papers/index.md)"
    if word.startswith("arXiv"):
      return f"[{word}](https://arxiv.org/abs/{word.split()[1]})"
    return f"\\{word}" if len(word) == 1 else f"`{word}`"

  return PATTERN.sub(one, text)
