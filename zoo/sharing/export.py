"""`zoo export`: the best model of a run as a folder that others can use, verified before it is there.

<run>/exports/<format>/
    model.safetensors | model.pt2 | model.onnx
    model.json        inputs, outputs, preprocessing, classes, versions, what was verified
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from zoo.catalogue import Catalogue
from zoo.contract import Plan, revisions_of
from zoo.errors import ZooError
from zoo.layers.model import Model
from zoo.layers.transform import fold_transforms
from zoo.layers.weights import load_weights, save_weights
from zoo.runs import Run, find_run
from zoo.sharing import graph
from zoo.sharing.card import describe_model
from zoo.sharing.folder import check_target, replacing_folder, write_description
from zoo.sharing.formats import Format, check_format
from zoo.sharing.graph import Shapes
from zoo.sharing.verify import Agreement, verify
from zoo.specs import TransformSpec
from zoo.training.evaluation import best_model, recipe_of
from zoo.training.setup import load_splits

#: Checks of the kit whose known limits forbid a format.
_NEEDS: dict[str, tuple[str, ...]] = {
    "safetensors": (),
    "torch-export": ("exports", "exports_whole"),
    "onnx": ("exports", "exports_whole", "exports_onnx"),
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written. agreement: with the trained model. folded: transforms that are plain weights now."""

    folder: Path
    file: Path
    agreement: Agreement
    folded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def export_run(
    run: Run | str | Path,
    format: str,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    batch_size: int | None = None,
    any_length: bool = False,
    overrides: Sequence[str] = (),
) -> Exported:
    """Write the best model of a run for use elsewhere, once it gives what the trained one gives.

    Transforms are folded back into plain weights where they can be.

    Args:
        format: "safetensors" (weights that `zoo.load_model` reads), "torch-export" or "onnx" (graphs).
        output: the folder to make; by default `exports/<format>` in the run's.
        overwrite: replace an earlier export there.
        batch_size: of a graph for this size alone; `None`: any.
        any_length: a graph for inputs of any length up to the longest; else of that length.
        overrides: `data.params....=value` each, where the training data lies elsewhere now.

    Raises:
        ZooError: no such run or format; the folder is there; a known limit of the model; a graph cannot be
            made; or it does not give what the model gives. Nothing is left then.
    """
    chosen = _format(format, batch_size=batch_size, any_length=any_length)
    run = run if isinstance(run, Run) else find_run(run)
    target = Path(output) if output is not None else run.path / "exports" / chosen
    check_target(target, overwrite=overwrite)
    loaded = recipe_of(run, overrides)
    catalogue = loaded.catalogue
    if chosen == "onnx":
        graph.require_onnx()
    check_limits(loaded.plan, chosen, catalogue)
    model = best_model(run, loaded)
    eager = best_model(run, loaded) if model.plan.transforms else model  # folding changes the model itself
    folded = fold(model, catalogue)
    shapes = Shapes.of(loaded.plan.inputs, batch=batch_size, any_length=any_length)
    with replacing_folder(target) as made:
        file = made / ("model.safetensors" if chosen == "safetensors" else graph.FILES[chosen])
        agreement = write_model(model, file, chosen, shapes, eager=eager, catalogue=catalogue)
        description = {
            "format": chosen,
            "recipe": run.info["recipe"],
            **describe_model(model.plan, load_splits(loaded), run.info),
            "folded": folded,
            "verified": {
                "batch_size_and_length": [list(pair) for pair in agreement.tried],
                "largest_error": agreement.error,
            },
        }
        if chosen != "safetensors":
            description["graph"] = _signature(model.plan, shapes)
        write_description(made, description)
    left = [part.id for part in model.plan.transforms]
    return Exported(
        folder=target,
        file=target / file.name,
        agreement=agreement,
        folded=tuple(folded),
        notes=(f"{', '.join(left)} has no plain form, or not for all it changed: it stays",) if left else (),
    )


def write_model(
    model: Model, file: Path, format: Format, shapes: Shapes, *, eager: Model, catalogue: Catalogue
) -> Agreement:
    """Put a model into a file of a format, read it again, and hold it to the eager one.

    Raises:
        ZooError: it cannot be written so, or is not the same.
    """
    if format == "safetensors":
        save_weights(model, file, catalogue=catalogue)
        again = load_weights(file, catalogue=catalogue)
        tried = Shapes(length=shapes.length).tried(eager.plan)
        return verify(lambda x, mask=None: again(x, mask=mask), eager, eager.plan, tried)
    graph.write(graph.trace(model, shapes), format, file)
    return verify(graph.read(format, file), eager, eager.plan, shapes.tried(eager.plan))


def fold(model: Model, catalogue: Catalogue) -> list[str]:
    """Turn the transforms that have a plain form back into plain weights; their names."""
    ids = [part.id for part in model.plan.transforms]
    plain = [id for id in ids if cast(TransformSpec, catalogue.get("transform", id)).fold is not None]
    if plain:
        fold_transforms(model, *plain, catalogue=catalogue)
    return plain


def check_limits(plan: Plan, format: Format, catalogue: Catalogue) -> None:
    """Refuse a format that a component of the model is known not to survive.

    Raises:
        ZooError: names the component, the check and the reason.
    """
    for name in revisions_of(plan, catalogue):
        kind, _, id = name.partition(" ")
        limits = catalogue.get(kind, id).known_limits
        for check in _NEEDS[format]:
            if check in limits:
                raise ZooError(
                    f"{kind} {id!r} cannot be exported as {format}, a known limit ({check}): "
                    f"{limits[check]}. --format safetensors always works"
                )


def _format(format: str, *, batch_size: int | None, any_length: bool) -> Format:
    chosen = check_format(format)
    if chosen == "safetensors" and (batch_size is not None or any_length):
        raise ZooError("safetensors holds weights, no graph: leave out --batch-size and --any-length")
    return chosen


def _signature(plan: Plan, shapes: Shapes) -> dict[str, Any]:
    """Names, types and axes of what a graph takes and gives."""
    x, *masks = graph.random_inputs(plan, 1, shapes.length or 1, seed=0)
    batch: int | str = "any" if shapes.batch is None else shapes.batch
    steps = f"1..{shapes.length}" if shapes.any_length else shapes.length
    axes = [batch, *([steps] if shapes.length else []), *x.shape[2 if shapes.length else 1 :]]
    inputs = [{"name": "x", "type": str(x.dtype).removeprefix("torch."), "shape": axes}]
    if masks:
        inputs.append({"name": "mask", "type": "bool", "shape": axes[:2], "true": "the step counts"})
    return {"inputs": inputs, "outputs": plan.targets.outputs}
