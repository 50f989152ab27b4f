"""`zoo slim search RUN`, `zoo slim export RUN` and `zoo slim curves RUN`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.commands import Answer, SavedRun
from zoo.plugin import ZooError
from zoo_slimmable.config import CurvesConfig, ExportConfig, SearchConfig
from zoo_slimmable.search import ScoreTable, parse_budget, parse_named, search

TABLE = "slim_table.json"
PICTURE = "slim_curves.png"


def find(run: SavedRun, config: SearchConfig) -> Answer:
    """Widths of encoder and decoders for a budget and preferences, from the run's table."""
    preferences = parse_named(config.prefer, "preferences")
    table = table_of(run, config.widths)
    found = search(table, parse_budget(config.budget, table), preferences, spend=config.spend)
    widths = ",".join(
        [f"encoder={found.encoder:g}", *(f"{task}={width:g}" for task, width in found.decoders.items())]
    )
    lines = [
        f"encoder {found.encoder:g}" + "".join(f", {t} {w:g}" for t, w in found.decoders.items()),
        f"{2 * found.macs:,} FLOPs, {found.share:.3f}x of full width",
    ]
    for task in table.tasks:
        values = ", ".join(f"{split} {quality[task]:.4f}" for split, quality in found.quality.items())
        lines.append(f"{task}: {values}")
    lines.append(f"zoo slim export {run.folder} --widths {widths}")
    return Answer(text="\n".join(lines), data={**asdict(found), "flops": 2 * found.macs, "widths": widths})


def export(run: SavedRun, config: ExportConfig) -> Answer:
    """Cut a network out, and write it as a program of torch.export, which needs no code of the zoo."""
    from zoo_slimmable.configuration import tasks_of
    from zoo_slimmable.program import write_program
    from zoo_slimmable.table import calibrated, first_inputs

    model = run.model()
    configuration = widths_of(config.widths, tasks_of(model))
    try:
        calibrated(model, run, configuration)
    except ValueError as error:
        raise ZooError(f"--widths: {error}") from error
    tasks = tuple(filter(None, (task.strip() for task in config.tasks.split(","))))
    typed = ",".join([str(config.widths).replace("=", ""), *tasks])
    name = config.name or re.sub(r"[^\w.-]+", "_", typed).strip("_")
    path = run.folder / f"slim_{name}.pt2"
    done = write_program(model, first_inputs(run), path, tasks=tasks)
    text = (
        f"{path}: {done['parameters']:,} parameters of {done['full_parameters']:,}, {done['flops']:,} FLOPs "
        f"({done['share']:.3f}x)\noutputs of the slimmed network: "
        + ("the same, bit for bit" if done["same"] else f"they differ by {done['difference']:.2g}")
        + f"\ntorch.export.load({path.name!r}).module()(x) runs it"
    )
    return Answer(text=text, data={"path": str(path), **done})


def curves(run: SavedRun, config: CurvesConfig) -> Answer:
    """Draw quality against FLOPs for each task, and measure how well preferences are followed."""
    from zoo_slimmable.metrics import compare, controllability
    from zoo_slimmable.plot import plot_curves

    table = table_of(run, config.widths)
    path = run.folder / PICTURE
    plot_curves(table, path, title=str(run.info.get("title") or ""))
    lines, data = [str(path)], []
    for share in config.budgets:
        budget = share * table.full_macs
        measured, beside = controllability(table, budget), compare(table, budget)
        lines += [
            f"budget {share:g}x: hypervolume above ({', '.join(f'{v:.4f}' for v in measured.reference)})",
            "  " + ", ".join(f"{n} {'-' if v is None else f'{v:.3g}'}" for n, v in beside.items()),
            "  response to preferences " + ", ".join(f"{t} {v:.2f}" for t, v in measured.response.items()),
            f"  of the budget used: {measured.used[1]:.3f} to {measured.used[0]:.3f}",
        ]
        data.append({**asdict(measured), "beside": beside})
    return Answer(text="\n".join(lines), data={"picture": str(path), "budgets": data})


def table_of(run: SavedRun, widths: tuple[float, ...]) -> ScoreTable:
    """The run's table, measured once and then read from its folder."""
    path: Path = run.folder / TABLE
    identity: dict[str, Any] = {
        "widths": list(widths),
        **{name: run.info.get(name) for name in ("best_step", "best_value", "ended")},
    }
    if path.is_file():
        table = ScoreTable.load(path)
        if dict(table.made_from) == identity:
            return table
    from zoo_slimmable.table import measure

    table = measure(run, widths, made_from=identity)
    table.save(path)
    return ScoreTable.load(path)


def widths_of(text: str | float, tasks: Sequence[str]) -> dict[str, float]:
    """Widths as they are typed, by name of a module: one number, or "encoder=0.5,digit=0.25".

    Raises:
        ZooError: it reads otherwise, or names a task that has no decoder of its own.
    """
    from zoo_slimmable.configuration import DECODERS, ENCODER

    try:
        return {"*": float(text)}
    except ValueError:
        named = parse_named(str(text), "widths")
    if not named:
        raise ZooError("--widths: give one number, or names as in encoder=0.5,digit=0.25")
    places = {"encoder": ENCODER, **{task: f"{DECODERS}.{task}" for task in tasks}}
    for name in named:
        if name not in places and not re.search(r"[.*?[]", name) and name != ENCODER:
            raise ZooError(
                f"--widths: there is no part {name!r}. There is: {', '.join(places)}; layers go by their "
                "names or patterns, as in backbone.stages.0*=0.5"
            )
    return {places.get(name, name): width for name, width in named.items()}
