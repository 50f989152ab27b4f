"""What the installed plugins provide, and how a name finds its component (torch-free).

A plugin that did not load (see `zoo.loader`) is a row of `plugins`, one line on stderr and a clause of the
related "unknown name" error. Nothing is ever overwritten: full names are `plugin/name`, and a short name
works while only one plugin has it.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, cast

import pluggy

from zoo import plugin as zp
from zoo.config import ConfigError, Problem, build
from zoo.errors import UnknownName, ZooError, either, one_line, suggest, suggest_id
from zoo.loader import HEAVY, OWN_DISTRIBUTION, Plugin, caller, installed, load
from zoo.specs import SPEC_KINDS, FamilyMemberSpec, ModelFamilySpec, ModelSpec, Spec
from zoo.switches import Switches


@dataclass(frozen=True)
class Part:
    """A component with its parameters: what a plan is made of."""

    kind: str
    id: str
    config: Any = None
    revision: int = 1


class Catalogue:
    """Everything that the installed plugins provide.

    `Catalogue.discover()` reads the entry points; `add(module, ...)` registers a module directly, which
    is how tests give a fresh catalogue a plugin of their own.
    """

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self._manager = pluggy.PluginManager("zoo")
        self._manager.add_hookspecs(zp.Hooks)
        self._specs: dict[str, dict[str, Spec]] = {cls.kind: {} for cls in SPEC_KINDS}
        self._aliases: dict[str, dict[str, str]] = {cls.kind: {} for cls in SPEC_KINDS}
        self._families: dict[str, ModelFamilySpec] = {}  # by plugin id
        self._warned: set[str] = set()

    # -- discovery ---------------------------------------------------------------------------

    @classmethod
    def discover(cls, switches: Switches | None = None) -> Catalogue:
        """Load every entry point of the group, those of this distribution first, then by name.

        Raises:
            ZooError: a switch names a plugin that is not installed, or `strict` is set and one fails.
        """
        self = cls()
        switches = switches or Switches()
        found = installed()
        if not any(plugin.own and plugin.id == "core" for plugin, _ in found):
            raise ZooError(
                "the zoo's own components are not installed: this Python sees the package 'zoo' but no "
                "distribution 'archzoo'. In a checkout run: pip install -e ."
            )
        # Our own plugins share a distribution, so its name means none of them.
        switches.check((plugin.id, "" if plugin.own else plugin.distribution) for plugin, _ in found)
        for plugin, import_module in found:
            blocked_by = switches.blocks(plugin.id, plugin.distribution, own=plugin.own)
            if blocked_by:
                plugin.status, plugin.reason = "blocked", f"blocked by {blocked_by}"
                self.plugins.append(plugin)
            else:
                self._take(plugin, import_module, strict=switches.strict, patience=switches.patience)
        self._fill_presets()
        for plugin in self.plugins if switches.strict else ():
            if plugin.problems:
                raise ZooError(f"plugin {plugin.id!r} ({plugin.distribution}): {'; '.join(plugin.problems)}")
        return self

    def add(self, module: Any, *, id: str, distribution: str = "", version: str = "0") -> Plugin:
        """Register one plugin module directly. Failures become its status, as in discovery."""
        name = getattr(module, "__name__", id)
        plugin = Plugin(id=id, value=name, distribution=distribution or id, version=version)
        self._take(plugin, lambda: module)
        self._fill_presets()
        return plugin

    def _take(
        self, plugin: Plugin, import_module: Callable[[], Any], *, strict: bool = False, patience: float = 0
    ) -> None:
        """Load a plugin and file its specs by name; the first of a name is kept."""
        rival = next((p for p in self.plugins if p.id == plugin.id and p.status != "blocked"), None)
        self.plugins.append(plugin)
        specs = load(plugin, import_module, self._manager, rival=rival, strict=strict, patience=patience)
        for spec in specs:
            spec = replace(spec, plugin=plugin.id)
            family = spec if isinstance(spec, ModelFamilySpec) else None
            shown: list[Spec] = [family.member(name) for name in family.shown] if family else [spec]
            if family:
                kept: Spec = self._families.setdefault(plugin.id, family)
            else:
                kept = self._specs[spec.kind].setdefault(spec.id, spec)
            if kept is not spec:
                plugin.problems.append(
                    f"{spec.kind} {spec.name!r} is given twice: {kept.target!r} is kept, "
                    f"{spec.target!r} left out"
                )
                continue
            for each in shown:
                self._specs[each.kind].setdefault(each.id, each)
                plugin.specs.append(each)
            for alias in spec.aliases:
                self._aliases[spec.kind].setdefault(f"{plugin.id}/{alias}", spec.id)

    def _fill_presets(self) -> None:
        """Give presets the target and claims of their base, once every plugin is in."""
        models = cast(dict[str, ModelSpec], self._specs["model"])
        for spec in [spec for spec in models.values() if spec.base and not spec.target]:
            plugin = next(p for p in self.plugins if p.id == spec.plugin and p.status == "ok")
            base = models.get(spec.base or "")
            if base is None or base.base:
                why = self._unknown("model", spec.base or "") if base is None else "that is a preset itself"
                plugin.problems.append(f"model {spec.name!r} is left out: its base is {spec.base!r}: {why}")
                plugin.specs.remove(spec)
                del models[spec.id]
                continue
            same = ("target", "config", "accepts", "causal", "streaming", "state", "cost", "causality")
            filled = replace(
                spec,
                **{name: getattr(base, name) for name in (*same, "min_tokens", "max_tokens", "extras")},
                known_limits={**base.known_limits, **spec.known_limits},
                exact_when=spec.exact_when if spec.exact_when is not None else base.exact_when,
            )
            models[spec.id] = filled
            plugin.specs[plugin.specs.index(spec)] = filled

    # -- names -------------------------------------------------------------------------------

    def specs(self, kind: str) -> tuple[Spec, ...]:
        """Every component of a kind, by full name."""
        return tuple(spec for _, spec in sorted(self._of(kind).items()))

    def listed(self, kind: str, pattern: str = "*") -> list[Spec]:
        """Every component that matches, for a list: a family is one row, `family/...` lists its members."""
        rows = [spec for spec in self.specs(kind) if not isinstance(spec, FamilyMemberSpec)]
        rows = list(filter_specs(rows, pattern))
        for id, family in self._families.items() if kind == ModelSpec.kind else ():
            if pattern.startswith(f"{id}/"):
                with blaming(f"the names of {family.id!r} cannot be listed"):
                    rows += family.matching(pattern)
            elif fnmatchcase(family.id, pattern):
                rows.append(family)
        return sorted(rows, key=lambda spec: spec.id)

    def matching(self, kind: str, pattern: str) -> list[Spec]:
        """Every component that matches; where none does, members of a family (`timm/resnet*`)."""
        found = list(filter_specs(self.specs(kind), pattern))
        return found or [s for s in self.listed(kind, pattern) if not isinstance(s, ModelFamilySpec)]

    def family(self, name: str) -> ModelFamilySpec | None:
        """The family that a full name such as `timm/resnet18` would belong to, member or not."""
        plugin, slash, _ = name.partition("/")
        return self._families.get(plugin) if slash else None

    def get(self, kind: str, name: str) -> Spec:
        """The component called `name`: `plugin/name`, or the short name where only one plugin has it.

        A member of a family is made on the spot.

        Raises:
            UnknownName: nothing, or more than one thing, is called that; the message suggests names.
        """
        known = self._of(kind)
        folded = name.replace("-", "_")
        if folded in known:
            return known[folded]
        by_short = sorted(id for id in known if id.partition("/")[2] == folded)
        if len(by_short) == 1:
            return known[by_short[0]]
        if by_short:
            raise UnknownName(
                f"{kind} {name!r} is ambiguous: write {either(by_short)}.",
            )
        aliases = self._aliases[kind]
        by_alias = sorted({id for a, id in aliases.items() if folded in (a, a.partition("/")[2])})
        if len(by_alias) == 1:
            if folded not in self._warned:
                self._warned.add(folded)
                warnings.warn(f"{kind} {name!r} is now called {by_alias[0]!r}", FutureWarning, stacklevel=2)
            return known[by_alias[0]]
        members = self._members(kind, folded)
        if len(members) == 1:
            return members[0]
        if members:
            raise UnknownName(f"{kind} {name!r} is ambiguous: write {either(spec.id for spec in members)}.")
        raise UnknownName(self._unknown(kind, name))

    def _members(self, kind: str, name: str) -> list[FamilyMemberSpec]:
        """The members of families that have this full or short name."""
        short = name.rpartition("/")[2]
        return [
            family.member(short)
            for family in self._families.values()
            if kind == family.kind
            and name in (short, f"{family.plugin}/{short}")
            and short in _names(family, needed=name != short)
        ]

    def has(self, kind: str, id: str) -> bool:
        """Whether a component of this full name is installed."""
        return id in self._of(kind)

    def part(
        self, kind: str, name: str, params: Mapping[str, Any] | None = None, *, preset: str | None = None
    ) -> Part:
        """A component with checked parameters: its defaults < the preset's < `params`.

        Raises:
            UnknownName: no such component, or no such preset.
            ConfigError: every mistake in `params`, with paths below them.
        """
        spec = self.get(kind, name)
        given: dict[str, Any] = {}
        presets = spec.presets if isinstance(spec, ModelSpec) else {}
        if isinstance(spec, ModelSpec):
            given.update(spec.params)
        if preset is not None:
            if preset not in presets:
                hint = suggest(preset, presets) or " It has none."
                raise UnknownName(f"{kind} {spec.id!r} has no preset {preset!r}.{hint}")
            given.update(presets[preset])
        given.update(params or {})
        config_class = spec.config_class()
        if config_class is None:
            if given:
                raise ConfigError(
                    [Problem(key, f"{kind} {spec.id!r} takes no parameters") for key in sorted(given)]
                )
            return Part(kind, spec.id, None, spec.revision)
        with blaming(f"the parameters of {kind} {spec.id!r} cannot be checked"):
            return Part(kind, spec.id, build(config_class, given), spec.revision)

    def claims(self, part: Part) -> ModelSpec:
        """What a model claims with these parameters: its spec, refined by its config.

        Raises:
            ConfigError, ContractError: parameters that contradict each other.
        """
        spec = cast(ModelSpec, self.get("model", part.id))
        return cast(ModelSpec, self.ask(part, "claims", spec, self, default=spec))

    def default_claims(self, spec: ModelSpec) -> ModelSpec:
        """What a model claims at its defaults; where they contradict each other, what its spec says."""
        try:
            return self.claims(self.part("model", spec.id))
        except ZooError:
            return spec

    def ask(self, part: Part, method: str, *arguments: Any, default: Any = None) -> Any:
        """The answer of an optional method of a part's config: `claims`, `kinds`, `tokens`, ...

        Raises:
            ZooError: the config's own, or one that names the part whose method failed.
        """
        answer = getattr(part.config, method, None)
        if answer is None:
            return default
        with blaming(f"{part.kind} {part.id!r}: {method}() of its config failed"):
            return answer(*arguments)

    def _of(self, kind: str) -> dict[str, Spec]:
        if kind not in self._specs:
            raise UnknownName(f"unknown kind of component {kind!r}.{suggest(kind, self._specs)}")
        return self._specs[kind]

    def lost(self, name: str) -> list[str]:
        """Sentences on plugins that may have had this name, had they loaded whole."""
        named = name.replace("-", "_").partition("/")[0] if "/" in name else None
        sentences = []
        for plugin in self.plugins:
            meant = named is None or named in (plugin.id, plugin.distribution.replace("-", "_"))
            if plugin.status != "ok" and meant:
                sentences.append(f"Plugin {plugin.id!r} {plugin.lost()}.")
            elif named == plugin.id:
                sentences += [f"Plugin {plugin.id!r}: {problem}." for problem in plugin.problems]
        return sentences

    def _unknown(self, kind: str, name: str) -> str:
        """The whole message for a name that nothing has: other kinds, lost plugins, close names."""
        known = self._of(kind)
        sentences = [f"unknown {kind.replace('_', '-')} {name!r}."]
        folded = name.replace("-", "_")
        others = [
            f"{other.replace('_', '-')} {id!r}"
            for other, by_id in self._specs.items()
            if other != kind
            for id in by_id
            if folded in (id, id.partition("/")[2])
        ]
        if others:
            sentences.append(f"There is a {' and a '.join(others)}, which is no {kind.replace('_', '-')}.")
        sentences += self.lost(name)
        family = self.family(name) if kind == ModelSpec.kind else None
        if family is not None:
            every = f" To see all of them: zoo list {family.id!r}"
            if name == family.id:
                return f"{name!r} is a family of models: write the name of one.{every}"
            members = (f"{family.plugin}/{each}" for each in _names(family, needed=True))
            hint = suggest(name, members, list_up_to=0)
            return " ".join(sentences) + (hint or every)
        hint = suggest_id(name, {*known, *self._aliases[kind]})
        if not hint and kind == ModelSpec.kind:
            members = (n for family in self._families.values() for n in _names(family, needed=False))
            hint = suggest(name, members, list_up_to=0)
        hint = hint or suggest(name, known)
        return " ".join(sentences) + (hint or f" 'zoo list {kind.replace('_', '-')}s' shows all.")

    # -- hooks -------------------------------------------------------------------------------

    def call(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call a behavioural hook plugin by plugin; (plugin id, result) for each that implements it.

        Raises:
            ZooError: a plugin's own (a veto), or one that names the plugin whose hook failed.
        """
        results: list[tuple[str, Any]] = []
        for plugin in self.plugins:
            if plugin.status != "ok":
                continue
            with blaming(f"plugin {plugin.id!r}: its hook {hook} failed"):
                answers = caller(self._manager, hook, plugin.id)(**arguments)
            results += [(plugin.id, answer) for answer in answers]
        return results


@functools.lru_cache(maxsize=1)
def _default(switches: Switches) -> Catalogue:
    found = Catalogue.discover(switches)
    for plugin in found.plugins:
        if plugin.status in ("failed", "incompatible", "conflict"):
            print(plugin.message(), file=sys.stderr)
        for problem in plugin.problems:
            print(f"zoo: plugin {plugin.id!r}: {problem}", file=sys.stderr)
    return found


def _names(family: ModelFamilySpec, *, needed: bool) -> Collection[str]:
    """The names of a family; a library that cannot tell them matters only where they are needed."""
    try:
        with blaming(f"the names of {family.id!r} cannot be listed"):
            return family.names()
    except ZooError:
        if needed:
            raise
        return ()


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn whatever a plugin's code raises into a `ZooError` that says what failed; its own pass."""
    try:
        yield
    except ZooError:
        raise
    except (Exception, SystemExit) as error:
        raise ZooError(f"{what}: {one_line(error)}") from error


def catalogue() -> Catalogue:
    """The catalogue of this process, discovered on first use (and again when the switches change)."""
    return _default(Switches.current())


def filter_specs(specs: Iterable[Spec], pattern: str = "*") -> Iterator[Spec]:
    """Those whose full or short name matches a shell pattern (`aaren/*`, `*net`)."""
    for spec in specs:
        if fnmatchcase(spec.id, pattern) or fnmatchcase(spec.name, pattern):
            yield spec


__all__ = [
    "HEAVY",
    "OWN_DISTRIBUTION",
    "Catalogue",
    "Part",
    "Plugin",
    "blaming",
    "catalogue",
    "filter_specs",
]
