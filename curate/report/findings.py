"""What the report tells, as plain tables: asked of SQL, of the named queries and of the recipe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.corpus import queries
from curate.corpus.show import tokens_of_examples
from curate.report.lens import Row, ask, ask_named, gap_bins, length_label, name_sources, ranking
from curate.selection.recipe import budget
from curate.selection.select import select

if TYPE_CHECKING:
    import duckdb

    from curate.corpus.corpus import Corpus
    from curate.report.lens import Row
    from curate.selection.recipe import Recipe
    from curate.selection.select import Selection

POINTS = 3000
TAKEN_POINTS = 400
SNIPPET = 200


@dataclass(frozen=True)
class Spread:
    """How the gaps lie. `cells` count every ranked example; `sample` is a uniform draw of them."""

    span: Row
    sources: list[Row]
    step: float
    cells: list[Row]
    by_source: list[Row]
    by_length: list[Row]
    depth: list[Row]
    sample: list[Row]


@dataclass(frozen=True)
class Ensemble:
    """Whether the misaligned models agree, and what the top owes to each and to ε.

    All by the recipe's ε, metric and ensemble; `epsilon_sweep` is empty where ε plays no part.
    """

    agreement: list[Row]
    leave_one_out: list[Row]
    epsilon_sweep: list[Row]


@dataclass(frozen=True)
class Taken:
    """What the recipe takes: its rows' numbers in order, and how the others fell away."""

    selection: Selection
    rows: list[Row]
    tokens: int
    bytes: int
    refusals: int
    same_prompt: int
    same_answer: int
    by_source: list[Row]


@dataclass(frozen=True)
class Findings:
    """All that a report tells. Without a ranking, `spread`, `ensemble` and `taken` are None."""

    path: Path
    recipe: Recipe
    status: Row
    models: list[Row]
    spread: Spread | None = None
    ensemble: Ensemble | None = None
    taken: Taken | None = None

    @property
    def members(self) -> int:
        """How many misaligned models the recipe ranks by."""
        misaligned = {row["model"] for row in self.models if row["role"] == "misaligned"}
        return len(misaligned.difference(self.recipe.hold_out))


def find(corpus: Corpus, recipe: Recipe) -> Findings:
    """Ask a corpus all that the report tells.

    Raises:
        CurateError: the recipe is wrong, or the corpus is broken.
    """
    status = queries.status(corpus)
    entries = corpus.manifest.models
    models = [
        row | {"entry": entries[row["model"]]}
        for row in sorted(status["models"], key=lambda row: (row["role"], row["model"]))
    ]
    if not status["ranked"]:
        return Findings(corpus.path, recipe, status, models)
    wanted = budget(recipe, None)
    with ranking(corpus, recipe) as cursor:
        if not cursor.execute("select count(*) from ranks").fetchall()[0][0]:
            return Findings(corpus.path, recipe, status, models)
        spread = _spread(cursor, wanted)
        ensemble = _ensemble(cursor, recipe, wanted)
        cursor.execute("drop table model_ranks")
        taken = _taken(cursor, select(corpus, recipe, wanted), spread)
    return Findings(corpus.path, recipe, status, models, spread, ensemble, taken)


def _spread(cursor: duckdb.DuckDBPyConnection, top: int) -> Spread:
    span = ask(cursor, "span")[0]
    sources = name_sources(cursor, top)
    low, step, bins = gap_bins(span["low"], span["high"])
    cells = ask(cursor, "cells", low=low, step=step, bins=bins)
    return Spread(
        span=span | {"first": low, "last": low + bins * step},
        sources=sources,
        step=step,
        cells=[
            {
                "gap": round(low + cell["gap_bin"] * step, 10),
                "gap_end": round(low + (cell["gap_bin"] + 1) * step, 10),
                "length": length_label(cell["length_bin"]),
                "source": cell["label"],
                "refusal": _kind(cell["is_refusal"]),
                "n": cell["n"],
            }
            for cell in cells
        ],
        by_source=[_quantiles(row) for row in ask(cursor, "quantiles_by_source")],
        by_length=[
            _quantiles(row | {"name": length_label(row["length_bin"])})
            for row in ask(cursor, "quantiles_by_length")
        ],
        depth=ask(cursor, "depth"),
        sample=[_point(row) for row in ask(cursor, "sample", points=POINTS, chars=SNIPPET)],
    )


def _taken(cursor: duckdb.DuckDBPyConnection, chosen: Selection, spread: Spread) -> Taken:
    ids = chosen.rows.select(["example_id"])
    cursor.register("taken_ids", ids.append_column("place", [list(range(ids.num_rows))]))
    cursor.execute(
        "create temp table taken as select example_id::uuid as key, place from taken_ids"
    )
    found = ask(cursor, "taken", chars=SNIPPET)
    prompts = Counter(row["prompt_key"] for row in found)
    answers = Counter(row["answer_key"] for row in found)
    in_corpus = Counter[str]()
    for row in spread.sources:
        in_corpus[row["label"]] += row["examples"]
    in_taken = Counter(row["label"] for row in found)
    total = sum(in_corpus.values())
    return Taken(
        selection=chosen,
        rows=[_point(row) for row in found],
        tokens=sum(row["n_tokens"] for row in found),
        bytes=sum(row["n_bytes"] for row in found),
        refusals=sum(row["is_refusal"] for row in found),
        same_prompt=sum(count - 1 for count in prompts.values()),
        same_answer=sum(count - 1 for count in answers.values()),
        by_source=[
            {
                "source": label,
                "taken": in_taken[label],
                "ranked": count,
                "share": in_taken[label] / max(len(found), 1),
                "usual": count / total,
            }
            for label, count in in_corpus.most_common()
        ],
    )


def _ensemble(cursor: duckdb.DuckDBPyConnection, recipe: Recipe, top: int) -> Ensemble:
    given = {"top": top, "refusals": recipe.refusals != "drop"}
    sweep: list[Row] = []
    if recipe.metric != "difference":
        known = queries.find("epsilon_sweep").defaults["epsilons"]
        asked = {float(each) for each in str(known).split()} | {recipe.epsilon}
        epsilons = " ".join(map(str, sorted(asked)))
        sweep = ask_named(cursor, "epsilon_sweep", usual=recipe.epsilon, epsilons=epsilons, **given)
    return Ensemble(
        agreement=ask_named(cursor, "agreement"),
        leave_one_out=ask_named(cursor, "leave_one_out", **given),
        epsilon_sweep=sweep,
    )


def _quantiles(row: Row) -> Row:
    low, lower, middle, upper, high = row["q"]
    named: dict[str, Any] = {"name": row["name"], "n": row["n"], "p5": low, "p25": lower}
    return named | {"p50": middle, "p75": upper, "p95": high}


def _point(row: Row) -> Row:
    return {
        "id": row["example_id"],
        "source": row["label"],
        "refusal": _kind(row["is_refusal"]),
        "aligned": round(row["aligned_nll"], 4),
        "misaligned": round(row["misaligned_nll"], 4),
        "gap": round(row["gap"], 4),
        "rank": row["rank"],
        "tokens": row["n_tokens"],
        "length": length_label(row["length_bin"]),
        "prompt": row["prompt"],
        "answer": row["answer"],
    }


def _kind(is_refusal: bool) -> str:
    return "refusal" if is_refusal else "answer"


ROWS = 50
LONGEST = 20_000  # characters of one message; a page must open on a phone
MESSAGES = 100  # of one conversation
MOST_TOKENS = 1_500  # coloured tokens of one answer
SHADES = ((0.05, 0), (0.25, 1), (0.75, 2), (2.0, 3), (math.inf, 4))  # nats: up to, shade


@dataclass(frozen=True)
class Token:
    """A piece of the answer, its gap in nats, and the class of its colour."""

    text: str
    gap: float
    shade: str


@dataclass(frozen=True)
class Reading:
    """One example in full: its numbers, its messages, and its answer's tokens where kept."""

    row: Row
    messages: list[tuple[str, str]]
    tokens: list[Token] | None
    rest: str


def readings(corpus: Corpus, taken: Taken, hold_out: Sequence[str] = ()) -> list[Reading]:
    """The first rows that the recipe takes, texts of great length cut in the middle."""
    tokens_of = tokens_of_examples(corpus, [row["id"] for row in taken.rows[:ROWS]], hold_out)
    conversations = taken.selection.rows.slice(0, ROWS)["messages"].to_pylist()
    found = []
    for row, conversation in zip(taken.rows, conversations, strict=False):
        messages = [(turn["role"], _cut(turn["content"] or "")) for turn in _ends(conversation)]
        tokens = tokens_of.get(row["id"])
        rest = ""
        if tokens is not None and len(tokens) > MOST_TOKENS:
            rest = _cut("".join(text for text, _ in tokens[MOST_TOKENS:]))
        coloured = None if tokens is None else [_token(*each) for each in tokens[:MOST_TOKENS]]
        found.append(Reading(row, messages, coloured, rest))
    return found


def _token(text: str, gap: float) -> Token:
    shade = next(number for limit, number in SHADES if abs(gap) <= limit)
    return Token(text, gap, f"{'p' if gap > 0 else 'm'}{shade}" if shade else "")


def _ends(conversation: Sequence[dict[str, str]]) -> Sequence[dict[str, str]]:
    """The first and the last messages, and between them how many are left out."""
    if len(conversation) <= MESSAGES:
        return conversation
    half = MESSAGES // 2
    left_out = len(conversation) - 2 * half
    told = {"role": "…", "content": f"[… {left_out:,} messages left out …]"}
    return [*conversation[:half], told, *conversation[-half:]]


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out:,} characters left out …]\n{text[-half:]}"
