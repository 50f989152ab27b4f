"""Cost against length, a picture for each quantity."""

from __future__ import annotations

from pathlib import Path

from zoo.bench.report import BASELINE, Bench, Quantity
from zoo.comparison.figures import as_svg_file, colour, make_figure
from zoo.quantities import amount

_DASHES = ("-", "--", ":", "-.")


def draw(bench: Bench, quantity: Quantity) -> str:
    """One quantity over the length, both logarithmic, a line for each model; an SVG file."""
    lines = [(model, bench.values(model, quantity)) for model in bench.models]
    lines = [(model, values) for model, values in lines if values]
    figure, axes = make_figure(7.2, max(3.6, 0.22 * len(lines) + 0.8))
    for index, (model, values) in enumerate(lines):
        power = bench.exponent(model, quantity)
        label = model + (f", N^{power:.2f}" if power is not None else "")
        axes.plot(
            list(values),
            list(values.values()),
            label=label,
            color=colour(index),
            linestyle=_DASHES[index // 8 % len(_DASHES)],  # after the eighth, colours begin again
            linewidth=2.4 if model == BASELINE else 1.4,
            marker="o",
            markersize=3.5,
        )
    lengths = sorted({n for _, values in lines for n in values})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.set_xlabel("tokens")
    units = {"forward_ms": "ms", "backward_ms": "ms", "decode_us": "µs"}
    axes.set_ylabel(f"{quantity.title}, {units.get(quantity.key, 'bytes')}")
    if quantity.key.endswith("bytes"):
        axes.yaxis.set_major_formatter(lambda value, place: amount(value))
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_color(axes.xaxis.label.get_color())
    return as_svg_file(figure)


def write(bench: Bench, folder: Path) -> list[Path]:
    """Write a picture for each quantity; their paths."""
    written = []
    for quantity in bench.quantities():
        path = folder / f"{quantity.key.partition('_')[0]}.svg"
        path.write_text(draw(bench, quantity), encoding="utf-8")
        written.append(path)
    return written
