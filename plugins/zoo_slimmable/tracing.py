"""A tracer that computes what it records, so that a forward may look at shapes on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from zoo_slimmable.layers import SlimmableAttention
from zoo_slimmable.timm_layers import LEAVES, is_attention


class Extent(int):
    """The size of one dimension of a recorded value, that notes when anything is made of it: with another
    width it would be another number.
    """

    _note: Callable[[], None]

    @classmethod
    def of(cls, size: int, note: Callable[[], None]) -> Extent:
        """note: called whenever it is computed with, compared or passed on."""
        made = cls(size)
        made._note = note
        return made

    def used(self) -> None:
        """Something is made of it."""
        self._note()


def _noting(name: str) -> Any:
    plain = getattr(int, name)

    def method(self: Extent, *others: Any) -> Any:
        self.used()
        return plain(self, *others)

    return method


_TWO = ("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow")
_ALL = (*_TWO, *(f"r{name}" for name in _TWO), "neg", "float", "eq", "ne", "lt", "le", "gt", "ge")
for _name in _ALL:
    setattr(Extent, f"__{_name}__", _noting(f"__{_name}__"))


class Known(fx.Proxy):
    """A recorded value whose shape, type and truth are known."""

    @property
    def value(self) -> Any:
        """What it is for the input that is traced with."""
        return self.node.meta["value"]

    @property
    def shape(self) -> Any:
        used = self.node.meta.setdefault("used", set())
        return torch.Size(
            [Extent.of(size, partial(used.add, dim)) for dim, size in enumerate(self.value.shape)]
        )

    @property
    def ndim(self) -> int:
        return int(self.value.ndim)

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def device(self) -> Any:
        return self.value.device

    def dim(self) -> int:
        return int(self.value.dim())

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return (self[index] for index in range(len(self)))  # type: ignore[index]


class Tracer(fx.Tracer):
    """Traces a model for one input. The value of each node is its `meta["value"]`; its `meta["used"]` are the
    dimensions whose sizes something is made of.

    Layers of torch, those of timm that can be slimmed, and attention are not looked into.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x
        self.computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (SlimmableAttention, *LEAVES)) or is_attention(m)
        return own or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Known(node, self)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Modules are called through here while tracing, also by `_compute`."""
        return forward(*args, **kwargs) if self.computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Attributes of modules are read through here."""
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "get_attr":  # tensors that a forward makes come by no other way
            node.meta["value"] = self._value(kind, target, (), {})
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **others: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **others)
        given: Any = map_aggregate((args, kwargs), _value_of)
        proxy.node.meta["value"] = self._value(kind, target, *given)
        return proxy

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """What a node is; modules and attributes are then what they are, and not recorded."""
        before, self.computing = self.computing, True
        try:
            return self._compute(kind, target, args, kwargs)
        finally:
            self.computing = before

    @torch.no_grad()
    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self.x if not args else args[0]  # what has a default keeps it
        if kind == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "get_attr":
            owner, _, name = target.rpartition(".")
            return getattr(self.root.get_submodule(owner), name)
        return None


def _value_of(argument: Any) -> Any:
    if isinstance(argument, Extent):
        argument.used()
    return argument.value if isinstance(argument, Known) else argument


def trace(model: nn.Module, x: Tensor, *, training: bool) -> fx.Graph:
    """The graph of a model for an input, in training or evaluation mode. What tracing raises, it raises.

    The model is a copy's: its mode and the statistics of its norms change.
    """
    return Tracer(x).trace(model.train(training))
