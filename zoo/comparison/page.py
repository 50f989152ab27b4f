"""One HTML page of comparisons that needs nothing else: table, learning curves, cost against metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem }
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


def page(comparisons: Sequence[Comparison], *, title: str) -> str:
    """The page as text. It loads nothing, runs no script, and is light or dark as its reader likes."""
    parts = [f"<h1>{escape(title)}</h1>"]
    for comparison in comparisons:
        parts += [f"<section>{''.join(part)}</section>" for part in _sections(comparison)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _sections(comparison: Comparison) -> Iterator[list[str]]:
    """What was compared on one dataset: the table, what it costs, the curves, the runs."""
    seeds = sorted({seed for row in comparison.groups for seed in row.seeds})
    better = {"min": ", less is better", "max": ", more is better", None: ""}[comparison.mode]
    yield [
        f"<h2>{escape(comparison.data)}</h2>",
        f'<p class="soft"><strong>{escape(comparison.metric)}</strong>{better}; '
        f"seeds {', '.join(map(str, seeds))}. Mean ± standard deviation over seeds; "
        "differences are paired by seed, p by the paired t-test with Holm's correction.</p>",
        _table(comparison),
        _notes(comparison),
    ]
    costs = {f"{comparison.metric} against {cost}": scatter(comparison, cost) for cost in COSTS}
    yield _pictures("What it costs", "Bars: a standard deviation up and down.", costs, comparison)
    drawn = {f"{name} over the steps": curves(comparison, name) for name in recorded(comparison)}
    note = "Lines: means over seeds; bands: from the least to the most."
    yield _pictures("Over the steps", note, drawn, comparison)
    yield [_runs(comparison)]


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
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
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
    return [f'<h3>{title}</h3><p class="soft">{note}</p>{_legend(comparison)}{shown}']


def _legend(comparison: Comparison) -> str:
    names = "".join(
        f'<span class="name">{_dot(index)}{escape(row.setting)}</span> '
        for index, row in enumerate(comparison.groups)
    )
    return f"<p>{names}</p>"


def _runs(comparison: Comparison) -> str:
    items = []
    for row in comparison.groups:
        folders = ", ".join(f"<code>{escape(name)}</code>" for name in row.runs)
        items.append(
            f"<li><strong>{escape(row.setting)}</strong>: {escape(row.model)}<br>"
            f'<span class="soft">{escape(row.date)}, {escape(row.machine)}; runs {folders}</span></li>'
        )
    return f"<h3>What ran</h3><ul>{''.join(items)}</ul>"
