"""A transform applied to a trained run: a run folder of its own, which is evaluated and exported like any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from zoo.catalogue import Part
from zoo.contract import revisions_of
from zoo.data.random_inputs import sample_of
from zoo.errors import ZooError
from zoo.kinds import Image, Vector
from zoo.layers.model import Model, transform
from zoo.layers.weights import save_weights
from zoo.recipe import LoadedRecipe, load_recipe
from zoo.recipe.render import part_params, resolved
from zoo.runs import Run, create_run, find_run, recipe_folder
from zoo.training.checkpoint import write_checkpoint
from zoo.training.evaluation import best_model, recipe_of
from zoo.training.record import circumstances

#: Kept in the record of the new run as they are in the old one.
_SAME = ("title", "tags", "seed", "monitor", "mode", "data", "extra")


@dataclass(frozen=True, kw_only=True)
class TransformedRun:
    """What came of it. change: the largest difference of outputs on random input, relative to their size."""

    run: Run
    change: float
    notes: tuple[str, ...] = ()


def transform_run(
    run: Run | str | Path,
    name: str,
    params: Sequence[str] = (),
    *,
    overrides: Sequence[str] = (),
) -> TransformedRun:
    """Apply a transform to the best model of a run, and put it into a new run folder beside it.

    Args:
        name: a transform, see `zoo list transforms`.
        params: its parameters, `key=value` each, read as in a recipe.
        overrides: `data.params....=value` each, where the training data lies elsewhere now.

    Raises:
        ZooError: no such run or transform; it is applied already; it refuses this model.
    """
    run = run if isinstance(run, Run) else find_run(run)
    loaded = recipe_of(run, overrides)
    id = loaded.catalogue.get("transform", name).id
    if id in (part.id for part in loaded.plan.transforms):
        raise ZooError(f"transform {id!r} is applied to run {str(run.path)!r} already")
    if wrong := [text for text in params if "=" not in text[1:]]:
        raise ZooError(f"a parameter of the transform reads key=value, got {wrong[0]!r}")
    given = [f"transforms.{id}={{}}", *(f"transforms.{id}.{text}" for text in params)]
    new = load_recipe(run.resolved, [*overrides, *given])
    part = new.plan.transforms[-1]
    plain, model = (best_model(run, loaded) for _ in range(2))
    torch.manual_seed(loaded.recipe.seed)  # for transforms that draw something
    _, notes = transform(model, part, catalogue=loaded.catalogue)
    model.plan = replace(model.plan, transforms=(*model.plan.transforms, part))
    made = _save(model.eval(), new, run, part)
    return TransformedRun(run=made, change=_change(plain, model), notes=notes)


def _save(model: Model, loaded: LoadedRecipe, source: Run, part: Part) -> Run:
    recipe = f"{source.info['recipe']}+{part.id.partition('/')[2]}"
    text = loaded.render()
    made = create_run(_root(source), recipe, {"recipe.yaml": text, "resolved.yaml": text})
    try:
        state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        write_checkpoint({"state_dict": state}, made.best)
        save_weights(model, made.weights, catalogue=loaded.catalogue)
        made.update(
            **{key: source.info[key] for key in _SAME if key in source.info},
            overrides=[],
            step=source.info.get("step"),
            best_step=source.info.get("best_step"),
            parameters=model.num_parameters,
            plan=model.plan.to_dict(),
            describe=loaded.plan.describe(),
            settings=resolved(loaded),
            revisions=revisions_of(loaded.plan, loaded.catalogue),
            transformed={
                "run": source.path.name,
                "recipe": source.info["recipe"],
                "transform": part.id,
                "params": part_params(part),
            },
            **circumstances(loaded.catalogue),
            status="transformed",
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    except BaseException as error:
        made.update(status="failed", error=f"{type(error).__name__}: {error}")
        raise
    return made


def _root(run: Run) -> Path:
    """The folder of all runs that this one lies in; `runs` where it was moved out of one."""
    parts = recipe_folder("", run.info["recipe"]).parts
    above = run.path.absolute().parent
    if above.parts[-len(parts) :] != parts:
        return Path("runs")
    root = above.parents[len(parts) - 1]
    return root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root


@torch.no_grad()
def _change(plain: Model, model: Model) -> float:
    """How far the outputs moved on a random batch, relative to the largest."""
    inputs = plain.plan.inputs
    x = sample_of(inputs, 4, 1 if isinstance(inputs, (Image, Vector)) else inputs.length)
    before, after = plain(x), model(x)
    return float((after - before).abs().max()) / max(1.0, float(before.abs().max()))
