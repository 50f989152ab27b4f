"""What an unquoted word of YAML means here, and which ones must be quoted.

YAML 1.1 (PyYAML) and 1.2 disagree on words such as `no`, `12:30` and `010`; whoever writes one gets
a value that they did not ask for. Those are refused with a request for quotes. The rest follows YAML
1.2, as OmegaConf does: `1e-3` is a number, a date is a text.
"""

from __future__ import annotations

import math
import re

Scalar = None | bool | int | float | str

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_DIGITS = r"[0-9]+(_[0-9]+)*"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+")
_FLOAT = re.compile(rf"[-+]?(({_DIGITS}\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|{_DIGITS}[eE][-+]?[0-9]+)")
_INF = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_LONGEST_NUMBER = 100
_NAN = {".nan", ".NaN", ".NAN"}

_SWITCHES = {"yes": "true", "y": "true", "on": "true", "no": "false", "n": "false", "off": "false"}
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+|[-+]?0[bo][0-7_]+")
_LOOSE = re.compile(r"[-+]?(inf|infinity|nan)|[-+]?\.(inf|nan)", re.IGNORECASE)


class Ambiguous(ValueError):
    """An unquoted word that means different things to different readers of YAML."""


def scalar(text: str) -> Scalar:
    """The value of an unquoted word.

    Raises:
        Ambiguous: the word must be quoted, or spelled in another way.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        value = float(text.replace("_", ""))
        if math.isinf(value):
            raise Ambiguous(f"{text} is too large for a number: write .inf, or '{text}' for the text")
        return value
    if infinite := _INF.fullmatch(text):
        return -math.inf if infinite[1] == "-" else math.inf
    if text in _NAN:
        return math.nan
    _refuse_ambiguous(text)
    return text


def _refuse_ambiguous(text: str) -> None:
    quoted = f"'{text}'"
    switch = _SWITCHES.get(text.lower())
    if switch:
        raise Ambiguous(f"unquoted {text} is {switch} to some readers of YAML: write {switch} or {quoted}")
    if _BASE_60.fullmatch(text):
        raise Ambiguous(f"unquoted {text} is a number in base 60 to some readers of YAML: write {quoted}")
    if _LEADING_ZERO.fullmatch(text):
        raise Ambiguous(
            f"unquoted {text} is an octal number to some readers of YAML: write {quoted}, "
            "or the decimal number without a leading zero"
        )
    digits = text.replace("_", "")
    if digits != text and text[0] != "_" and any(p.fullmatch(digits) for p in (_INT, _HEX, _FLOAT)):
        raise Ambiguous(f"unquoted {text} is a number to some readers of YAML: write {digits} or {quoted}")
    if _LOOSE.fullmatch(text):
        name = ".nan" if "nan" in text.lower() else "-.inf" if text.startswith("-") else ".inf"
        raise Ambiguous(
            f"unquoted {text} is a text to YAML: write {name} for the number, {quoted} for the text"
        )
