"""A hook of mkdocs: an entry of `nav` that names a folder stands for the pages in it, `index.md` first."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    config["nav"] = [_expanded(entry, Path(config["docs_dir"])) for entry in config["nav"]]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    [(title, target)] = entry.items()
    if isinstance(target, list):
        return {title: [below for e in target if (below := _expanded(e, docs)) is not None]}
    if not target.endswith("/"):
        return entry
    pages = sorted((docs / target).glob("*.md"), key=lambda page: (page.name != "index.md", page.name))
    return {title: [str(page.relative_to(docs)) for page in pages]} if pages else None
