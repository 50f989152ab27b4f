"""Levels 1 to 4: the form of a recipe, its names, its parameters, and whether the parts fit together.

Each level looks at whatever it can make sense of, so that one report holds the mistakes of all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from zoo.catalogue import Catalogue, Part
from zoo.choice import choose_task
from zoo.config import ConfigError, Problem, UnknownKey, build, describe, join, path_fields, unknown_key
from zoo.contract import Plan, kinds_of, resolve
from zoo.errors import ContractError, ZooError, close_names, suggest
from zoo.recipe.errors import Mistake, Origin
from zoo.recipe.misplaced import elsewhere
from zoo.recipe.optimisers import misspelt
from zoo.recipe.passed_on import OPTIMISER, PLATEAU, SCHEDULE, TRAINER
from zoo.recipe.schema import CallbackSection, Recipe
from zoo.recipe.source import Node, plain, walk
from zoo.recipe.version import unmet
from zoo.specs import DatasetSpec, ModelSpec, TaskSpec

#: Where a recipe names components, and of which kind.
PARTS = {
    "model": "model",
    "data": "dataset",
    "model.stem": "stem",
    "model.head": "head",
    "task": "task",
}
#: Where the parts of a plan are named in a recipe.
_BLAME = {
    "model": "model.name",
    "dataset": "data.name",
    "stem": "model.stem.name",
    "head": "model.head.name",
    "task": "task.name",
}


#: Callbacks that every recipe knows; others are components.
BUILT_IN = tuple(field.name for field in fields(CallbackSection))


class Check:
    """The levels of one recipe. `recipe` and `plan` stay `None` where a mistake is in the way."""

    def __init__(
        self, root: Node, catalogue: Catalogue, mistakes: list[Mistake], *, incomplete: bool
    ) -> None:
        self.catalogue, self.mistakes, self.incomplete = catalogue, mistakes, incomplete
        self.origins = {path: node.origin for path, node in walk(root)}
        self.data: dict[str, Any] = plain(root)
        self.parts: dict[str, Part] = {}
        self.notes: list[str] = []
        self.recipe = self.schema()
        self.versions()
        for path, kind in PARTS.items():
            self.part(path, kind)
        self.named("transforms", "transform")
        self.named("callbacks", "callback", besides=BUILT_IN)
        self.task_without_name()
        self.optimiser()
        self.passed_on()
        self.plan = None if mistakes or self.recipe is None else self.contract(self.recipe)

    def schema(self) -> Recipe | None:
        for path, value in _leaves(self.data):
            if value == "???":
                self.mistake(1, path, "must be given: '???' marks a value that is left to the recipe")
        built_in = {key: value for key, value in self.section("callbacks").items() if key in BUILT_IN}
        typed = self.data.get("callbacks") if not self.section("callbacks") else built_in
        data = {**self.data, "callbacks": typed} if "callbacks" in self.data else self.data
        try:
            return build(Recipe, data)
        except ConfigError as error:
            for problem in error.problems:
                if not (self.incomplete and problem.path not in self.origins):
                    self.problem(1, "", problem)
        return None

    def versions(self) -> None:
        wanted = self.data.get("plugins")
        for name, requirement in wanted.items() if isinstance(wanted, dict) else ():
            if isinstance(requirement, str):
                message = unmet(name, requirement, self.catalogue)
                if message:
                    self.mistake(2, join("plugins", name), message)

    def part(self, path: str, kind: str, name: str | None = None) -> None:
        """One component: its name, then its parameters."""
        section = self.section(path)
        name = name or section.get("name")
        params = section.get("params", {})
        preset = section.get("preset")
        if not isinstance(name, str) or not isinstance(params, dict):
            return
        if self.known(join(path, "name"), kind, name):
            self.parameters(path, kind, name, params, preset if isinstance(preset, str) else None)

    def named(self, section: str, kind: str, besides: Collection[str] = ()) -> None:
        """The components of a mapping from names to parameters; null leaves one out.

        besides: keys that are no components.
        """
        names: dict[str, str] = {}
        for key, params in self.section(section).items():
            name, path = str(key), join(section, str(key))
            if name in besides:
                continue
            if besides and "/" not in name and not self.installed(kind, name):
                ours = [spec.id for spec in self.catalogue.specs(kind)]
                self.mistake(1, path, unknown_key(name, dict.fromkeys([*besides, *ours])))
                continue
            id = self.known(path, kind, name)
            if id in names:
                self.mistake(2, path, f"is {names[id]!r} again: both mean {kind} {id!r}; name it once")
            elif id and params is None:
                self.notes.append(f"{path} is null, so it is left out ({{}} would mean its defaults)")
            elif id and isinstance(params, dict):
                self.parameters(path, kind, name, params, at_name=path, at_params=path)
            elif id:
                self.mistake(1, path, f"expected a mapping of parameters or null, got {describe(params)}.")
            if id:
                names.setdefault(id, name)

    def installed(self, kind: str, name: str) -> bool:
        try:
            self.catalogue.get(kind, name)
        except ZooError:
            return False
        return True

    def known(self, path: str, kind: str, name: str) -> str | None:
        """The full name of a component, if there is one; `path` is where it is named."""
        try:
            return self.catalogue.get(kind, name).id
        except ZooError as error:
            self.mistake(2, path, str(error))
            return None

    def parameters(
        self,
        path: str,
        kind: str,
        name: str,
        params: dict[str, Any],
        preset: str | None = None,
        *,
        at_name: str | None = None,
        at_params: str | None = None,
    ) -> None:
        try:
            params = self.located(path, kind, name, params)
            self.parts[path] = part = self.catalogue.part(kind, name, params, preset=preset)
            self.own_data(path, part)
            if part.kind == ModelSpec.kind:
                self.inside(part)
        except ConfigError as error:
            for problem in error.problems:
                self.problem(3, at_params or join(path, "params"), problem)
        except LookupError as error:
            self.mistake(2, join(path, "preset"), str(error))
            self.parameters(path, kind, name, params)
        except ZooError as error:  # its module cannot be imported
            self.mistake(2, at_name or join(path, "name"), str(error))

    def own_data(self, path: str, part: Part) -> None:
        """A user's own data is looked at here already, so that its parameters are blamed, not the pairing."""
        spec = self.catalogue.get(part.kind, part.id)
        if not isinstance(spec, DatasetSpec) or not spec.own:
            return
        try:
            kinds_of(self.catalogue, part)
        except ConfigError:
            raise
        except ZooError as error:  # the data itself
            self.mistake(3, join(path, "params", path_fields(type(part.config))[0]), str(error))

    def inside(self, model: Part) -> None:
        """What a model's parameters name in turn, such as its layers' mixers."""
        with suppress(ContractError):  # of parts that do exist: the contract's to tell
            self.catalogue.claims(model)

    def located(self, path: str, kind: str, name: str, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters, with files and folders of the user's by their whole paths."""
        config = self.catalogue.get(kind, name).config_class()
        found = {}
        for field in path_fields(config):
            if isinstance(params.get(field), str):
                origin = self.origins.get(join(path, "params", field))
                folder = origin.source.folder if origin else ""
                found[field] = os.path.abspath(os.path.join(folder, os.path.expanduser(params[field])))
        return {**params, **found}

    def task_without_name(self) -> None:
        """Parameters of a task that is left to the contract are those of the one it will choose."""
        if self.section("task").get("name") is not None or not self.section("task").get("params"):
            return
        if "data" in self.parts:
            try:
                _, targets = kinds_of(self.catalogue, self.parts["data"])
            except (ConfigError, ContractError):
                return
            spec = choose_task(self.catalogue, None, targets, required=False)
            if spec is not None:
                self.part("task", "task", spec.id)

    def optimiser(self) -> None:
        name = self.section("optim").get("name")
        message = misspelt(name) if isinstance(name, str) else ""
        if message:
            self.mistake(2, "optim.name", message)

    def passed_on(self) -> None:
        """Parameters that go to timm's optimisers and schedules, and to Lightning's Trainer."""
        schedule = PLATEAU if self.section("schedule").get("name") == "plateau" else SCHEDULE
        for key in sorted({"lr", "weight_decay"} & set(self.section("optim.params"))):
            self.mistake(3, f"optim.params.{key}", f"has a place of its own: optim.{key}")
        # Only a schedule's keywords are all known; of the others' a newer library may have more.
        for path, names, all_known in (
            ("optim.params", (*OPTIMISER, "lr", "weight_decay"), False),
            ("schedule.params", schedule, True),
            ("trainer.extra", TRAINER, False),
        ):
            for key in self.section(path):
                if str(key) not in names and (all_known or close_names(str(key), names)):
                    self.mistake(3, join(path, str(key)), unknown_key(str(key), dict.fromkeys(names)))

    def contract(self, recipe: Recipe) -> Plan | None:
        parts = self.parts
        try:
            plan = resolve(
                self.catalogue,
                model=parts["model"],
                width=recipe.model.width,
                dataset=parts["data"],
                stem=parts.get("model.stem"),
                head=parts.get("model.head"),
                task=parts.get("task"),
                transforms=[part for part in parts.values() if part.kind == "transform"],
                causal=recipe.model.causal,
            )
        except ContractError as error:
            path = _BLAME[getattr(error, "path", "model")]
            self.mistake(4, path, str(error))
        except ConfigError as error:
            for problem in error.problems:
                below = "model" if problem.path == "width" else "model.params"
                self.mistake(4, join(below, problem.path), problem.message)
        else:
            self.metrics(recipe, plan)
            if self.mistakes:
                return None
            task = recipe.task
            return replace(plan, monitor=task.monitor, mode=task.mode) if task.monitor else plan
        return None

    def metrics(self, recipe: Recipe, plan: Plan) -> None:
        """A recipe monitors a metric of the validation split and expects one of the test split."""
        spec = self.catalogue.get("task", plan.task.id) if plan.task else None
        if not isinstance(spec, TaskSpec) or not spec.metrics:
            return
        monitored = [f"val/{name}" for name in spec.metrics]
        scored = [f"test/{name}" for name in (*spec.metrics, *spec.played)]
        self.metric("task.monitor", recipe.task.monitor, monitored, spec, plan)
        if recipe.expect is not None:
            self.metric("expect.metric", recipe.expect.metric, scored, spec, plan)

    def metric(
        self, path: str, name: str | None, allowed: Collection[str], spec: TaskSpec, plan: Plan
    ) -> None:
        """One of these it must be; the patterns name fields of the targets."""
        known = [pattern.format(**asdict(plan.targets)) for pattern in allowed]
        if name is None or any(fnmatchcase(name, pattern) for pattern in known):
            return
        split, bare = known[0].partition("/")[0], name.partition("/")[2]
        message = f"task {spec.id!r} has no metric {name!r}"
        if bare in spec.played:
            message = f"{name!r} is scored by playing, after training, on the test split alone"
        elif any(fnmatchcase(f"{split}/{bare}", pattern) for pattern in known):
            message = f"must be a metric of the {split} split, but {name!r} is none"
        self.mistake(4, path, f"{message}.{suggest(name, known)}")

    def section(self, path: str) -> Mapping[str, Any]:
        """The mapping at a path, or an empty one."""
        found: Any = self.data
        for key in path.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def problem(self, level: int, below: str, problem: Problem) -> None:
        """A mistake in one section; of a key that does not exist there, where its place is."""
        path, message = join(below, problem.path), problem.message
        if isinstance(problem, UnknownKey) and (hint := elsewhere(path, self.classes())):
            message = f"there is no key {path.rpartition('.')[2]!r} here.{hint}"
        self.mistake(level, path, message)

    def classes(self) -> dict[str, type | None]:
        """Where the components that the recipe names have their parameters, and the classes of these."""
        found = {}
        for path, kind in PARTS.items():
            name = self.section(path).get("name")
            if isinstance(name, str) and self.installed(kind, name):
                with suppress(ZooError):
                    found[join(path, "params")] = self.catalogue.get(kind, name).config_class()
        return found

    def mistake(self, level: int, path: str, message: str) -> None:
        self.mistakes.append(Mistake(level, path, message, self.place(path)))

    def place(self, path: str) -> Origin:
        """Where the entry stands, or the nearest one around it; what is missing altogether has no line."""
        while path and path not in self.origins:
            path = path.rpartition(".")[0]
        origin = self.origins[path]
        return origin if path else Origin(origin.source)


def _leaves(data: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in _leaves(value, join(path, key))]
    if isinstance(data, list):
        return [leaf for i, value in enumerate(data) for leaf in _leaves(value, join(path, str(i)))]
    return [(path, data)]
