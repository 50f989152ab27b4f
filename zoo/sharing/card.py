"""A trained model described: as plain data for programs, and as the card of a model on a hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.catalogue import Catalogue
from zoo.contract import Plan, plugins_of
from zoo.data.describe import describe_encoding
from zoo.data.split import Splits
from zoo.kinds import kind_to_dict
from zoo.specs import Paper


def describe_model(plan: Plan, splits: Splits | None, info: Mapping[str, Any]) -> dict[str, Any]:
    """What goes in and comes out, how raw data become inputs, and where the model comes from.

    splits: the data it was trained on; `None`: they are not here, and how they were prepared is not known.
    info: the record of its run.
    """
    return {
        "plan": plan.to_dict(),
        "describe": plan.describe(),
        "inputs": kind_to_dict(plan.inputs),
        "targets": kind_to_dict(plan.targets),
        "preprocessing": describe_encoding(splits.encode) if splits else None,
        "postprocessing": describe_encoding(splits.decode) if splits else None,
        "parameters": info.get("parameters"),
        "metrics": info.get("metrics", {}),
        "versions": info.get("versions", {}),
    }


def render_hub_card(
    *, repo: str, plan: Plan, info: Mapping[str, Any], catalogue: Catalogue, licence: str | None
) -> str:
    """README.md of a model on the hub: facts for its search, how to use it, what it reached."""
    spec = catalogue.get("model", plan.model.id)
    needed = sorted({text.rpartition(" ")[0] for text in plugins_of(plan, catalogue).values()})
    metrics = {name: value for name, value in info.get("metrics", {}).items() if value is not None}
    lines = [
        *_front(plan, metrics, licence),
        f"# {repo.partition('/')[2] or repo}",
        "",
        f"`{plan.model.id}` ({spec.summary}), trained with archzoo by the recipe `{info.get('recipe')}`:",
        "",
        f"    {plan.describe()}",
        "",
        "## Use",
        "",
        "```sh",
        f"pip install {' '.join(needed)}",
        "```",
        "",
        "```python",
        "import zoo",
        "",
        f'model = zoo.load_model("hf://{repo}")  # safetensors; runs no code of this repository',
        "```",
        "",
        "`model.json` says what goes in (kind, sizes, preprocessing), what comes out (classes, units), and "
        "which versions it was made with.",
        "",
        "## Results",
        "",
        *_results(metrics, info),
        "",
        f"{info.get('parameters', 0):,} parameters, {info.get('step', 0):,} updates, seed {info.get('seed')}."
        + _origin(info),
        "",
    ]
    if isinstance(spec.paper, Paper):
        lines += ["## Paper", "", f"{spec.paper.title} ({spec.paper.year}), <{spec.paper.url}>", ""]
    return "\n".join(lines)


def _front(plan: Plan, metrics: Mapping[str, float], licence: str | None) -> list[str]:
    """The YAML that a hub reads."""
    lines = ["---", "library_name: archzoo", *([f"license: {licence}"] if licence else [])]
    lines += ["tags:", "- archzoo", *(f"- {name}" for name in _tags(plan))]
    dataset = plan.dataset.id if plan.dataset else None
    if dataset and metrics:
        lines += [
            "model-index:",
            f"- name: {plan.model.id}",
            "  results:",
            f"  - task: {{type: {plan.targets.kind}}}",
            f"    dataset: {{name: {dataset}, type: {dataset}}}",
            "    metrics:",
            *(
                f"    - {{type: {name.partition('/')[2]}, value: {value:.6g}}}"
                for name, value in metrics.items()
            ),
        ]
    return [*lines, "---", ""]


def _tags(plan: Plan) -> list[str]:
    names = [plan.model.id, plan.inputs.kind, plan.targets.kind, *(part.id for part in plan.transforms)]
    return [name.replace("/", "-") for name in names]


def _results(metrics: Mapping[str, float], info: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["No scores were recorded."]
    baseline = info.get("baseline", {})
    return [
        "| metric | score | naive baseline |",
        "|---|---|---|",
        *(f"| {name} | {value:.4g} | {_number(baseline.get(name))} |" for name, value in metrics.items()),
    ]


def _origin(info: Mapping[str, Any]) -> str:
    """Where a transformed model comes from."""
    made = info.get("transformed")
    return f" Made from a trained run by the transform `{made['transform']}`." if made else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
