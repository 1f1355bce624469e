"""What every row of a corpus promises beside its columns' types, checked where a query reads it.

A corpus that somebody else made may hold anything that Parquet can. Columns without a promise here
may hold any value of their type: nothing that reads them minds.
"""

from __future__ import annotations

from pathlib import Path

from curate.storage.schema import EXAMPLES

_WHOLE = "len(messages) > 0 and list_bool_and(list_transform({}, lambda each: {}))"
_SCORED = "coalesce(list_bool_and(list_transform({}, lambda each: {})), true)"
OF_EXAMPLES = {
    name: (f"{name} is not null", f"{name} is null")
    for name in EXAMPLES.names
    if name not in ("example_id", "messages", "meta")
} | {
    "messages": (
        _WHOLE.format("messages", "each.role is not null and each.content is not null"),
        "messages are none, or one lacks its role or content",
    )
}
OF_SCORES = {
    "token_logprobs": (
        _SCORED.format("token_logprobs", "coalesce(isfinite(each), false)"),
        "token_logprobs hold something that is no number",
    ),
    "tokens": (_SCORED.format("tokens", "each is not null"), "tokens hold a null"),
}
OF_SCORING = {
    "example_id": ("example_id is not null", "example_id is null"),
    "messages": OF_EXAMPLES["messages"],
}
"""By column: the condition, in SQL, that each of its values meets, and what is wrong else. Of
examples in every query, of scores, and of what a run reads of examples."""


def checked(promises: dict[str, tuple[str, str]], folder: Path) -> str:
    """SQL for `* replace (...)`: the columns, each an error where a value breaks its promise.

    Columns that a query doesn't read cost it nothing.
    """

    def column(name: str, holds: str, wrong: str) -> str:
        said = f"{folder}: a row's {wrong}; curate writes no such row: score into a new corpus"
        said = said.replace("'", "''")
        return f"case when {holds} then {name} else error('{said}') end as {name}"

    return ", ".join(column(name, *promise) for name, promise in promises.items())
