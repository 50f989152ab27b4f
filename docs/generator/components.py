"""Cards of the components, and which models work on which datasets."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import zoo.plugin as zp
from docs.generator.markdown import parameters_table, table
from zoo.catalogue import Catalogue

# The facts of a card and the columns of a list are those of `zoo show` and `zoo list`.
from zoo.cli import components as cards
from zoo.contract import Plan, matrix
from zoo.specs import SPEC_KINDS
from zoo.testing import checks_for
from zoo.testing.check import spelled

#: Kinds with a page for each component, and the folder of these pages.
PAGED = {"model": "models", "mixer": "mixers", "dataset": "datasets"}
#: Kinds that share one page, in its order.
TOGETHER = ("stem", "head", "task", "feed_forward", "transform", "callback", "decoder", "command")
#: A dataset to show each kind of model with.
SUITS = {"tokens": "digits", "vector": "wine", "image": "digits"}


def component_pages(found: Catalogue) -> dict[str, str]:
    """The pages of all components, by path."""
    pages = {"parts.md": parts_page(found), "matrix.md": matrix_page(found)}
    for kind, folder in PAGED.items():
        pages[f"{folder}/index.md"] = index_page(found, kind)
        for spec in found.specs(kind):
            pages[f"{folder}/{file_name(spec)}"] = card_page(found, spec)
    return pages


def index_page(found: Catalogue, kind: str) -> str:
    """The components of one kind, as `zoo list` shows them."""
    title = PAGED[kind].capitalize()
    cls = next(cls for cls in SPEC_KINDS if cls.kind == kind)
    columns = cards._COLUMNS.get(cls, ())
    rows = []
    for spec in found.specs(kind):
        claims = cards._refined(found, spec)
        cells = [cards._cell(claims, name) for _, name in columns]
        rows.append([f"[{spec.id}]({file_name(spec)})", spec.summary, *cells])
    intro = f"What `zoo list {PAGED[kind]}` shows without further plugins, at default parameters."
    names = ["name", "what it is", *(name for name, _ in columns)]
    return f"# {title}\n\n{intro}\n\n{table(names, rows)}"


def card_page(found: Catalogue, spec: zp.Spec) -> str:
    """One component: where it comes from, what it claims and takes, how to name it, what holds it to that."""
    blocks = [f"# {spec.id}", spec.summary, facts_table(cards._refined(found, spec)), usage(spec)]
    blocks += ["## Parameters", parameters(spec)]
    if isinstance(spec, zp.ModelSpec) and spec.presets:
        rows = [[f"`{name}`", f"`{json.dumps(dict(given))}`"] for name, given in spec.presets.items()]
        blocks += ["## Presets", table(["preset", "parameters"], rows)]
    names = [check.name for check in checks_for(spec, found)]
    checks = ", ".join(f"[`{name}`](../conformance.md#{name})" for name in names)
    blocks += ["## Held to", f"`zoo check {spec.id}` runs: {checks}."]
    if spec.variants:
        given = "; ".join(f"`{spelled(params)}`" for params in spec.variants)
        blocks.append(f"Those [of variants](../conformance.md#variants) also with {given}.")
    return "\n\n".join(blocks) + "\n"


def usage(spec: zp.Spec) -> str:
    """How to name it in Python."""
    if isinstance(spec, zp.ModelSpec):
        example = f'model = zoo.create_model("{spec.id}", dataset="{SUITS[spec.accepts]}")'
    elif isinstance(spec, zp.MixerSpec):
        example = f'model = zoo.create_model("core/transformer", dataset="digits", layers=["{spec.id}"])'
    elif isinstance(spec, zp.DatasetSpec) and spec.own:
        with tempfile.TemporaryDirectory() as folder:
            given = spec.make_sample(Path(folder))
        words = {name: _shown(value, folder) for name, value in given.items()}
        yaml = ", ".join(f"{name}: {value}" for name, value in words.items())
        keywords = "".join(f"    {name}={json.dumps(value)},\n" for name, value in given.items())
        example = f'splits = zoo.create_dataset(\n    "{spec.id}",\n{keywords})'.replace(folder, "my_data")
        recipe = (
            f"In a recipe:\n\n```yaml\ndata: {{name: {spec.id}, params: {{{yaml}}}}}\n```\n\nIn Python:\n\n"
        )
        return f"{recipe}```python\nimport zoo\n\n{example}\n```"
    else:
        example = f'splits = zoo.create_dataset("{spec.id}")'
    return f"```python\nimport zoo\n\n{example}\n```"


def _shown(value: Any, folder: str) -> str:
    """A parameter of an example in YAML; its folder is `my_data`."""
    if isinstance(value, str):
        return value.replace(folder, "my_data")
    return json.dumps(value).replace('"', "")


def parts_page(found: Catalogue) -> str:
    """Everything that the contract puts around a model, and what goes into its layers."""
    blocks = [
        "# Parts",
        "Stems, heads and tasks are what the contract puts around a model; feed-forwards stand in "
        "its layers. A recipe may name any of them; where it does not, the cheapest that fits is taken. "
        "Transforms change a built model, callbacks add to a run, both only where a recipe names them. "
        "Decoders choose the symbols of `zoo generate`; commands do something with a trained run, "
        "`zoo PLUGIN COMMAND RUN`.",
    ]
    for kind in TOGETHER:
        specs = found.specs(kind)
        if specs:
            blocks.append(f"## {cards.plural(kind).replace('-', ' ').capitalize()}")
        for spec in specs:
            blocks += [f"### {spec.id}", spec.summary, facts_table(spec), parameters(spec)]
    return "\n\n".join(blocks) + "\n"


def matrix_page(found: Catalogue) -> str:
    """Models x datasets, and the reason where a pair does not work."""
    models = [spec.id for spec in found.specs("model")]
    outcomes: dict[str, dict[str, Any]] = {}
    for model, dataset, outcome in matrix(found):
        outcomes.setdefault(dataset, {})[model] = outcome
    reasons: dict[str, int] = {}
    rows = []
    for dataset, by_model in outcomes.items():
        cells = []
        for model in models:
            outcome = by_model[model]
            ok = isinstance(outcome, Plan)
            cells.append("ok" if ok else f"no ({reasons.setdefault(outcome, len(reasons) + 1)})")
        rows.append([f"`{dataset}`", *cells])
    numbered = "".join(f"{number}. {reason}\n" for reason, number in reasons.items())
    return (
        "# Models x datasets\n\nWhat `zoo matrix` prints: whether a model at its default parameters works on "
        "a dataset, or why not. The tests train every pair that is ok for a few steps.\n\n"
        + table(["dataset", *(f"`{model}`" for model in models)], rows)
        + f"\n{numbered}"
    )


def facts_table(spec: zp.Spec) -> str:
    """The labelled lines of a card; a paper becomes a link."""
    facts = [(label, text) for label, text in cards._facts(spec) if label != "paper"]
    if spec.paper:
        facts.insert(0, ("paper", f"[{spec.paper.title}]({spec.paper.url}) ({spec.paper.year})"))
    return table(["", ""], [[f"**{label}**", text] for label, text in facts])


def parameters(spec: zp.Spec) -> str:
    return parameters_table(spec.config_class(), spec.params if isinstance(spec, zp.ModelSpec) else None)


def file_name(spec: zp.Spec) -> str:
    return f"{spec.id.replace('/', '_')}.md"
