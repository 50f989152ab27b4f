"""Which plugins are installed, what they provide, and how a name finds its component (torch-free).

Life of a plugin: found as an entry point -> skipped if blocked -> imported -> API version checked ->
hooks registered -> specs collected. Whatever goes wrong on the way becomes a row of `plugins`, one
line on stderr and a clause of the related "unknown name" error; never a crash, and never another
plugin's loss.
"""

from __future__ import annotations

import functools
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, cast

import pluggy

from zoo import plugin as zp
from zoo.config import ConfigError, Problem, build
from zoo.errors import UnknownName, ZooError, either, one_line, suggest
from zoo.specs import NAME, SPEC_KINDS, ModelSpec, Spec
from zoo.switches import Switches

#: The distribution whose plugins come first and cannot be shadowed.
OWN_DISTRIBUTION = "archzoo"

HEAVY = ("torch", "torchvision", "timm", "pytorch_lightning", "transformers", "omegaconf")

Status = Literal["ok", "blocked", "failed", "incompatible", "conflict"]


@dataclass
class Plugin:
    """One entry point of the group `zoo.plugins` and what became of it."""

    id: str
    value: str
    distribution: str = ""
    version: str = ""
    status: Status = "ok"
    reason: str = ""
    traceback: str = ""
    problems: list[str] = field(default_factory=list)
    specs: list[Spec] = field(default_factory=list)
    import_ms: float = 0.0
    heavy_imports: tuple[str, ...] = ()
    file: str = ""

    @property
    def own(self) -> bool:
        return _normal(self.distribution) == OWN_DISTRIBUTION

    def message(self) -> str:
        """The one line that stderr shows for a plugin that did not load."""
        return (
            f"zoo: plugin {self.id!r} ({self.distribution} {self.version}) did not load: {self.reason}. "
            f"See 'zoo plugins {self.id}'; 'ZOO_NO_PLUGINS={self.id}' hides this."
        )


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
        found = [(entry, *_distribution(entry)) for entry in entry_points(group=zp.ENTRY_POINT_GROUP)]
        found.sort(key=lambda item: (_normal(item[1]) != OWN_DISTRIBUTION, item[1], item[0].name))
        if not any(entry.name == "core" and _normal(dist) == OWN_DISTRIBUTION for entry, dist, _ in found):
            raise ZooError(
                "the zoo's own components are not installed: this Python sees the package 'zoo' but no "
                "distribution 'archzoo'. In a checkout run: pip install -e ."
            )
        # Our own plugins share a distribution, so its name means none of them.
        switches.check(
            (entry.name, "" if _normal(dist) == OWN_DISTRIBUTION else dist) for entry, dist, _ in found
        )
        for entry, dist, version in found:
            plugin = Plugin(id=entry.name, value=entry.value, distribution=dist, version=version)
            self.plugins.append(plugin)
            blocked_by = switches.blocks(plugin.id, dist, own=plugin.own)
            if blocked_by:
                plugin.status, plugin.reason = "blocked", f"blocked by {blocked_by}"
                continue
            self._load(plugin, entry.load, strict=switches.strict)
        self._fill_presets()
        for plugin in self.plugins if switches.strict else ():
            if plugin.problems:
                raise ZooError(f"plugin {plugin.id!r} ({plugin.distribution}): {'; '.join(plugin.problems)}")
        return self

    def add(self, module: Any, *, id: str, distribution: str = "", version: str = "0") -> Plugin:
        """Register one plugin module directly. Failures become its status, as in discovery."""
        name = getattr(module, "__name__", id)
        plugin = Plugin(id=id, value=name, distribution=distribution or id, version=version)
        self.plugins.append(plugin)
        self._load(plugin, lambda: module)
        self._fill_presets()
        return plugin

    def _load(self, plugin: Plugin, load: Any, *, strict: bool = False) -> None:
        heavy_before = {name for name in HEAVY if name in sys.modules}
        started = time.perf_counter()
        try:
            module = self._import(plugin, load)
            if module is not None:
                self._register(plugin, module)
        except (Exception, SystemExit) as error:  # KeyboardInterrupt passes
            if strict:
                raise ZooError(
                    f"plugin {plugin.id!r} ({plugin.distribution}) failed: {one_line(error)}"
                ) from error
            plugin.status, plugin.reason = "failed", one_line(error)
            plugin.traceback = traceback.format_exc()
            plugin.specs.clear()
        if strict and plugin.status in ("incompatible", "conflict"):
            raise ZooError(f"plugin {plugin.id!r} ({plugin.distribution}): {plugin.reason}")
        plugin.import_ms = 1000 * (time.perf_counter() - started)
        plugin.heavy_imports = tuple(n for n in HEAVY if n in sys.modules and n not in heavy_before)

    def _import(self, plugin: Plugin, load: Any) -> Any:
        """The plugin's module, or `None` with the status set."""
        if not NAME.match(plugin.id):
            raise ValueError(f"plugin id {plugin.id!r} must be lower case: letters, digits and '_'")
        earlier = next((p for p in self.plugins if p.id == plugin.id and p is not plugin), None)
        if earlier is not None and earlier.status != "blocked":
            plugin.status = "conflict"
            plugin.reason = (
                f"the id {plugin.id!r} is taken by {earlier.distribution} {earlier.version}; "
                "uninstall one of the two"
            )
            return None
        module = load()
        plugin.file = getattr(module, "__file__", None) or ""
        version = getattr(module, "__zoo_api__", None)
        accepted = {zp.API_VERSION, zp.API_VERSION - 1} - {0}
        if version not in accepted:
            plugin.status = "incompatible"
            if version is None:
                plugin.reason = f"its module states no __zoo_api__ (this zoo speaks {zp.API_VERSION})"
            else:
                plugin.reason = (
                    f"it speaks plugin API {version!r}, this zoo speaks {zp.API_VERSION}; "
                    f"upgrade {'archzoo' if _newer(version) else plugin.distribution}"
                )
            return None
        return module

    def _register(self, plugin: Plugin, module: Any) -> None:
        self._manager.register(module, name=plugin.id)
        try:
            self._manager.check_pending()  # a mistyped hook name
            results = self._caller("zoo_components", plugin.id)()
            for spec in (spec for result in results for spec in _iterate(result)):
                self._take(plugin, spec, getattr(module, "__name__", plugin.value))
        except (Exception, SystemExit):
            self._manager.unregister(name=plugin.id)
            tables: list[dict[str, Any]] = [*self._specs.values(), *self._aliases.values()]
            for table in tables:
                for name in [n for n in table if n.startswith(f"{plugin.id}/")]:
                    del table[name]
            raise

    def _take(self, plugin: Plugin, spec: Any, module_name: str) -> None:
        """File one spec, or note why it cannot be; its siblings are kept either way."""
        if not isinstance(spec, SPEC_KINDS):
            plugin.problems.append(f"zoo_components returned {spec!r}, which is not a spec")
            return
        spec = replace(spec, plugin=plugin.id)
        for path in filter(None, (spec.target, spec.config, getattr(spec, "reference", None))):
            if not _same_distribution(path, module_name, plugin.distribution):
                plugin.problems.append(
                    f"{spec.kind} {spec.name!r} is left out: {path!r} lies outside {plugin.distribution!r}"
                )
                return
        if isinstance(spec, ModelSpec) and spec.base and (spec.target or spec.config):
            plugin.problems.append(
                f"{spec.kind} {spec.name!r} is left out: a preset takes target and config from its base "
                f"{spec.base!r}, so it states none"
            )
            return
        known = self._specs[spec.kind]
        if spec.id in known:
            plugin.problems.append(
                f"{spec.kind} {spec.name!r} is given twice: {known[spec.id].target!r} is kept, "
                f"{spec.target!r} left out"
            )
            return
        known[spec.id] = spec
        plugin.specs.append(spec)
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

    def get(self, kind: str, name: str) -> Spec:
        """The component called `name`: `plugin/name`, or the short name where only one plugin has it.

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
        raise UnknownName(self._unknown(kind, name))

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
                sentences.append(f"Plugin {plugin.id!r} {_lost(plugin)}.")
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
        names = {*known, *(id.partition("/")[2] for id in known), *self._aliases[kind]}
        hint = suggest(name, names, list_up_to=0) or suggest(name, known)
        return " ".join(sentences) + (hint or f" 'zoo list {kind}s' shows all.")

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
                answers = self._caller(hook, plugin.id)(**arguments)
            results += [(plugin.id, answer) for answer in answers]
        return results

    def _caller(self, hook: str, plugin_id: str) -> Any:
        others = [p for name, p in self._manager.list_name_plugin() if p is not None and name != plugin_id]
        return self._manager.subset_hook_caller(hook, others)


@functools.lru_cache(maxsize=1)
def _default(switches: Switches) -> Catalogue:
    found = Catalogue.discover(switches)
    for plugin in found.plugins:
        if plugin.status in ("failed", "incompatible", "conflict"):
            print(plugin.message(), file=sys.stderr)
        for problem in plugin.problems:
            print(f"zoo: plugin {plugin.id!r}: {problem}", file=sys.stderr)
    return found


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
    from fnmatch import fnmatchcase

    for spec in specs:
        if fnmatchcase(spec.id, pattern) or fnmatchcase(spec.name, pattern):
            yield spec


def _lost(plugin: Plugin) -> str:
    if plugin.status == "blocked":
        return f"is {plugin.reason}"
    if plugin.status == "failed":
        return f"failed to load ({plugin.reason})"
    return f"is not usable ({plugin.reason})"


def _iterate(result: Any) -> Iterator[Any]:
    try:
        iterator = iter(result)
    except TypeError:
        raise TypeError(f"zoo_components must return an iterable of specs, got {result!r}") from None
    yield from iterator


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "", ""
    return entry.dist.name or "", entry.dist.version or ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _newer(version: Any) -> bool:
    return isinstance(version, int) and version > zp.API_VERSION


def _same_distribution(path: str, module_name: str, distribution: str) -> bool:
    """Whether `path` lies in the plugin's own package, or in another one of its distribution."""
    root = path.partition(":")[0].partition(".")[0]
    if root == module_name.partition(".")[0]:
        return True
    return root in _top_level(distribution)


@functools.cache
def _top_level(distribution: str) -> frozenset[str]:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import distribution as find

    try:
        found = find(distribution)
    except (PackageNotFoundError, ValueError):
        return frozenset()
    listed = (found.read_text("top_level.txt") or "").split()
    files = [file.parts[0].removesuffix(".py") for file in found.files or () if file.suffix == ".py"]
    return frozenset([*listed, *files])


__all__ = ["Catalogue", "Part", "Plugin", "blaming", "catalogue", "filter_specs"]
