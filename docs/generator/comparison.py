"""The committed comparison of architectures: tables here, curves on a page of its own."""

from __future__ import annotations

from pathlib import Path

from docs.generator.markdown import table
from zoo.comparison import Comparison, page, read_comparisons
from zoo.recipe.find import sweep_files

#: What `zoo compare --json` wrote.
DATA = Path(__file__).resolve().parents[1] / "data/five_models.json"
SWEEP = "core/five_models"
TITLE = "Five architectures, on text and on images"
#: Beside the page, written when the site is built.
CURVES = "five_models_curves.html"

INTRODUCTION = """\
The softmax transformer, Aaren, TransNormer, Combiner and Titans, each at the width at which it has as many
parameters as the transformer, over three seeds, by one command. Killed, it goes on where it ended.

```sh
zoo sweep core/five_models --jobs 2
```

The sweep comes with the zoo; `zoo recipe copy core/five_models mine.yaml` makes it yours:
"""
CONDITIONS = f"""\
<a href="{CURVES}">The page that it writes</a> has the curves and the costs. It and the tables below are made
from what `zoo compare SWEEP --by-data --json` keeps.

On the text all are beyond letter pairs (bigrams). Titans (a memory beside attention in a window) comes
out 0.10 bits per character below the transformer, at 1.4 times the operations and 3.5 times the time of
a step; TransNormer, Combiner and Aaren stay above it. On the digits no difference is beyond noise: three
seeds, and fewer than 400 images in the test split.

These are small models, with settings that suit the transformer and are the same for all: they show how a
comparison is made and read, not which architecture is best. A text model trains for 15 to 30 seconds, Titans'
for 70; all thirty took 6 minutes, two at a time, on two cores. Larger and
trained longer, the transformer reaches 1.76 bits per character on the same text (recipe `core/sotu_small`); a
baseline in the notes may do better than a model here.
"""


def comparison_page() -> str:
    written = sweep_files()[SWEEP].read_text(encoding="utf-8")
    listed = f'```yaml title="five_models.sweep.yaml"\n{written}```\n'
    parts = [f"# {TITLE}\n", INTRODUCTION, listed, CONDITIONS]
    for each in read_comparisons(DATA):
        heading, *rows = each.cells()
        parts += [f"## {each.data}\n", table(heading, rows), "".join(f"* {note}\n" for note in notes(each))]
    return "\n".join(parts)


def notes(comparison: Comparison) -> list[str]:
    first = comparison.groups[0]
    dates = " and ".join(sorted({row.date for row in comparison.groups}))
    better = {"min": "less is better", "max": "more is better"}.get(comparison.mode or "", "")
    return [
        f"{comparison.metric}: {better}; mean ± standard deviation over seeds "
        f"{', '.join(map(str, first.seeds))}; differences paired by seed, p after Holm's correction.",
        *comparison.notes,
        f"{dates}, {first.machine}, 2 CPU cores, two runs at a time on a shared machine: times of "
        "steps are rough.",
    ]


def curves_page() -> str:
    """The HTML page itself."""
    return page(read_comparisons(DATA), title=TITLE)
