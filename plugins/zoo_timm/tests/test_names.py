"""Names read from timm's source text are those of timm's own registry."""

from __future__ import annotations

import subprocess
import sys

import pytest
from zoo_timm.names import names

import zoo
from zoo import torchvision_shim
from zoo.plugin import ZooError

torchvision_shim.install()

import timm  # noqa: E402


def test_architectures_are_those_of_timm() -> None:
    assert {name for name in names() if "." not in name} == set(timm.list_models())


def test_every_pretrained_name_of_timm_is_a_name() -> None:
    unknown = [name for name in timm.list_pretrained() if name not in names()]
    assert unknown == []


def test_few_listed_weights_are_not_there() -> None:
    """Tables also hold entries without weights; and a few tags cannot be read."""
    listed, real = {name for name in names() if "." in name}, set(timm.list_pretrained())
    assert len(listed - real) < 0.05 * len(real)
    assert len(real - listed) < 0.05 * len(real)


@pytest.mark.parametrize("name", ["resnet19", "resnet18.nonsense", "resnet18.", ".a1_in1k", "", "Resnet18"])
def test_what_is_no_name(name: str) -> None:
    assert name not in names()


def test_names_cost_no_torch() -> None:
    code = """
import sys
from zoo.catalogue import catalogue
found = catalogue()
found.part("model", "timm/resnet18.a1_in1k", {"drop_path_prob": 0.1})
assert len(found.listed("model", "timm/*")) > 1000
print([n for n in ("torch", "timm", "torchvision") if n in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_zoo_lists_them() -> None:
    assert "timm/resnet18" in zoo.list_models("timm/resnet*")
    assert "timm/resnet18.a1_in1k" in zoo.list_models("timm/resnet18.*")
    assert not [name for name in zoo.list_models(accepts="image") if name.startswith("timm/")]
    with pytest.raises(ZooError, match=r"unknown model 'timm/resnet81'\. Did you mean 'timm/resnet18'"):
        zoo.create_model("timm/resnet81", dataset="digits")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "timm/resnet81"], "unknown model 'timm/resnet81'. Did you mean 'timm/resnet18'"),
        (["show", "timm/*"], "'timm/*' is a family of models: write the name of one."),
        (["matrix", "--models", "timm/resnet18", "--datasets", "core/digits"], "ok"),
        (["list", "models"], "zoo list 'timm/*'"),
        (["list", "timm/resnet18.a*"], "timm/resnet18.a1_in1k"),
    ],
)
def test_verbs_know_the_family(arguments: list[str], words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "zoo", *arguments], capture_output=True, text=True)
    assert words in done.stdout + done.stderr
    assert done.returncode == (2 if "unknown" in words or "family" in words else 0)
