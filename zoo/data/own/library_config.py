"""Parameters of `core/torchvision` and `core/hugging_face`: data that another library loads (torch-free).

Only that library knows what is in it: the first look loads it, and is kept in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from zoo.config import param
from zoo.data.own.facts import cached_facts, existing, say
from zoo.data.own.images_config import PictureConfig
from zoo.errors import ZooError
from zoo.kinds import Classes, DataKind, Image, TargetKind, kind_from_dict
from zoo.sources import cache_folder


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig(PictureConfig):
    """Any dataset of torchvision that gives images of one class each."""

    path: str | None = param(
        None, "the folder of its files, torchvision's root; null: in the zoo's cache", path=True
    )
    dataset: str = param(help="a class of torchvision.datasets, e.g. CIFAR10")
    options: dict[str, Any] = param(
        factory=dict, help="further keywords of that class, e.g. {split: letters}"
    )
    download: bool = param(True, "whether torchvision may download what is not there")

    @property
    def root(self) -> Path:
        """Where its files lie."""
        return existing(self.path, folder=True) if self.path else cache_folder() / "torchvision"

    def kinds(self) -> tuple[Image, Classes]:
        """Inputs and targets, as the dataset has them."""
        found = self.facts()
        image = Image(channels=found["channels"], height=found["height"], width=found["width"])
        return image, Classes(count=len(found["classes"]), names=tuple(found["classes"]))

    def notes(self) -> Iterable[str]:
        """How many images there are, and how they are split."""
        return tuple(self.facts()["notes"])

    def facts(self) -> dict[str, Any]:
        """What a look at the dataset finds: once, until the folder's list of files changes."""
        root = self.root

        def compute() -> tuple[dict[str, Any], list[Path]]:
            from zoo.data.own.torchvision import study

            say(f"looking at {self.dataset} of torchvision, once")
            return study(self), [root]

        return cached_facts("torchvision", {**asdict(self), "root": str(root)}, compute)


@dataclass(frozen=True, kw_only=True)
class HuggingFaceConfig(PictureConfig):
    """Any dataset of the Hugging Face hub, or local files through one of its builders."""

    path: str | None = param(
        None, "for csv, json, parquet, text: the file; for imagefolder: the folder", path=True
    )
    test_path: str | None = param(None, "the file of the test split, where there is one", path=True)
    dataset: str = param(help="a name on the hub; or csv, json, parquet, text, imagefolder with a path")
    subset: str | None = param(None, "which configuration, where a dataset has several")
    input: str | None = param(
        None, "the column of images or texts; null: the only one, or all other columns as a table"
    )
    target: str | tuple[str, ...] | None = param(
        None, "the column to predict, of a table also several; null: of a text the next symbol"
    )
    unit: Literal["byte", "character"] = param("byte", "of texts: what a symbol is")
    length: int = param(
        256, "of texts: symbols per block; a text that is classified is cut there", at_least=2
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        local = self.dataset in LOCAL
        if local and self.path is None:
            yield "path", f"is required for {self.dataset}: what should it read?"
        if not local and self.path is not None:
            yield (
                "path",
                f"goes with a local builder ({', '.join(LOCAL)}); {self.dataset!r} is a name on the hub",
            )
        if self.test_path is not None and (not local or self.dataset == "imagefolder"):
            yield "test_path", "goes with csv, json, parquet, text"

    def kinds(self) -> tuple[DataKind, TargetKind]:
        """Inputs and targets, as the dataset has them."""
        found = self.facts()
        return kind_from_dict(found["inputs"]), kind_from_dict(found["targets"])

    def notes(self) -> Iterable[str]:
        """How many examples there are, what they are taken for, and how they are split."""
        return tuple(self.facts()["notes"])

    def facts(self) -> dict[str, Any]:
        """What a look at the dataset finds: once; of local files, until they change."""
        files = [existing(path, field=field) for field, path in self.paths.items()]

        def compute() -> tuple[dict[str, Any], list[Path]]:
            try:
                from zoo.data.own.hugging_face import study
            except ModuleNotFoundError as error:
                raise ZooError(
                    f"core/hugging_face needs the package {error.name!r}: pip install 'archzoo[hf]'"
                ) from None
            say(f"looking at {self.dataset} with Hugging Face's datasets, once")
            return study(self), files

        return cached_facts("hugging-face", {**asdict(self), "files": [str(file) for file in files]}, compute)

    @property
    def paths(self) -> dict[str, str]:
        """The local files that are given, by parameter."""
        given = {"path": self.path, "test_path": self.test_path}
        return {field: path for field, path in given.items() if path is not None}


#: Builders of Hugging Face that read local files.
LOCAL = ("csv", "imagefolder", "json", "parquet", "text")
