"""Hooks of mkdocs: a folder in `nav` stands for its pages, `index.md` first; a page of curves is drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_config(config: Any) -> Any:
    config["nav"] = [_expanded(entry, Path(config["docs_dir"])) for entry in config["nav"]]
    return config


def on_post_build(config: Any) -> None:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from docs.generator.comparison import CURVES, curves_page

    (Path(config["site_dir"]) / "reference" / CURVES).write_text(curves_page(), encoding="utf-8")


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
