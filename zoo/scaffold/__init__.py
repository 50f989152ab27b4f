"""`zoo new plugin NAME`: a complete, honest plugin distribution to start from (torch-free).

The files lie in `templates/`, one folder for each thing that a kind is made of. In them `$name`, `$Name`,
`$dashed` and `$kind` stand for `swirl`, `Swirl`, `swirl` and `mixer`; a folder called `package` becomes
`zoo_swirl`, and one called `pytest` becomes `tests` (a wheel has no folder of that name).
"""

from zoo.scaffold.plugin import KINDS, new_plugin, render

__all__ = ["KINDS", "new_plugin", "render"]
