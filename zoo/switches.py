"""Which plugins may load: `--plugins`, `--no-plugin` and their environment variables.

Read before any plugin is imported, so that a broken one can always be shut out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import ZooError, suggest

ALWAYS = "core"


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What may load; names are plugin ids or distribution names.

    only: nothing but the core and these. without: not these (`*`: no third party).
    strict: the first failure raises. patience: seconds that a plugin may take to load; 0: any time.
    """

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    strict: bool = False
    patience: float = 60.0

    @classmethod
    def current(cls) -> Switches:
        """What the environment (and, through it, the command line) says."""
        return cls.from_environment(os.environ)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Switches:
        only = environment.get("ZOO_PLUGINS")
        return cls(
            only=_names(only) if only is not None and only.strip() else None,
            without=_names(environment.get("ZOO_NO_PLUGINS", "")),
            strict=environment.get("ZOO_PLUGINS_STRICT", "") not in ("", "0"),
            patience=_seconds(environment.get("ZOO_PLUGIN_TIMEOUT", "")),
        )

    @staticmethod
    def take_arguments(arguments: Sequence[str], environment: dict[str, str] | os._Environ[str]) -> list[str]:
        """Move `--plugins A,B` and `--no-plugin X` from the arguments into the environment.

        There, processes started later (data loaders, sweeps) see them as well. Returns the other arguments.
        """
        rest: list[str] = []
        taken: dict[str, list[str]] = {"ZOO_PLUGINS": [], "ZOO_NO_PLUGINS": []}
        options = {"--plugins": "ZOO_PLUGINS", "--no-plugin": "ZOO_NO_PLUGINS"}
        queue = list(arguments)
        while queue:
            argument = queue.pop(0)
            option, equals, value = argument.partition("=")
            if argument == "--":
                rest += [argument, *queue]
                break
            if option not in options:
                rest.append(argument)
                continue
            if not equals:
                if not queue:
                    raise ZooError(f"{option} needs the name of a plugin, e.g. {option} aaren")
                value = queue.pop(0)
            taken[options[option]].append(value)
        if taken["ZOO_PLUGINS"]:
            environment["ZOO_PLUGINS"] = ",".join(taken["ZOO_PLUGINS"])
        if taken["ZOO_NO_PLUGINS"]:
            environment["ZOO_NO_PLUGINS"] = ",".join(
                filter(None, [environment.get("ZOO_NO_PLUGINS", ""), *taken["ZOO_NO_PLUGINS"]])
            )
        return rest

    def check(self, installed: Iterable[tuple[str, str]]) -> None:
        """Refuse names that are not installed. `installed`: (plugin id, distribution) pairs."""
        known = {name for pair in installed for name in pair if name}
        folded = {_fold(name) for name in known}
        asked = [("--plugins or ZOO_PLUGINS", name) for name in sorted(self.only or ())]
        asked += [("--no-plugin or ZOO_NO_PLUGINS", name) for name in sorted(self.without - {"*"})]
        for switch, name in asked:
            if _fold(name) not in folded:
                raise ZooError(
                    f"{switch} names {name!r}, which is no installed plugin.{suggest(name, known)}"
                )
        if ALWAYS in self.without:
            raise ZooError(f"the plugin {ALWAYS!r} holds the zoo's own components and cannot be blocked")

    def blocks(self, plugin_id: str, distribution: str, *, own: bool) -> str | None:
        """What blocks this plugin, in words, or `None`."""
        if own and plugin_id == ALWAYS:
            return None
        names = {_fold(plugin_id), _fold(distribution)}
        # Our own plugins share one distribution, so its name would block them all by accident.
        if own:
            names = {_fold(plugin_id)}
        if names & {_fold(name) for name in self.without}:
            return "--no-plugin or ZOO_NO_PLUGINS"
        if "*" in self.without and not own:
            return "ZOO_NO_PLUGINS=*"
        if self.only is not None and not names & {_fold(name) for name in self.only}:
            return "--plugins or ZOO_PLUGINS"
        return None


def _seconds(text: str) -> float:
    if not text.strip():
        return Switches.patience
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ZooError(f"ZOO_PLUGIN_TIMEOUT must be a number of seconds (0: no limit), got {text!r}")
    return seconds


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _fold(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
