"""Transforms, held to what `zoo.plugin.TransformSpec` says, on a model of torch, of timm, of the zoo and
of the spec's own."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo import torchvision_shim
from zoo.contract import resolve
from zoo.data.random_inputs import normal
from zoo.errors import UnknownName, ZooError
from zoo.kinds import Classes, Image
from zoo.testing.check import NotApplicable
from zoo.testing.measure import CLOSE, require, require_close, require_finite
from zoo.testing.subject import Subject, seeded

_STEPS = 30
_LR = 1e-2


class _Given(NamedTuple):
    """A plain model, how it is called in a message, and an input."""

    name: str
    model: nn.Module
    x: Tensor


def check_transform_applies(subject: Subject) -> None:
    for plain, model in _transformed(subject):
        y, expected = model(plain.x), plain.model(plain.x)
        require(y.shape == expected.shape, f"{plain.name}: outputs of {tuple(y.shape)}, not {expected.shape}")
        require_finite(y, f"{plain.name}: outputs")
        y.square().mean().backward()
        for name, parameter in model.named_parameters():
            require(parameter.grad is not None, f"{plain.name}: {name} gets no gradient")


def check_transform_repeats(subject: Subject) -> None:
    for plain, model in _transformed(subject):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        again = _apply(subject, model).state_dict()
        names = sorted(again.keys() ^ before.keys())
        require(not names, f"{plain.name}: applied a second time, it changes {', '.join(names)}")
        changed = [name for name, tensor in before.items() if not torch.equal(tensor, again[name])]
        require(not changed, f"{plain.name}: applied a second time, it changes {', '.join(changed)}")


def check_transform_saves(subject: Subject) -> None:
    from zoo.layers import apply_transform
    from zoo.layers.model import Model

    plain = _of_the_zoo(subject)
    if not isinstance(plain.model, Model):
        raise NotApplicable("there is no core/transformer in this catalogue")
    model = copy.deepcopy(plain.model)
    given = dataclasses.asdict(subject.config) if subject.config is not None else {}
    try:
        with seeded(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            apply_transform(model, subject.spec.id, catalogue=subject.catalogue, **given)
    except ZooError as reason:
        raise NotApplicable(f"it refuses the model: {reason}") from reason
    model.eval()
    _require_file_gives_it_back(subject, model, plain.x, "the transformed model")
    model.reset_head(5, catalogue=subject.catalogue)
    _require_file_gives_it_back(subject, model, plain.x, "the transformed model with another head")


def check_transform_evaluates(subject: Subject) -> None:
    for plain, model in _transformed(subject):
        model.train()
        model(plain.x)
        model.eval()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        first, second = model(plain.x), model(plain.x)
        require_close(second, first, 0.0, f"{plain.name}: evaluating the same inputs again")
        changed = [name for name, t in model.state_dict().items() if not torch.equal(t, before[name])]
        require(not changed, f"{plain.name}: evaluation changes {', '.join(changed)}")


def check_transform_trains(subject: Subject) -> None:
    for plain, model in _transformed(subject):
        model.train()
        target = normal(tuple(plain.model(plain.x).shape), seed=3, dtype=torch.float64)
        optimizer = torch.optim.Adam(model.parameters(), lr=_LR)
        losses = []
        for _ in range(_STEPS):
            loss = (model(plain.x) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        require(
            losses[-1] < 0.8 * losses[0],
            f"{plain.name}: {_STEPS} steps on one batch bring the loss from {losses[0]:.3g} to "
            f"{losses[-1]:.3g}, expected less than 0.8 of it",
        )


def check_transform_folds(subject: Subject) -> None:
    from zoo.layers import fold_transforms
    from zoo.layers.model import Model

    if getattr(subject.spec, "fold", None) is None:
        raise NotApplicable("the transform has no fold")
    only_weights = getattr(subject.config, "folded", lambda: None)() is None
    for plain, model in _transformed(subject):
        model.train()
        model(plain.x)
        model.eval()
        before = model(plain.x)
        folded = fold_transforms(model, subject.spec.id, catalogue=subject.catalogue)
        require_close(folded(plain.x), before, CLOSE, f"{plain.name}: folded, against transformed")
        differ = sorted(folded.state_dict().keys() ^ plain.model.state_dict().keys())
        require(
            not only_weights or not differ, f"{plain.name}: folded weights are not the plain one's: {differ}"
        )
        if isinstance(folded, Model):
            _require_file_gives_it_back(subject, folded.float(), plain.x.float(), "the folded model")


def _require_file_gives_it_back(subject: Subject, model: Any, x: Tensor, what: str) -> None:
    from zoo.layers.weights import load_weights, save_weights

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.safetensors"
        save_weights(model, path, catalogue=subject.catalogue)
        again = load_weights(path, catalogue=subject.catalogue)
        require(again.plan.to_dict() == model.plan.to_dict(), f"{what}: the plan in its file is another one")
        x, model = x.float(), copy.deepcopy(model).float().eval()
        require_close(again(x), model(x), 0.0, f"{what}, from its file")


def _transformed(subject: Subject) -> Iterator[tuple[_Given, nn.Module]]:
    """Each model that the transform takes, as it was and transformed, in evaluation mode.

    Raises:
        ConformanceError: it takes none; with its reasons.
    """
    reasons = []
    makers: tuple[Callable[[Subject], _Given | None], ...] = (_of_torch, _of_timm, _of_the_zoo, _of_the_spec)
    taken = 0
    for make in makers:
        plain = make(subject)
        if plain is None:
            continue
        try:
            model = _apply(subject, copy.deepcopy(plain.model))
        except (ValueError, ZooError) as reason:
            reasons.append(f"{plain.name}: {reason}")
            continue
        taken += 1
        yield plain, model.eval()
    require(taken > 0, f"it refuses every model: {'; '.join(reasons)}")


def _apply(subject: Subject, model: nn.Module) -> nn.Module:
    """Apply the transform; where the model is the zoo's, its plan then says so."""
    from dataclasses import replace

    from zoo.layers.model import Model, transform

    with seeded(1):
        done, _ = transform(model, subject.part, catalogue=subject.catalogue)
    if isinstance(done, Model) and subject.part not in done.plan.transforms:
        done.plan = replace(done.plan, transforms=(*done.plan.transforms, subject.part))
    return done


def _of_torch(subject: Subject) -> _Given:
    """Something with linear maps, norms and `nn.MultiheadAttention`."""
    with seeded(0):
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        model = nn.Sequential(layer, nn.Linear(16, 16))
    return _Given("a torch encoder", model.double().eval(), normal((3, 5, 16), dtype=torch.float64))


def _of_timm(subject: Subject) -> _Given:
    """A vision transformer that the zoo did not build."""
    torchvision_shim.install()
    import timm

    with seeded(0):
        model = timm.create_model("test_vit", num_classes=4, img_size=32)
    return _Given("timm's test_vit", model.double().eval(), normal((3, 3, 32, 32), dtype=torch.float64))


def _of_the_zoo(subject: Subject) -> _Given:
    from zoo.layers.model import build_model

    found = subject.catalogue
    try:
        plan = resolve(
            found,
            model=found.part("model", "core/transformer", {"depth": 1, "heads": 2}),
            width=16,
            inputs=Image(channels=1, height=8, width=8),
            targets=Classes(count=4),
        )
    except UnknownName:  # a catalogue without the core
        return _of_torch(subject)
    with seeded(0):
        model = build_model(plan, catalogue=found)
    return _Given(
        "the zoo's core/transformer", model.double().eval(), normal((3, 1, 8, 8), dtype=torch.float64)
    )


def _of_the_spec(subject: Subject) -> _Given | None:
    """What the transform's author says that it takes."""
    with seeded(0):
        made = subject.spec.make_example()  # type: ignore[attr-defined]  # the kit is for transforms here
    if made is None:
        return None
    model, x = made
    return _Given("its own example", model.double().eval(), x.double() if x.is_floating_point() else x)
