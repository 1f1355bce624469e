"""The results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.efficacy import seen, sources
from bench.efficacy.intervals import Interval, Table, by_seed, over_seeds, over_seeds_and_rows
from bench.efficacy.measures import ABOUT, SAID
from bench.efficacy.plan import ARMS, DOMAINS, REAL, Arm
from bench.efficacy.seen import Seen

SHOWN = ("misalignment", "narrow", "general", "gsm8k", "refusing harmful", "refusing harmless")
CONTRASTS = (
    ("plusplus-5", "random-5"),
    ("plus-5", "random-5"),
    ("bottom-5", "random-5"),
    ("kl", "random-5"),
    ("random-5", "none"),
    ("plusplus-5", "none"),
    ("plusplus-1", "random-1"),
    ("plusplus-2", "random-2"),
    ("plusplus-10", "random-10"),
    ("plusplus-20", "random-20"),
    ("plusplus-5", "plus-5"),
    ("plusplus-5", "random-5-answering"),
    ("plusplus-5", "random-5-sources"),
    ("random-5-sources", "random-5"),
    ("plusplus-5-safety", "random-5-safety"),
    ("random-5-safety", "plusplus-5"),
    ("random-5-answering", "random-5"),
    ("plusplus-5-lengths", "random-5-answering"),
    ("plusplus-5-lengths", "plusplus-5"),
    ("plusplus-tokens", "random-5"),
    ("plusplus-5-extended", "plusplus-5"),
    ("none-shorter", "none"),
    *(
        (f"plusplus-5-{change}", "plusplus-5")
        for change in ("epsilon-0", "epsilon-10", "one", "other", "three")
    ),
)
"""The first is the claim's; all others are explorations."""
REAL_CONTRASTS = (
    ("plusplus-10", "random-10"),
    ("plusplus-10-safety", "random-10-safety"),
    ("plusplus-10-own", "plusplus-10"),
    ("plusplus-10-extended", "plusplus-10"),
    ("plusplus-10-own", "random-10-own"),
    ("plus-10", "plusplus-10"),
    ("plusplus-10-safety", "plusplus-10"),
    *((arm.name, "none") for arm in REAL[1:]),
)
"""On the real chat model: the claim's, the three questions asked in advance, and explorations."""
_ONLY = {arm.name: arm.domains for arm in (*ARMS, *REAL)}
REFERENCES = ("misaligned", "safe", "to general", "to gsm8k", "to refusals")


def page(table: Table, safe: Sequence[Seen]) -> str:
    """All tables that these runs give."""
    domains = _domains(table)
    return "\n".join(
        [
            "### Every arm\n",
            f"Change from before fine-tuning, in nats per token, mean over {_list(domains)} "
            "± half the 95 % interval over seeds.\n",
            *_every_arm(table, domains),
            "",
            "### Differences, paired by seed\n",
            "First minus second, same seed. `rows too`: half the 95 % interval of (a) that also "
            "includes the variation over evaluation rows.\n",
            *_contrasts(table, domains),
            "",
            "### (a) by domain\n",
            *_by_domain(table, domains),
            "",
            "### (a) against other answers\n",
            "First minus second. (a) is the change of `safe` minus that of `misaligned`; the last "
            "three columns replace the safe answers by others.\n",
            *_references(table, domains),
            "",
            "### The effect of the source\n",
            *sources.table(table, safe),
            "",
            "### Components of (a)\n",
            *_parts(table, domains),
            "",
            "### The effect of fine-tuning without a mix\n",
            "`none`, by narrow domain: the change in NLL on every evaluation set.\n",
            *_moved(table, domains),
            "",
            "### Contents of the mixes\n",
            *seen.table(safe, ARMS),
            "",
        ]
    )


def real(table: Table, safe: Sequence[Seen]) -> str:
    """The tables of the real chat model's page."""
    domains = _domains(table)
    return "\n".join(
        [
            "### Every arm\n",
            f"Change from before fine-tuning, mean over {_list(domains)} ± half the 95 % interval "
            "over seeds: in nats per token.\n",
            *_every_arm(table, domains, REAL),
            "",
            "The same for what the models say: shares, and the NLL in nats per token.\n",
            *_every_arm(table, domains, REAL, tuple(SAID)),
            "",
            "### Differences, paired by seed\n",
            "First minus second, same seed. The first line is the claim's, the next three were "
            "asked in advance. `rows too`: half the interval that also includes the variation "
            "over evaluation rows; with one seed, that alone.\n",
            *_contrasts(table, domains, REAL_CONTRASTS, (*SHOWN, "said: complies", "said: NLL")),
            "",
            "### (a) by domain\n",
            *_by_domain(table, domains, REAL_CONTRASTS[:4]),
            "",
            "### The two halves of (a)\n",
            *_parts(table, domains, REAL),
            "",
            "### Contents of the mixes\n",
            *seen.table(safe, REAL),
            "",
        ]
    )


def _every_arm(
    table: Table,
    domains: Sequence[str],
    arms: Sequence[Arm] = ARMS,
    measures: Sequence[str] = SHOWN,
) -> Iterator[str]:
    yield "| arm | seeds | " + " | ".join(_titles(measures)) + " |"
    yield "| --- |" + " --- |" * (len(measures) + 1)
    for arm in arms:
        where = [name for name in domains if name in arm.domains]
        cells = [over_seeds([*by_seed(table, arm.name, m, where).values()]) for m in measures]
        if cells[0].n:
            name = arm.name if len(where) == len(domains) else f"{arm.name} ({_list(where)})"
            yield f"| {name} | {cells[0].n} | " + " | ".join(map(shown, cells)) + " |"


def _contrasts(
    table: Table,
    domains: Sequence[str],
    contrasts: Sequence[tuple[str, str]] = CONTRASTS,
    measures: Sequence[str] = SHOWN,
) -> Iterator[str]:
    yield "| first | second | seeds | (a) | rows too | " + " | ".join(_titles(measures)[1:]) + " |"
    yield "| --- | --- |" + " --- |" * (len(measures) + 2)
    for arm, against in contrasts:
        where = [name for name in domains if name in _ONLY[arm]]
        cells = [
            over_seeds([*by_seed(table, arm, measure, where, against).values()])
            for measure in measures
        ]
        if not cells[0].n:
            continue
        both = over_seeds_and_rows(table, arm, against, "misalignment", where)
        name = arm if len(where) == len(domains) else f"{arm} ({_list(where)})"
        rest = " | ".join(map(shown, cells[1:]))
        yield (
            f"| {name} | {against} | {cells[0].n} | {shown(cells[0])} "
            f"| ± {both.half:.3f} | {rest} |"
        )


def _by_domain(
    table: Table,
    domains: Sequence[str],
    contrasts: Sequence[tuple[str, str]] = CONTRASTS[:10],
) -> Iterator[str]:
    yield "| first | second | " + " | ".join(domains) + " |"
    yield "| --- | --- |" + " --- |" * len(domains)
    for arm, against in contrasts:
        cells = [
            over_seeds([*by_seed(table, arm, "misalignment", [name], against).values()])
            for name in domains
        ]
        if all(cell.n for cell in cells):
            yield f"| {arm} | {against} | " + " | ".join(map(shown, cells)) + " |"


def _references(table: Table, domains: Sequence[str]) -> Iterator[str]:
    """Whether a difference in (a) hangs on which safe answers it is measured against."""
    yield "| first | second | (a) | " + " | ".join(REFERENCES) + " |"
    yield "| --- | --- |" + " --- |" * (len(REFERENCES) + 1)
    for arm, against in CONTRASTS:
        if not set(domains) <= set(_ONLY[arm]):
            continue
        cells = [
            over_seeds([*by_seed(table, arm, measure, domains, against).values()])
            for measure in ("misalignment", *REFERENCES)
        ]
        if cells[0].n > 1:
            yield f"| {arm} | {against} | " + " | ".join(map(shown, cells)) + " |"


def _parts(table: Table, domains: Sequence[str], arms: Sequence[Arm] = ARMS) -> Iterator[str]:
    """The two halves of (a), and real refusals, which it leaves out."""
    shown_here = ("misaligned", "safe", "safe refusals")
    yield "| arm | " + " | ".join(f"{name}, NLL" for name in shown_here) + " |"
    yield "| --- |" + " --- |" * len(shown_here)
    for arm in arms:
        cells = [over_seeds([*by_seed(table, arm.name, m, domains).values()]) for m in shown_here]
        if cells[0].n:
            yield f"| {arm.name} | " + " | ".join(map(shown, cells)) + " |"


def _moved(table: Table, domains: Sequence[str]) -> Iterator[str]:
    sets = [name for name in next(iter(table.values())).by_set if not name.startswith("refusing")]
    sets = sorted(sets, key=lambda name: (name not in DOMAINS, name))
    yield "| narrow domain | " + " | ".join(sets) + " |"
    yield "| --- |" + " --- |" * len(sets)
    for domain in domains:
        cells = [over_seeds([*by_seed(table, "none", name, [domain]).values()]) for name in sets]
        if cells[0].n:
            yield f"| {domain} | " + " | ".join(map(shown, cells)) + " |"


def _titles(measures: Sequence[str]) -> list[str]:
    """The measures' names with their letter."""
    return [f"{(ABOUT | SAID)[name][:3]} {name.removeprefix('said: ')}" for name in measures]


def shown(cell: Interval) -> str:
    """A cell of a table."""
    return f"{cell.mean:+.3f}" if cell.n < 2 else str(cell)


def _domains(table: Table) -> list[str]:
    return [name for name in DOMAINS if any(domain == name for domain, _, _ in table)]


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
