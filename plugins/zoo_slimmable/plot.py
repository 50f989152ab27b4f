"""Quality against FLOPs, a panel for each task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from zoo_slimmable.search import ScoreTable


def plot_curves(table: ScoreTable, path: Path, *, title: str = "") -> None:
    """Draw what each width of the encoder (a colour) and of a task's decoder (a point) achieves on test.

    The cost is that of the encoder and of the task's own decoder; the line is what cannot be had for less.
    """
    count = len(table.tasks)
    figure = Figure(figsize=(4.2 * count, 3.6), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    split = "test" if "test" in table.quality else "val"
    quality = np.asarray(table.quality[split], dtype=float)
    encoder, decoder = np.asarray(table.encoder_macs, float), np.asarray(table.decoder_macs, float)
    for t, (task, axis) in enumerate(zip(table.tasks, axes, strict=True)):
        flops = 2e-6 * (encoder[:, None] + decoder[:, :, t])
        for e, width in enumerate(table.encoder):
            axis.plot(flops[e], quality[e, :, t], "o", markersize=4, label=f"encoder {width:g}")
        order = np.argsort(flops.ravel())
        best = np.maximum.accumulate(quality[:, :, t].ravel()[order])
        axis.step(flops.ravel()[order], best, where="post", color="0.6", linewidth=1, zorder=0)
        axis.set(xlabel="MFLOPs of encoder and decoder", title=task)
    axes[0].set_ylabel(f"quality on {split}")
    axes[-1].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
