"""From an installed entry point to its specs (torch-free).

Life of a plugin: found -> skipped if blocked -> imported -> API version checked -> hooks registered ->
specs collected. Whatever goes wrong on the way becomes its status and reason, never a crash, and never
another plugin's loss.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, distributions, entry_points
from typing import Any, Literal

import pluggy

from zoo import plugin as zp
from zoo.errors import ZooError, one_line, suggest
from zoo.specs import NAME, SPEC_KINDS, BadSpec, ModelSpec, Spec

#: The distribution whose plugins come first and cannot be shadowed.
OWN_DISTRIBUTION = "archzoo"

HEAVY = ("torch", "torchvision", "timm", "pytorch_lightning", "transformers", "omegaconf")

#: A plugin that takes longer to load makes every command feel slow.
SLOW_MS = 500

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
        return normal(self.distribution) == OWN_DISTRIBUTION

    def message(self) -> str:
        """The one line that stderr shows for a plugin that did not load."""
        # By its id, the one that has it first would be shut out as well.
        hides = self.distribution if self.status == "conflict" else self.id
        stop = "" if self.reason.endswith((".", "?")) else "."
        return (
            f"zoo: plugin {self.id!r} ({self.distribution} {self.version}) did not load: {self.reason}{stop} "
            f"See 'zoo plugins {self.id}'; 'ZOO_NO_PLUGINS={hides}' hides this."
        )

    def remarks(self) -> list[str]:
        """All that its author or user should know: why it failed, what was left out, what makes it slow."""
        said = [self.reason] if self.reason else []
        if self.heavy_imports:
            said.append(
                f"imports {', '.join(self.heavy_imports)} at once; plugins import such things when used"
            )
        elif self.import_ms > SLOW_MS:
            said.append(f"slow: takes {self.import_ms / 1000:.1f} s to load")
        return said + self.problems

    def lost(self) -> str:
        """Why nothing of it can be used, as the end of a sentence."""
        if self.status == "blocked":
            return f"is {self.reason}"
        return f"{'failed to load' if self.status == 'failed' else 'is not usable'} ({self.reason})"


def installed() -> list[tuple[Plugin, Callable[[], Any]]]:
    """Every plugin with its import, those of the zoo's own distribution first; nothing is imported yet."""
    try:
        found = [_found(entry) for entry in entry_points(group=zp.ENTRY_POINT_GROUP)]
    except Exception:  # one distribution's metadata is damaged
        found = list(_one_by_one())
    return sorted(found, key=lambda item: (not item[0].own, item[0].distribution, item[0].id))


def _found(entry: EntryPoint) -> tuple[Plugin, Callable[[], Any]]:
    name, version = (entry.dist.name or "", entry.dist.version or "") if entry.dist else ("", "")
    return Plugin(id=entry.name, value=entry.value, distribution=name, version=version), entry.load


def _one_by_one() -> Iterator[tuple[Plugin, Callable[[], Any]]]:
    """As `entry_points` does it, but damaged metadata costs that distribution alone."""
    seen: set[str] = set()
    for each in distributions():
        name = each.name or ""
        if normal(name) in seen:
            continue
        seen.add(normal(name))
        try:
            yield from [_found(entry) for entry in each.entry_points.select(group=zp.ENTRY_POINT_GROUP)]
        except Exception as error:
            id = normal(name).replace("-", "_")
            plugin = Plugin(id=id, value="", distribution=name, version=each.version or "")
            yield plugin, functools.partial(_raise, f"its entry points cannot be read: {one_line(error)}")


def _raise(reason: str) -> None:
    raise ValueError(reason)


def load(
    plugin: Plugin,
    import_module: Callable[[], Any],
    manager: pluggy.PluginManager,
    *,
    rival: Plugin | None = None,
    strict: bool = False,
    patience: float = 0,
) -> list[Spec]:
    """Import a plugin, register its hooks with `manager` and return its sound specs.

    Status, reason and problems are noted on `plugin`. rival: an earlier plugin of the same id.
    patience: seconds that it may take; 0: any time.

    Raises:
        ZooError: it fails, and `strict` is set.
    """
    heavy_before = {name for name in HEAVY if name in sys.modules}
    started = time.perf_counter()
    specs: list[Spec] = []
    try:
        if not NAME.match(plugin.id):
            raise ValueError(f"plugin id {plugin.id!r} must be lower case: letters, digits and '_'")
        # What a plugin prints must not end up in the middle of our JSON.
        with _at_most(patience), redirect_stdout(sys.stderr):
            module = _import(plugin, import_module, rival)
            if module is not None:
                specs = _register(plugin, module, manager)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # some frameworks' own stops are no `Exception`
        if strict:
            raise ZooError(
                f"plugin {plugin.id!r} ({plugin.distribution}) failed: {one_line(error)}"
            ) from error
        plugin.status = "failed"
        plugin.reason = _reason(error)
        plugin.traceback = traceback.format_exc()
    if strict and plugin.status != "ok":
        raise ZooError(f"plugin {plugin.id!r} ({plugin.distribution}): {plugin.reason}")
    plugin.import_ms = 1000 * (time.perf_counter() - started)
    plugin.heavy_imports = tuple(n for n in HEAVY if n in sys.modules and n not in heavy_before)
    return specs


def _reason(error: BaseException) -> str:
    """What went wrong, in one line: a plugin's mistake in our words where it is one of spelling."""
    if isinstance(error, (_TooSlow, BadSpec)):
        return " ".join(str(error).split())
    unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    for cls in SPEC_KINDS if unknown and isinstance(error, TypeError) else ():
        if unknown and unknown[1] == cls.__name__:
            fields = [field.name for field in dataclasses.fields(cls) if field.name != "plugin"]
            return f"{unknown[1]} has no field {unknown[2]!r}.{suggest(unknown[2], fields, list_up_to=30)}"
    return one_line(error)


class _TooSlow(SystemExit):
    """Out of patience. A `SystemExit`, because a plugin that hangs may well swallow every `Exception`."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Interrupt what hangs, by an alarm: in the main thread, where the system has one and nobody uses it."""
    alarm = getattr(signal, "SIGALRM", None)
    free = threading.current_thread() is threading.main_thread() and (
        alarm is not None and signal.getsignal(alarm) is signal.SIG_DFL
    )
    if not seconds or not free:
        yield
        return

    def ring(signum: int, frame: Any) -> None:
        raise _TooSlow(f"it took longer than {seconds:g} s (ZOO_PLUGIN_TIMEOUT)")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _import(plugin: Plugin, import_module: Callable[[], Any], rival: Plugin | None) -> Any:
    """The plugin's module, or `None` with the status set."""
    if rival is not None:
        plugin.status = "conflict"
        plugin.reason = (
            f"the id {plugin.id!r} is taken by {rival.distribution} {rival.version}; uninstall one of the two"
        )
        return None
    module = import_module()
    plugin.file = getattr(module, "__file__", None) or ""
    version = getattr(module, "__zoo_api__", None)
    if version in {zp.API_VERSION, zp.API_VERSION - 1} - {0}:
        return module
    plugin.status = "incompatible"
    if version is None:
        plugin.reason = f"its module states no __zoo_api__ (this zoo speaks {zp.API_VERSION})"
    else:
        newer = isinstance(version, int) and version > zp.API_VERSION
        plugin.reason = (
            f"it speaks plugin API {version!r}, this zoo speaks {zp.API_VERSION}; "
            f"upgrade {'archzoo' if newer else plugin.distribution}"
        )
    return None


def _register(plugin: Plugin, module: Any, manager: pluggy.PluginManager) -> list[Spec]:
    manager.register(module, name=plugin.id)
    try:
        manager.check_pending()  # a mistyped hook name
        results = caller(manager, "zoo_components", plugin.id)()
        given = [spec for result in results for spec in _iterate(result)]
        plugin.problems += _unmarked(module)
        return [spec for spec in given if _sound(plugin, spec, getattr(module, "__name__", plugin.value))]
    except BaseException:
        manager.unregister(name=plugin.id)
        raise


def caller(manager: pluggy.PluginManager, hook: str, plugin_id: str) -> Callable[..., list[Any]]:
    """A hook of one plugin alone, so that a failure costs nobody else."""
    others = [p for name, p in manager.list_name_plugin() if p is not None and name != plugin_id]
    return manager.subset_hook_caller(hook, others)


def _unmarked(module: Any) -> Iterator[str]:
    """The hooks that a module defines without saying so; pluggy would pass them over in silence."""
    for name in vars(zp.Hooks):
        hook = getattr(module, name, None)
        if not name.startswith("_") and callable(hook) and not hasattr(hook, "zoo_impl"):
            yield f"its {name} is not called: write @zoo.plugin.hookimpl above it"


def _iterate(result: Any) -> Iterator[Any]:
    if isinstance(result, Spec):
        raise TypeError(
            f"zoo_components returned one {type(result).__name__}, {result.name!r}; "
            "it returns a tuple of them, e.g. (spec,)"
        )
    try:
        iterator = iter(result)
    except TypeError:
        raise TypeError(f"zoo_components must return an iterable of specs, got {result!r}") from None
    yield from iterator


def _sound(plugin: Plugin, spec: Any, module_name: str) -> bool:
    """Whether a spec can be used; if not, the reason is noted. Its siblings are kept either way."""
    if not isinstance(spec, SPEC_KINDS):
        plugin.problems.append(f"zoo_components returned {spec!r}, which is not a spec")
        return False
    problem = ""
    optional = (getattr(spec, name, None) for name in ("reference", "members"))
    for path in filter(None, (spec.target, spec.config, *optional)):
        if not _same_distribution(path, module_name, plugin.distribution):
            problem = f"{path!r} lies outside {plugin.distribution!r}"
    if isinstance(spec, ModelSpec) and spec.base and (spec.target or spec.config):
        problem = f"a preset takes target and config from its base {spec.base!r}, so it states none"
    if problem:
        plugin.problems.append(f"{spec.kind} {spec.name!r} is left out: {problem}")
    return not problem


def _same_distribution(path: str, module_name: str, distribution: str) -> bool:
    """Whether `path` lies in the plugin's own package, or in another one of its distribution."""
    root = path.partition(":")[0].partition(".")[0]
    return root == module_name.partition(".")[0] or root in _top_level(distribution)


@functools.cache
def _top_level(name: str) -> frozenset[str]:
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError):
        return frozenset()
    listed = (found.read_text("top_level.txt") or "").split()
    files = [file.parts[0].removesuffix(".py") for file in found.files or () if file.suffix == ".py"]
    return frozenset([*listed, *files])


def normal(name: str) -> str:
    """The name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
