"""Reading YAML: what unquoted words mean, where entries stand, and texts that are no recipe."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zoo.recipe.errors import Mistake, Source, in_order
from zoo.recipe.scalar import Ambiguous, scalar
from zoo.recipe.source import MAX_DEPTH, MAX_ENTRIES, Node, from_plain, plain, read, walk


def parse(text: str) -> tuple[Node | None, list[Mistake]]:
    mistakes: list[Mistake] = []
    return read(Source("a.yaml", text), mistakes), mistakes


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("-0", 0),
        ("0.10", 0.1),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("-.inf", -math.inf),
        ("2024-01-31", "2024-01-31"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("32-true", "32-true"),
        ("nano", "nano"),
        ("no-op", "no-op"),
        ("9" * 200, "9" * 200),
    ],
)
def test_words(word: str, value: object) -> None:
    assert scalar(word) == value
    assert type(scalar(word)) is type(value)


NEED_QUOTES = """
    yes Yes NO on OFF y N 12:30 1:2:3 -1:30.5 010 -07 00 0o17 0b1 1_ 6._7 1e999 nan NaN inf -inf Infinity .iNf
"""


@pytest.mark.parametrize("word", NEED_QUOTES.split())
def test_words_that_need_quotes(word: str) -> None:
    with pytest.raises(Ambiguous, match="write"):
        scalar(word)
    node, mistakes = parse(f"a: '{word}'\nb: \"{word}\"")
    assert not mistakes
    assert node is not None
    assert plain(node) == {"a": word, "b": word}


@settings(max_examples=400, deadline=None)
@given(st.text("0123456789+-._eExobInfaNyst:~uldr", min_size=1, max_size=7))
def test_a_word_is_refused_or_means_what_omegaconf_reads(word: str) -> None:
    try:
        ours = scalar(word)
        theirs = OmegaConf.create(f"x: {word}\n").x
    except (Ambiguous, YAMLError, OmegaConfBaseException):
        return
    # One corner in which YAML 1.2 is followed and OmegaConf is not: -.5 and .5e3 are numbers.
    if isinstance(ours, float) and word.lstrip("+-").startswith("."):
        return
    assert repr(ours) == repr(theirs)


def test_every_entry_knows_its_place() -> None:
    text = "a: 1\nb:\n  c: [x, {d: 2}]\n  e: |\n    long\n    text\n'f': *k\n".replace("*k", "&k 3\ng: *k")
    node, mistakes = parse(text)
    assert node is not None and not mistakes
    places = {path: (n.origin.line, n.origin.column) for path, n in walk(node) if path}
    assert places == {
        "a": (1, 1),
        "b": (2, 1),
        "b.c": (3, 3),
        "b.c.0": (3, 7),
        "b.c.1": (3, 10),
        "b.c.1.d": (3, 11),
        "b.e": (4, 3),
        "f": (7, 1),
        "g": (8, 1),
    }
    assert plain(node)["g"] == 3
    assert plain(node)["b"]["e"] == "long\ntext\n"


def test_the_excerpt_underlines_the_entry() -> None:
    text = "k: {" + "x: 1, " * 40 + "here: 010, " + "y: 2, " * 40 + "}"
    _, mistakes = parse(text)
    places = [m for m in mistakes if m.path == "k.here"]
    line, marks = str(places[0]).splitlines()[1:]
    assert len(line) < 120
    assert line[marks.index("^") : marks.rindex("^") + 1] == "here: 010"
    _, mistakes = parse("a: 010 # \x85b: no\n")  # U+0085 ends a line in YAML
    assert [m.origin.line for m in in_order(mistakes)] == [1, 2]


def test_control_characters_do_not_reach_the_terminal() -> None:
    node = from_plain({"a": 1}, Source("x"), [])
    assert plain(node) == {"a": 1}
    _, mistakes = parse('a: no # "\u202e\u009b31m"\n')
    assert all(c.isprintable() or c == "\n" for c in "".join(map(str, mistakes)))


def test_texts_without_end_are_stopped() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    for text, message in [
        (bomb, f"more than {MAX_ENTRIES:,}"),
        ("a: " + "[" * 5000, f"deeper than {MAX_DEPTH}"),
        ("a: " + "{b: " * 5000, f"deeper than {MAX_DEPTH}"),
        ("a: &a [*a]", "stands for nothing"),
        ("x" * 1_000_001, "longer than"),
        ("- x\n" * 10_001, f"more than {MAX_ENTRIES:,}"),
    ]:
        node, mistakes = parse(text)
        assert node is None
        assert message in str(mistakes[-1])


def test_python_data_is_checked_too() -> None:
    mistakes: list[Mistake] = []
    loop: dict[str, object] = {}
    loop["again"] = loop
    node = from_plain({"a": (1, 2.5), "b": object(), "c.d": 1, 3: 4, "e": loop}, Source("<python>"), mistakes)
    assert plain(node)["a"] == [1, 2.5]
    assert len(mistakes) == 4


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("{}[]:,-&*!|>'\"%@`#?\n\t ${}<"), max_size=40))
def test_any_text_is_read_or_explained(text: str) -> None:
    node, mistakes = parse(text)
    assert node is not None or mistakes
    for mistake in mistakes:
        assert str(mistake).startswith("a.yaml")
