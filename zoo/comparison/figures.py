"""What all pictures share: size, colours, and ink that can follow the page. They come as SVG."""

from __future__ import annotations

import io
import re
from typing import Any

#: Okabe and Ito's colours, told apart by the colour-blind, on white and on black.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b2a100", "#888888")
#: Stands for the page's colour until the picture is written.
_INK = "#0d0e0f"


def colour(index: int) -> str:
    """Of a line, by its place."""
    return COLOURS[index % len(COLOURS)]


def make_figure(width: float = 4.8, height: float = 3.2) -> tuple[Any, Any]:
    """A figure and its axes; sizes in inches."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.grid(alpha=0.25, color=_INK)
    axes.tick_params(which="both", colors=_INK)
    axes.spines[:].set_color(_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def as_svg(figure: Any) -> str:
    """The picture as an element of a page: text stays text, and what was ink follows the page."""
    text = _svg(figure)
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)


def as_svg_file(figure: Any) -> str:
    """The picture as a file of its own: dark ink, light where its reader likes it dark."""
    style = f"<style>svg{{color:{_INK}}}@media(prefers-color-scheme:dark){{svg{{color:#e4e8ea}}}}</style>"
    text = _svg(figure).replace(_INK, "currentColor")
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + style, text, count=1)


def _svg(figure: Any) -> str:
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "zoo", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return out.getvalue()
