"""One HTML page of a comparison that needs nothing else: table, learning curves, cost against metric."""

from __future__ import annotations

from html import escape

from zoo.comparison.charts import COSTS, curves, recorded, scatter
from zoo.comparison.figures import colour
from zoo.comparison.table import Comparison

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --paper: #ffffff; --rule: #d5dade; --soft: #5b656d }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ea; --paper: #15191c; --rule: #353d43; --soft: #9aa5ad }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem 1rem 3rem;
  color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p, li { max-width: 45rem } .soft { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--rule) }
th { color: var(--soft); font-weight: 600 } tbody th { color: var(--ink) }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; flex: 1 1 18rem; max-width: 26rem }
svg { display: block; width: 100%; height: auto }
.name { display: inline-block; margin-right: 1.2em }
code { font-size: .9em; overflow-wrap: anywhere }
"""


def page(comparison: Comparison, *, title: str) -> str:
    """The page as text. It loads nothing, runs no script, and is light or dark as its reader likes."""
    collection = comparison.collection
    seeds = sorted({seed for row in comparison.rows for seed in row.group.runs})
    better = {"min": ", less is better", "max": ", more is better", None: ""}[collection.mode]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(collection.data)}; <strong>{escape(collection.metric)}</strong>{better}; '
        f"seeds {', '.join(map(str, seeds))}. Mean ± standard deviation over seeds; "
        "differences are paired by seed, p by the paired t-test with Holm's correction.</p>",
        _table(comparison),
        _notes(comparison),
    ]
    costs = {f"{collection.metric} against {cost}": scatter(comparison, cost) for cost in COSTS}
    parts += _pictures("What it costs", "Bars: a standard deviation up and down.", costs, comparison)
    drawn = {f"{name} over the steps": curves(comparison, name) for name in recorded(comparison)}
    note = "Lines: means over seeds; bands: from the least to the most."
    parts += _pictures("Over the steps", note, drawn, comparison)
    parts.append(_runs(comparison))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _dot(index: int) -> str:
    return f'<span class="dot" style="background:{colour(index)}"></span>'


def _table(comparison: Comparison) -> str:
    heading, *body = comparison.cells()
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heading)
    rows = []
    for index, (label, *cells) in enumerate(body):
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{_dot(index)}{escape(label)}</th>{data}</tr>')
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _notes(comparison: Comparison) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes())
    return f'<ul class="soft">{notes}</ul>' if notes else ""


def _pictures(title: str, note: str, pictures: dict[str, str], comparison: Comparison) -> list[str]:
    """A section of pictures, name -> SVG; nothing where all are empty."""
    figures = [
        f'<figure role="img" aria-label="{escape(name)}">{picture}</figure>'
        for name, picture in pictures.items()
        if picture
    ]
    if not figures:
        return []
    shown = f'<div class="pictures">{"".join(figures)}</div>'
    return [f'<h2>{title}</h2><p class="soft">{note}</p>{_legend(comparison)}{shown}']


def _legend(comparison: Comparison) -> str:
    names = "".join(
        f'<span class="name">{_dot(index)}{escape(row.group.label)}</span> '
        for index, row in enumerate(comparison.rows)
    )
    return f"<p>{names}</p>"


def _runs(comparison: Comparison) -> str:
    items = []
    for row in comparison.rows:
        info = row.group.first.info
        machine = info.get("platform", {})
        where = f"{machine.get('gpu') or machine.get('system', '')}, {machine.get('threads', '?')} threads"
        folders = ", ".join(f"<code>{escape(run.path.name)}</code>" for run in row.group.runs.values())
        date = str(info.get("created", ""))[:10]
        items.append(
            f"<li><strong>{escape(row.group.label)}</strong>: {escape(str(info.get('describe', '')))}<br>"
            f'<span class="soft">{escape(date)}, {escape(where)}; runs {folders}</span></li>'
        )
    return f"<h2>What ran</h2><ul>{''.join(items)}</ul>"
