"""card.md: what ran, what came out, in half a page."""

from __future__ import annotations

from zoo.recipe import LoadedRecipe
from zoo.training.result import RunResult, score_rows


def render_card(loaded: LoadedRecipe, result: RunResult) -> str:
    """The card of a finished run, in Markdown."""
    recipe, plan, run = loaded.recipe, loaded.plan, result.run
    info = run.info if run is not None else {}
    lines = [f"# {recipe.title or info.get('recipe', 'run')}", ""]
    if recipe.paper:
        lines += [f"Paper: <{recipe.paper}>", ""]
    lines += [
        f"    {plan.describe()}",
        "",
        f"{result.parameters:,} parameters, {result.step} updates, seed {recipe.seed}. "
        f"Best checkpoint by {info.get('monitor')} ({info.get('mode')}), from step {info.get('best_step')}.",
        "",
        *_table(score_rows(result.metrics, result.baselines, split="test")),
    ]
    if worse := result.outdone():
        lines += ["", worse]
    if result.expect is not None:
        lines += ["", result.verdict()]
    versions = ", ".join(f"{name} {v}" for name, v in info.get("versions", {}).items() if v)
    lines += ["", "![curves](curves.png)", "", f"Recipe: `resolved.yaml`. Versions: {versions}.", ""]
    return "\n".join(lines)


def _table(rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table; the first row is its heading."""
    rule = "|".join(["---"] * len(rows[0]))
    heading, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [heading, f"|{rule}|", *body]
