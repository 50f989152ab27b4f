"""Which layers of a traced model read and write the same channels.

Each set of channels is followed from the layer that writes it to those that read it. Additions tie sets
together; whatever cannot be done to a part of the channels (a split, a reshape, a weight that is no layer's)
holds a set at full width.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from zoo_slimmable.timm_layers import SAME_CHANNELS, is_attention, norm_dim
from zoo_slimmable.widths import matches

_ELEMENTWISE: tuple[Any, ...] = (
    operator.add, operator.iadd, operator.mul, operator.imul, operator.sub, operator.truediv,
    torch.add, torch.mul, torch.sub, F.relu, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.relu6,
    torch.relu, torch.sigmoid, torch.tanh, F.dropout, F.elu, F.leaky_relu,
)  # fmt: skip
_ELEMENTWISE_METHODS = (
    "add",
    "add_",
    "mul",
    "mul_",
    "relu",
    "sigmoid",
    "tanh",
    "contiguous",
    "sub",
    "clone",
    "float",
)
_POOLS = (F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate)


class Set:
    """A set of channels while it is found out: what is tied together, and why it must stay full."""

    def __init__(self, size: int, writer: str = "") -> None:
        self.size = size
        self.parent: Set | None = None
        self.why = ""
        self.writers = [writer] if writer else []

    def root(self) -> Set:
        """The set that stands for all that are tied to this one."""
        return self if self.parent is None else self.parent.root()


class Flow:
    """Channels of a value: sets side by side in a dimension."""

    def __init__(self, sets: tuple[Set, ...], dim: int) -> None:
        self.sets, self.dim = sets, dim


#: What a layer reads, and what it writes.
Sides = tuple[tuple[Set, ...], tuple[Set, ...]]


class Graph:
    """What the graphs of a model, of evaluation and of training, say of channels: which layers read and write
    which sets."""

    def __init__(self, target: nn.Module, *graphs: fx.Graph) -> None:
        self.modules = dict(target.named_modules())
        self.calls: Counter[str] = Counter()
        for graph in graphs:
            self.calls |= _calls(graph)
        self.flows: dict[fx.Node, Flow | None] = {}
        self.called: set[str] = set()
        #: kinds of layers with weights that channels cannot be followed through
        self.unknown: set[str] = set()
        #: layer -> what it writes
        self.written: dict[str, Set] = {}
        #: layer -> what it reads, what it writes
        self.sides: dict[str, Sides] = {}
        for graph in graphs:
            self._walk(graph)
        for node in (node for graph in graphs for node in graph.nodes):
            owner = str(node.target).rpartition(".")[0]
            if node.op == "get_attr" and isinstance(self.modules[owner], (nn.Conv2d, nn.Linear)):
                self.unknown.add(type(self.modules[owner]).__name__)
            if node.op == "get_attr" and owner in self.sides:
                for each in (*self.sides[owner][0], *self.sides[owner][1]):
                    each.root().why = f"the weights of {owner} are used outside it"

    # -- the walk --

    def _walk(self, graph: fx.Graph) -> None:
        """Follow one more graph. A layer has sides in all graphs that call it, the same ones, or is held."""
        before, self.sides = self.sides, {}
        for node in graph.nodes:
            flow = self.flows[node] = self._visit(node)
            if flow is not None and flow.dim in node.meta.get("used", ()):
                self._held(flow, "something is made of how many there are")
        again = _calls(graph).keys() & self.called
        self.called |= _calls(graph).keys()
        for name in again & (before.keys() | self.sides.keys()):
            self._agree(name, before.get(name), self.sides.get(name))
        self.sides = before | self.sides

    def _agree(self, name: str, one: Sides | None, other: Sides | None) -> None:
        """Tie the sides that a layer has in two graphs; where they do not fit, hold them."""
        pairs = list(zip(one, other, strict=True)) if one and other else []
        if pairs and all([s.size for s in a] == [s.size for s in b] for a, b in pairs):
            for a, b in pairs:
                for left, right in zip(a, b, strict=True):
                    self._tie(left, right)
            return
        for sets in (*(one or ()), *(other or ())):
            self._held(Flow(sets, 0), f"{name} is used otherwise in training")

    def _visit(self, node: fx.Node) -> Flow | None:
        if node.op == "call_module":
            return self._module(node, str(node.target))
        if node.op == "call_function":
            return self._function(node)
        if node.op == "call_method":
            return self._method(node)
        if node.op == "output":
            self._hold(node, "the model gives it away")
        return None

    def _module(self, node: fx.Node, name: str) -> Flow | None:
        module, given = self.modules[name], self._given(node)
        if self.calls[name] > 1 and next(module.parameters(), None) is not None:
            self._hold(node, f"{name} is used more than once")
            return None
        if is_attention(module):
            self._hold(node, f"{name} keeps the width of its tokens")
            return None
        if type(module) in (nn.Conv2d, nn.ConvTranspose2d):
            return self._conv(node, name, module, given)
        if type(module) is nn.Linear:
            return self._linear(node, name, module, given)
        if norm_dim(module) is None and next(module.parameters(), None) is not None:
            self.unknown.add(type(module).__name__)
        if given is None:
            return self._hold(node, name)
        if norm_dim(module) is not None:
            return self._norm(name, module, given, node)
        if isinstance(module, SAME_CHANNELS):
            kept = len(_shape(node)) > given.dim and _shape(node)[given.dim] == self._count(given)
            return given if kept else self._held(given, f"{name} ({type(module).__name__})")
        if isinstance(module, nn.Flatten):
            return self._flatten(node, given, module.start_dim)
        return self._hold(node, f"{name} ({type(module).__name__})")

    def _conv(self, node: fx.Node, name: str, module: Any, given: Flow | None) -> Flow:
        reads = self._reads(str(node.target), given, 1, module.in_channels)
        if module.groups > 1:
            if module.groups == module.in_channels == module.out_channels and len(reads) == 1:
                self.sides[name] = (reads, reads)
                reads[0].root().writers.append(name)
                return Flow(reads, 1)
            for each in reads:
                each.root().why = f"{name} has {module.groups} groups"
        writes = (self._new(module.out_channels, name),)
        if module.groups > 1:
            writes[0].root().why = f"{name} has {module.groups} groups"
        self.sides[name] = (reads, writes)
        return Flow(writes, 1)

    def _linear(self, node: fx.Node, name: str, module: nn.Linear, given: Flow | None) -> Flow:
        last = len(_shape(node)) - 1
        reads = self._reads(str(node.target), given, last, module.in_features)
        writes = (self._new(module.out_features, name),)
        self.sides[name] = (reads, writes)
        return Flow(writes, last)

    def _norm(self, name: str, module: nn.Module, given: Flow, node: fx.Node) -> Flow | None:
        dim = norm_dim(module)
        if dim is None or len(given.sets) > 1 or given.dim != dim % len(_shape(node)):
            return self._held(given, f"{name} ({type(module).__name__})")
        self.sides[name] = (given.sets, given.sets)
        return given

    def _function(self, node: fx.Node) -> Flow | None:
        if node.target in _ELEMENTWISE:
            return self._together(node)
        given, name = self._given(node), str(getattr(node.target, "__name__", node.target))
        if node.target is torch.cat:
            return self._concatenated(node)
        if given is None:
            return self._hold(node, name)
        if _shape(node) is None and not isinstance(node.meta.get("value"), (tuple, list)):  # of parts: held
            return None
        if node.target in _POOLS:
            return given
        if node.target is torch.flatten:
            start: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
            return self._flatten(node, given, int(start))
        return self._hold(node, name)

    def _method(self, node: fx.Node) -> Flow | None:
        method, given = str(node.target), self._flow(node.args[0])
        if _shape(node) is None and not isinstance(node.meta.get("value"), (tuple, list)):
            return self._hold(node, method) if method == "numel" else None
        if method in _ELEMENTWISE_METHODS:
            return self._together(node)
        if given is None:
            return self._hold(node, method)
        rest: tuple[Any, ...] = node.args[1:]
        if method == "mean":
            asked: Any = node.kwargs.get("dim", rest[0] if rest else range(len(_shape(node.args[0]))))
            ndim = len(_shape(node.args[0]))
            dims = [d % ndim for d in ([asked] if isinstance(asked, int) else asked)]
            if given.dim not in dims:
                lower = 0 if len(_shape(node)) == ndim else sum(d < given.dim for d in dims)
                return Flow(given.sets, given.dim - lower)
        if method == "permute":
            order = list(rest[0]) if isinstance(rest[0], (tuple, list)) else list(rest)
            return Flow(given.sets, [d % len(order) for d in order].index(given.dim))
        if method == "transpose":
            a, b = (int(d) % len(_shape(node)) for d in rest)
            return Flow(given.sets, {a: b, b: a}.get(given.dim, given.dim))
        if method == "flatten":
            return self._flatten(node, given, int(rest[0]) if rest else 0)
        return self._hold(node, method)

    def _together(self, node: fx.Node) -> Flow | None:
        """Entry by entry: what is combined has the same channels, or one number for all of them."""
        name = str(getattr(node.target, "__name__", node.target))
        if _shape(node) is None:  # of numbers
            return self._hold(node, name)
        ndim = len(_shape(node))
        tensors = [arg for arg in (*node.args, *node.kwargs.values()) if _shape(arg) is not None]
        flows = [(arg, flow) for arg in tensors if (flow := self._flow(arg)) is not None]
        whole: Flow | None = None
        for arg, flow in flows:
            dim = flow.dim + ndim - len(_shape(arg))
            if self._count(flow) != _shape(node)[dim]:  # broadcast over the channels of something else
                self._held(flow, name)
            elif whole is None:
                whole = Flow(flow.sets, dim)
            elif whole.dim == dim and [each.size for each in whole.sets] == [each.size for each in flow.sets]:
                for one, other in zip(whole.sets, flow.sets, strict=True):
                    self._tie(one, other)
            else:
                self._held(whole, name)
                self._held(flow, name)
                return None
        for arg in tensors:
            if whole is None or self._flow(arg) is not None:
                continue
            at = whole.dim - ndim + len(_shape(arg))
            if at >= 0 and _shape(arg)[at] != 1:
                return self._held(whole, f"{name} with something that is no layer's output")
        return whole

    def _concatenated(self, node: fx.Node) -> Flow | None:
        parts: Any = node.args[0] if node.args else node.kwargs["tensors"]
        if isinstance(parts, fx.Node):  # parts of something, which is held as a whole
            return self._hold(node, "cat")
        dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        flows = [self._flow(part) for part in parts]
        where = int(dim) % len(_shape(node))
        if any(flow is None or flow.dim != where for flow in flows):
            for flow in flows:
                if flow is not None:
                    self._held(flow, "cat")
            return None
        return Flow(tuple(each for flow in flows if flow is not None for each in flow.sets), where)

    def _flatten(self, node: fx.Node, given: Flow, start: int) -> Flow | None:
        """Of a map with one pixel (channels stay), or of the pixels behind the channels."""
        before = _shape(node.args[0])
        start %= len(before)
        if start == given.dim and all(size == 1 for size in before[start + 1 :]):
            return given
        if start > given.dim:
            return given
        return self._held(given, "flatten")

    # -- sets --

    def _given(self, node: fx.Node) -> Flow | None:
        """Of what a module or function takes first."""
        return self._flow(next(iter((*node.args, *node.kwargs.values())), None))

    def _flow(self, arg: Any) -> Flow | None:
        return self.flows.get(arg) if isinstance(arg, fx.Node) else None

    def _new(self, size: int, writer: str) -> Set:
        """What a layer writes, the same in all graphs."""
        return self.written.setdefault(writer, Set(size, writer))

    def _count(self, flow: Flow) -> int:
        return sum(each.size for each in flow.sets)

    def _reads(self, name: str, given: Flow | None, dim: int, size: int) -> tuple[Set, ...]:
        if given is not None and given.dim == dim and self._count(given) == size:
            return given.sets
        if given is not None:
            self._held(given, name)
        unknown = Set(size)
        unknown.why = "it is no layer's output"
        return (unknown,)

    def _tie(self, a: Set, b: Set) -> None:
        a, b = a.root(), b.root()
        if a is not b:
            b.parent = a
            a.why = a.why or b.why
            a.writers += b.writers

    def _held(self, flow: Flow, by: str) -> Flow | None:
        """Keep the width of these channels; whatever comes out has others."""
        for each in flow.sets:
            root = each.root()
            root.why = root.why or by
        return None

    def _hold(self, node: fx.Node, by: str) -> Flow | None:
        """Keep the width of all that a node takes; whatever comes out has other channels."""

        def visit(arg: fx.Node) -> None:
            flow = self._flow(arg)
            if flow is not None:
                self._held(flow, by)

        fx.map_arg((node.args, node.kwargs), visit)
        return None

    # -- what comes out --

    def free(self, exclude: Sequence[str]) -> dict[str, Sides]:
        """The layers to convert, with what they read and write; none where every set is held.

        exclude: names or patterns of modules whose outputs are held, too.
        """
        for _, writes in self.sides.values():
            for each in writes:
                root = each.root()
                if any(matches(name, pattern) for name in root.writers for pattern in exclude):
                    root.why = root.why or "it is excluded"
        return {
            name: sides
            for name, sides in self.sides.items()
            if any(not each.root().why for side in sides for each in side)
        }

    def reasons(self) -> list[str]:
        """Why sets are held, and which layers are not known."""
        roots = {each.root() for _, writes in self.sides.values() for each in writes}
        unknown = [f"nothing is known of its {', '.join(sorted(self.unknown))}"] if self.unknown else []
        return [root.why for root in roots if root.why] + unknown

    def notes(self) -> list[str]:
        """What keeps all its outputs, in one sentence."""
        by: dict[str, list[str]] = {}
        for name, (_, writes) in self.sides.items():
            if norm_dim(self.modules[name]) is None and writes[0].root().why:
                by.setdefault(writes[0].root().why, []).append(name)
        if not by:
            return []
        reasons = [f"{_some(names, 2)} ({why})" for why, names in by.items()]
        return [f"these layers keep all their outputs: {_some(reasons, 4)}"]


def _calls(graph: fx.Graph) -> Counter[str]:
    """How often each module is called."""
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_module")


def _shape(node: Any) -> Any:
    """The shape of a node's value, or `None` where it is no tensor."""
    return getattr(node.meta.get("value"), "shape", None) if isinstance(node, fx.Node) else None


def _some(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
