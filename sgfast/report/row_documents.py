"""Generate documents from ``row_schema``: ``docs/rows.md``, and the columns in ``docs/tables.md``.

``python -m sgfast.report.row_documents`` writes them into the repository.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from sgfast.rows.row_schema import ROW_KINDS, TABLE_KINDS, TYPES, Column, RowKind, TableKind

ROOT = Path(__file__).resolve().parents[2]

#: The marks around the part of ``docs/tables.md`` that is generated.
BEGIN, END = "<!-- columns: begin -->", "<!-- columns: end -->"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _columns(columns: Iterable[Column]) -> str:
    return _table(["column", "type", "meaning", "null where"], map(_row, columns))


def _row(column: Column) -> list[str]:
    words = f" One of {', '.join(f'`{word}`' for word in column.words)}." if column.words else ""
    return [f"`{column.name}`", column.type.name, column.meaning + words, column.null or "never"]


def _section(kind: RowKind) -> str:
    return "\n".join(
        (
            f"## `{kind.option}`: each row is {kind.meaning}\n",
            _columns(kind.flat),
            _paragraph(
                f"A side is {kind.side_meaning}. It is null where {kind.side_null}. "
                f"`sgfast schema {kind.schema}` prints the JSON Schema of a line."
            ),
        )
    )


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_on_hyphens=False) + "\n"


def _table_section(kind: TableKind) -> str:
    names = " and ".join(f"`{name}`" for name in kind.names)
    return f"### {names}\n\nEach row is {kind.meaning}.\n\n{_columns(kind.columns)}"


def table_columns() -> str:
    """Return the columns of all tables in memory."""
    types = dict.fromkeys((column.type.name, column.type.parquet) for kind in TABLE_KINDS for column in kind.columns)
    return "\n".join(
        (*map(_table_section, TABLE_KINDS), "### Types\n", _table(["type", "in Arrow"], types))
    )


def markdown() -> str:
    types = [[type_.name, type_.meaning, type_.parquet] for type_ in TYPES]
    return "\n".join(
        (
            "# Rows\n",
            _paragraph(
                "The columns of `--verdicts` and `--connections`, in the order in which they are written. CSV and "
                "Parquet have the names below. In JSON lines `egress` and `ingress` are objects, or null: "
                "`egress.rule` is the field `rule` of the first. In CSV an empty field is null."
            ),
            _paragraph("`python -m sgfast.report.row_documents` makes this file from `sgfast/rows/row_schema.py`."),
            *map(_section, ROW_KINDS),
            "## Types\n",
            _table(["type", "in JSON lines and CSV", "in Parquet"], types),
        )
    )


def documents() -> dict[Path, str]:
    """Return the text of each generated file, by its path in the repository."""
    page = Path("docs", "tables.md")
    text = (ROOT / page).read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    return {Path("docs", "rows.md"): markdown(), page: f"{head}\n\n{table_columns()}\n{tail}"}


if __name__ == "__main__":
    for path, text in documents().items():
        (ROOT / path).write_text(text, encoding="utf-8")
