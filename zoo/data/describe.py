"""What turned raw data into inputs, as plain data, for programs that use a model without the zoo."""

from __future__ import annotations

from typing import Any


def describe_encoding(encode: Any) -> dict[str, Any] | None:
    """How `Splits.encode` (or `decode`) works: what its object's method `to_dict()` says.

    A function or an object without that method is named, with the first line of its docstring; `None`: none.
    """
    if encode is None:
        return None
    owner = getattr(encode, "__self__", encode)
    if hasattr(owner, "to_dict"):
        described: dict[str, Any] = owner.to_dict()
        return described
    named = encode if hasattr(encode, "__qualname__") else type(owner)
    said = (named.__doc__ or "").strip().partition("\n")[0]
    return {"kind": "other", "name": f"{named.__module__}.{named.__qualname__}", "summary": said}
