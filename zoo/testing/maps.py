"""A model that can take images answers each of their pixels. B batch, K outputs, H and W rows and columns."""

from __future__ import annotations

from typing import cast

import torch

from zoo.catalogue import Part
from zoo.contract import resolve
from zoo.data.random_inputs import normal
from zoo.errors import ContractError
from zoo.kinds import Classes, Maps, Values
from zoo.testing.check import NotApplicable
from zoo.testing.measure import gradients_of, require, require_finite
from zoo.testing.subject import ModelSubject, Subject, seeded


def check_maps(subject: Subject) -> None:
    from zoo.layers.model import build_model

    model = cast(ModelSubject, subject)
    image = model.image
    parts: dict[str, Classes | Values] = {"which": Classes(count=3), "how_far": Values(count=1)}
    try:
        plan = resolve(
            subject.catalogue,
            model=Part("model", subject.spec.id, subject.config, subject.spec.revision),
            width=subject.width,
            inputs=image,
            targets=Maps(height=image.height, width=image.width, parts=parts),
        )
    except ContractError as error:
        raise NotApplicable(str(error)) from error
    with seeded(0):
        whole = build_model(plan, catalogue=subject.catalogue)
    x = normal((2, image.channels, image.height, image.width)).requires_grad_()
    outputs = whole(x)
    expected = (2, 4, image.height, image.width)
    require(tuple(outputs.shape) == expected, f"maps of shape {tuple(outputs.shape)}, expected {expected}")
    require_finite(outputs, "maps")
    outputs.square().mean().backward()
    gradients = gradients_of(whole.head)
    for name, gradient in gradients.items():
        require_finite(gradient, f"the gradient of the head's {name}")
        require(bool(gradient.any()), f"the head's {name} gets no gradient")
    seen = cast(torch.Tensor, x.grad).abs().amax((0, 1))  # (H, W)
    require_finite(seen, "the gradient of the image")
    unseen = int((seen == 0).sum())
    require(unseen == 0, f"{unseen} of {seen.numel()} pixels have no part in any answer")
