"""Writes the tables of docs/sql.md from the SQL itself: `python docs/make_sql.py`.

Views and columns come from sql/views/ (types from DuckDB, texts from its comments), queries from
the first lines of sql/*.sql. A test compares them, so the page can't fall behind.
"""

from __future__ import annotations

from pathlib import Path

from curate.corpus.queries import RANKING, named, typed
from curate.corpus.views import described

PAGE = Path(__file__).parent / "sql.md"


def views() -> str:
    """A section a view: what a row is, and a line a column."""
    parts = []
    for view, (about, columns) in described().items():
        lines = [f"### {view}", "", about, ""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {c.unit} | {c.about} |" for c in columns]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def queries() -> str:
    """A line a named query: its parameters with their defaults, and what it answers."""
    lines = ["| query | parameters | what it answers |", "|---|---|---|"]
    for query in named().values():
        given = [f"`{key}={typed(value)}`" for key, value in query.defaults.items()]
        if "hold_out" in query.defaults:
            given = [*given[: -len(RANKING)], "*gaps*"]
        lines.append(f"| `{query.name}` | {', '.join(given)} | {query.about} |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """The page with its two generated parts regenerated."""
    for name, text in (("views", views()), ("queries", queries())):
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, _, rest = page.partition(start)
        page = f"{head}{start}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
