"""Every ok cell of `zoo matrix` trains: finite, falling loss and a gradient in every parameter.

Cells of a model that are joined by the same stem, head and task differ in numbers alone: in minutes (without
those marked slow) one of them is trained, over all models every dataset.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from zoo.catalogue import Part, catalogue
from zoo.contract import Plan, matrix
from zoo.data import Splits, collate, mask_of
from zoo.layers import build_model

STEPS = 12
READY = {spec.id for spec in catalogue().specs("dataset") if spec.files is None}  # nothing to fetch first
#: Models with parameters that only a whole block of tokens brings in, and the tokens that make one.
BLOCK_OF = {"landmark/lm": 51}
OUTCOMES = list(matrix(catalogue()))
PLANS = {(m, d): outcome for m, d, outcome in OUTCOMES if isinstance(outcome, Plan)}


def representatives() -> set[tuple[str, str]]:
    """A cell for each way in which stem, head and task join a model; the datasets take turns."""
    cells: dict[tuple[object, ...], list[str]] = {}
    for (model, dataset), plan in PLANS.items():
        if dataset in READY:
            parts = (part and part.id for part in (plan.stem, plan.head, plan.task))
            cells.setdefault((model, *parts), []).append(dataset)
    taken: Counter[str] = Counter()
    chosen = set()
    for (model, *_), datasets in cells.items():
        dataset = min(datasets, key=lambda one: taken[one])
        taken[dataset] += 1
        chosen.add((str(model), dataset))
    return chosen


def marks(cell: tuple[str, str]) -> tuple[pytest.MarkDecorator, ...]:
    if cell[1] not in READY:
        return (pytest.mark.fetch,)
    return () if cell in CHOSEN else (pytest.mark.slow,)


CHOSEN = representatives()
CELLS = [pytest.param(*cell, marks=marks(cell), id="-".join(cell)) for cell in PLANS]


_SAMPLES = TemporaryDirectory(prefix="archzoo-matrix-")  # gone when the process ends


@functools.cache
def part_of(dataset: str) -> Part:
    """A dataset at its defaults; one of the user's own data with its example."""
    spec = catalogue().get("dataset", dataset)
    if not spec.own:
        return catalogue().part("dataset", dataset)
    for extra in spec.extras:
        pytest.importorskip({"hf": "datasets", "parquet": "pyarrow"}[extra])
    folder = Path(_SAMPLES.name) / spec.name
    folder.mkdir()
    return catalogue().part("dataset", dataset, spec.make_sample(folder))


@functools.cache
def load(dataset: str) -> Splits:
    return catalogue().get("dataset", dataset).load()(part_of(dataset).config)


def small_plan(model: str, dataset: str) -> Plan:
    """The cell at a size that trains in a moment: same components, two layers of width 32."""
    from zoo.contract import resolve

    found = catalogue()
    config = found.get("model", model).config_class()
    small = {"depth": 2} if config is not None and "depth" in config.__dataclass_fields__ else {}
    return resolve(
        found,
        model=found.part("model", model, small),
        dataset=part_of(dataset),
        width=32,
    )


@pytest.mark.parametrize(("name", "dataset"), CELLS)
def test_cell_trains(name: str, dataset: str) -> None:
    plan = small_plan(name, dataset)
    torch.manual_seed(0)
    model = build_model(plan)
    assert plan.task is not None
    task = catalogue().get("task", plan.task.id).load()(plan.task.config, targets=plan.targets)
    train = load(dataset).train
    indices = list(range(min(16, len(train))))
    batch = (
        train.__getitems__(indices)
        if hasattr(train, "__getitems__")
        else collate([train[i] for i in indices])
    )
    mask = mask_of(batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    # A backbone without biases makes zeros of a token of zeros (the last step of a relative window) until the
    # stem's bias has moved; hence not at the first step alone.
    without = {name for name, _ in model.named_parameters()}
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = task.loss(model(batch["input"], mask=mask), batch)
        loss.backward()
        without -= {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        optimiser.step()
        losses.append(loss.item())
    assert not without or (name in BLOCK_OF and (plan.tokens or 0) < BLOCK_OF[name]), without
    assert all(loss == loss and abs(loss) < float("inf") for loss in losses), losses
    assert losses[-1] < 0.98 * losses[0], losses


def test_most_cells_are_ok() -> None:
    assert len([cell for cell in PLANS if cell[1] in READY]) >= 40
    assert {"aaren", "core", "timm"} <= {model.partition("/")[0] for model, _ in PLANS}
    assert len({model for model, _ in PLANS if model.startswith("timm/")}) >= 3


def test_every_model_and_every_dataset_is_trained_in_minutes() -> None:
    ready = [cell for cell in PLANS if cell[1] in READY]
    for side in (0, 1):
        assert {cell[side] for cell in CHOSEN} == {cell[side] for cell in ready}


def test_every_refusal_names_models_that_do_work_there() -> None:
    models = {spec.id for spec in catalogue().specs("model")}
    for model, dataset, outcome in OUTCOMES:
        if isinstance(outcome, Plan):
            continue
        assert model in outcome, (model, dataset, outcome)
        named = set(re.findall(r"[\w.-]+/[\w.-]*\w", outcome)) & models - {model}
        assert any((other, dataset) in PLANS for other in named), (model, dataset, outcome)
