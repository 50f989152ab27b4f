"""curves.png: the loss and the monitored metric over the steps, from metrics.csv."""

from __future__ import annotations

from pathlib import Path

from zoo.training.loggers import read_rows


def draw_curves(metrics: Path, picture: Path, *, monitor: str, title: str) -> bool:
    """Draw the picture; False where there is nothing to draw yet.

    Args:
        metrics: a metrics.csv.
        picture: the PNG to write.
        monitor: the metric of the right-hand panel, e.g. `val/accuracy`.
    """
    rows = read_rows(metrics)
    names = [name for name in ("train/loss", "val/loss", monitor) if any(row.get(name) for row in rows)]
    if not names:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: no global state, no display
    from matplotlib.figure import Figure

    panels = [[name for name in names if name.endswith("/loss")], [monitor]]
    if monitor.endswith("/loss") or monitor not in names:
        panels = panels[:1]
    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for name in panel:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            axis.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(picture, dpi=120)
    return True
