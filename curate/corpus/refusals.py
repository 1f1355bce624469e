"""The SQL function `is_refusal(answer, rule)`: the rules of reading/refusals.py in DuckDB.

It is made only for queries that ask it: DuckDB takes a fifth of a second to define it.
"""

from __future__ import annotations

import re

import duckdb

from curate.reading.refusals import APOSTROPHES, SHIPPED, Rule, either, load
from curate.system.sql import literal

_ASKED = re.compile(r"\bis_refusal\s*\(", re.IGNORECASE)
_FILES = re.compile(r"'([^']+\.toml)'")
_SPACES = (
    r"\s\x0b\x1c-\x1f\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
)
"""What Python's `str.split` splits at."""


def define(connection: duckdb.DuckDBPyConnection, query: str, *, unsafe: bool = False) -> None:
    """Define the macro where a query asks it; an unsafe one may name rule files, too.

    Raises:
        CurateError: a rule's file can't be read.
    """
    if not _ASKED.search(query):
        return
    names = [*SHIPPED, *(dict.fromkeys(_FILES.findall(query)) if unsafe else ())]
    rules = " ".join(f"when {literal(name)} then {_refuses(load(name))}" for name in names)
    connection.execute(
        "create or replace macro is_refusal(answer, rule := 'paper') as case rule "
        f"{rules} else error('no refusal rule is called ' || rule || ': paper, extended, or with "
        "--unsafe a file that ends in .toml') end"
    )


def _refuses(rule: Rule) -> str:
    """SQL that says whether a rule finds a refusal in `answer`."""
    longest = max(words for words, _, _ in rule.refuses)
    groups: dict[tuple[int, int | None], list[str]] = {}
    for words, letters, patterns in rule.refuses:
        groups.setdefault((words, letters), []).extend(patterns)
    found = []
    for (words, letters), merged in groups.items():
        seen = "t"
        if words < longest:
            seen = f"rtrim(regexp_extract(t, '^(?:[^ ]+ ?){{0,{words}}}'))"
        seen = f"left({seen}, {letters})" if letters else seen
        pattern = literal(either(merged))
        matches = f"regexp_matches({seen}, {pattern})"
        if rule.ignores:
            kept = f"regexp_replace({seen}, {literal(rule.ignores)}, chr(10), 'g')"
            matches += f" and regexp_matches({kept}, {pattern})"
        found.append(f"({matches})")
    opening = f"list_transform([{_opening(longest)}], lambda t: {' or '.join(found)})"
    return f"list_bool_or({opening})"


def _opening(words: int) -> str:
    """SQL of `opening` in reading/refusals.py."""
    behind = "regexp_replace(answer, '(?s)^.*</think>', '')"
    first = f"'^[{_SPACES}]*(?:[^{_SPACES}]+[{_SPACES}]*){{0,{words}}}'"
    spaced = f"regexp_replace(regexp_extract({behind}, {first}), '[{_SPACES}]+', ' ', 'g')"
    return f"translate(lower(trim({spaced})), '{APOSTROPHES}', repeat('''', {len(APOSTROPHES)}))"
