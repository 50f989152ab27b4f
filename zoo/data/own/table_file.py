"""Tables as people keep them, CSV or Parquet, read into columns of text (torch-free)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, suggest

DELIMITERS = (",", ";", "\t", "|")
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of text cells, `""` where there is nothing. places: what each row is called in messages."""

    path: Path
    columns: Mapping[str, list[str]]
    places: range | list[int]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.places)

    def column(self, name: str) -> list[str]:
        """The cells of a column.

        Raises:
            ZooError: there is no column of this name; close names are suggested.
        """
        if name not in self.columns:
            raise ZooError(f"{self.path.name} has no column {name!r}.{suggest(name, self.columns)}")
        return self.columns[name]

    def place(self, row: int) -> str:
        """`line 17`: where a row stands in its file."""
        return f"{self.unit} {self.places[row]}"


def read_table(path: Path, *, delimiter: str | None = None, encoding: str = "utf-8") -> Table:
    """A CSV with a header, or a Parquet file by its suffix.

    Args:
        delimiter: `None`: the one of `, ; tab |` that the header has most of.

    Raises:
        ZooError: the file is empty, ragged, has no header or one with a name twice, or cannot be read.
    """
    if path.suffix.lower() in PARQUET:
        return _read_parquet(path)
    rows = _csv_rows(path, delimiter, encoding)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    _check_header(path, header)
    columns: dict[str, list[str]] = {name: [] for name in header}
    cells, places = list(columns.values()), []
    for line, row in rows:
        if len(row) != len(header):
            raise ZooError(
                f"{path.name}, line {line}: {len(row)} cells, but the header names {len(header)} columns; "
                f"a cell that holds the delimiter must stand in double quotes"
            )
        places.append(line)
        for column, cell in zip(cells, row, strict=True):
            column.append(cell.strip())
    if not places:
        raise ZooError(f"{path.name} has a header, but no row below it")
    return Table(path=path, columns=columns, places=places)


def _csv_rows(path: Path, delimiter: str | None, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines that are not blank; one of empty cells is a row."""
    encoding = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
    try:
        with open(path, encoding=encoding, newline="") as file:
            if delimiter is None:
                start = file.readline()
                delimiter = max(DELIMITERS, key=start.count)
                file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if len(row) > 1 or any(cell.strip() for cell in row):  # no blank line
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise ZooError(
            f"{path.name} is no {encoding.removesuffix('-sig')} text (byte {error.start}); "
            f"`encoding` names another, e.g. latin-1"
        ) from None
    except LookupError:
        raise ZooError(f"there is no text encoding {encoding!r}; usual ones are utf-8, latin-1") from None
    except csv.Error as error:
        raise ZooError(f"{path.name}, line {reader.line_num}: this is no CSV ({error})") from None


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise ZooError(f"{path.name} is empty; expected a first line that names the columns, then rows")
    if all(map(is_number, header)):
        raise ZooError(
            f"{path.name}: the first line must name the columns, but holds numbers: {', '.join(header[:5])}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        which = f"two columns are called {twice[0]!r}" if any(twice) else "a column has no name"
        raise ZooError(f"{path.name}: {which}; each needs a name of its own")


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ZooError(
            f"{path.name}: Parquet files need the package 'pyarrow': pip install 'archzoo[parquet]', "
            "or save the table as CSV"
        ) from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ZooError(f"{path.name}: this is no Parquet file that can be read ({error})") from None
    if not len(table):
        raise ZooError(f"{path.name} has no rows")
    return table_of(path, {name: table.column(name).to_pylist() for name in table.column_names})


def table_of(path: Path, columns: Mapping[str, Iterable[Any]]) -> Table:
    """A table from columns of Python values; a column of lists or bytes is refused by its name."""
    cells = {name: [_cell(path, name, value) for value in values] for name, values in columns.items()}
    _check_header(path, list(cells))
    size = len(next(iter(cells.values())))
    return Table(path=path, columns=cells, places=range(1, size + 1), unit="row")


def _cell(path: Path, name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, dict, bytes)):
        raise ZooError(f"{path.name}: column {name!r} holds {type(value).__name__} values, no single cells")
    return str(value).strip()


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number, infinite ones included."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # 1_000 is a number to Python alone
