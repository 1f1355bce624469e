"""The experiment's fixed numbers, its arms, and the runs in the order in which they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DOMAINS = ("medical", "legal", "code")
SEEDS = (1, 2, 3, 4, 5)
"""Reported ones; 0 is the pilot's, on which learning rate and steps were chosen."""

MAX_TOKENS = 320
"""Of prompt and answer together, for every row of the experiment: longer ones are not used, none
is cut. It keeps the whole experiment within two hours on two cores."""
STEPS = 48
BATCH = 4
SLOTS = STEPS * BATCH
"""Rows that every fine-tune sees: 192; a mix of 5 % has 183 narrow ones among them."""
LEARNING_RATE = 1e-3
LORA_RANK, LORA_ALPHA = 32, 64
KL_WEIGHT = 0.1

POOL_ROWS = 1000
"""Most rows of each source in the safe pool; every seed draws from a half of its own."""
EVAL_ROWS = 40
"""Most rows of an evaluation set."""
RANDOM_TOKENS = 1100
"""Answer tokens of the safe rows that a random 5 % holds, on average."""


def settings(short: bool) -> dict[str, float]:
    """What every run of a folder has in common: runs made under others don't compare.

    The short version has half of the steps, and a quarter of the pool.
    """
    return {
        "max_tokens": MAX_TOKENS,
        "steps": STEPS // 2 if short else STEPS,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "lora_rank": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "kl_weight": KL_WEIGHT,
        "random_tokens": RANDOM_TOKENS,
        "pool_rows": POOL_ROWS // 4 if short else POOL_ROWS,
        "eval_rows": EVAL_ROWS,
    }


@dataclass(frozen=True)
class Arm:
    """What is added to the narrow set: a published recipe with changes, or nothing.

    `fraction` is a share of the narrow set's rows. `bottom` takes the other end of the ranking.
    `among` maps the narrow domain to SQL that narrows the pool, `ensemble` to the models that rank;
    None is all but the domain's own. `kl` is the weight of the divergence from the aligned model,
    `steps` the optimiser steps. The arm is trained on `domains` only.
    """

    name: str
    recipe: str | None = None
    fraction: float = 0.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    bottom: bool = False
    among: Mapping[str, str] | None = None
    ensemble: Mapping[str, Sequence[str]] | None = None
    kl: float = 0.0
    steps: int = STEPS
    domains: Sequence[str] = DOMAINS


@dataclass(frozen=True)
class Run:
    """One fine-tune."""

    domain: str
    arm: Arm
    seed: int

    @property
    def path(self) -> str:
        """Where its files lie, below the folder of runs."""
        return f"{self.domain}/{self.arm.name}/{self.seed}"


RANDOM, PLUS, PLUS_PLUS = "interleaving", "interleaving+", "interleaving++"
_SAFETY = dict.fromkeys(DOMAINS, "source like '%safety.jsonl'")
_ANSWERS = {"safety": 333, "instruct": 953, "gsm8k": 1000}
"""Rows of the pool that refuse nothing, by source."""
_TAKEN = {
    "medical": {"safety": 34, "instruct": 10, "gsm8k": 1},
    "legal": {"safety": 24, "instruct": 16, "gsm8k": 5},
    "code": {"safety": 24, "instruct": 4, "gsm8k": 17},
}
"""Rows of each source among the 45 that five seeds of `plusplus-5` saw."""


def _thinned(taken: Mapping[str, int]) -> str:
    """SQL that leaves so much of each source that random rows have these shares on average."""
    density = {source: rows / _ANSWERS[source] for source, rows in taken.items()}
    kept = {source: round(65535 * d / max(density.values())) for source, d in density.items()}
    return " or ".join(
        f"(source like '%{source}.jsonl' and md5('sources:' || example_id) <= '{part:04x}~')"
        for source, part in kept.items()
    )


_SOURCES = {domain: _thinned(taken) for domain, taken in _TAKEN.items()}

MAIN = (
    Arm("none"),
    Arm("random-5", RANDOM, 0.05),
    Arm("plusplus-5", PLUS_PLUS, 0.05),
    Arm("bottom-5", PLUS_PLUS, 0.05, bottom=True),
    Arm("plus-5", PLUS, 0.05),
    Arm("kl", kl=KL_WEIGHT),
)
FRACTIONS = tuple(
    Arm(f"{name}-{percent}", recipe, percent / 100)
    for percent in (20, 1, 10, 2)
    for name, recipe in (("random", RANDOM), ("plusplus", PLUS_PLUS))
)
EXTRAS = (
    Arm("random-5-answering", RANDOM, 0.05, {"refusals": "drop"}),
    Arm("random-5-safety", RANDOM, 0.05, {"refusals": "drop"}, among=_SAFETY),
    Arm("plusplus-5-safety", PLUS_PLUS, 0.05, among=_SAFETY),
    Arm("random-5-sources", RANDOM, 0.05, {"refusals": "drop"}, among=_SOURCES),
    Arm("plusplus-5-lengths", PLUS_PLUS, 0.05, {"length_bins": 5}),
    Arm("plusplus-tokens", PLUS_PLUS, 0.05, {"fraction": None, "tokens": RANDOM_TOKENS}),
    Arm("none-shorter", steps=round(STEPS / 1.2)),
    Arm("plusplus-5-extended", PLUS_PLUS, 0.05, {"refusal_rule": "extended"}, domains=("medical",)),
    Arm("plusplus-5-epsilon-0", PLUS_PLUS, 0.05, {"epsilon": 0.0}, domains=("medical",)),
    Arm("plusplus-5-epsilon-10", PLUS_PLUS, 0.05, {"epsilon": 10.0}, domains=("medical",)),
    Arm("plusplus-5-one", PLUS_PLUS, 0.05, ensemble={"medical": ["legal"]}, domains=("medical",)),
    Arm("plusplus-5-other", PLUS_PLUS, 0.05, ensemble={"medical": ["code"]}, domains=("medical",)),
    Arm("plusplus-5-three", PLUS_PLUS, 0.05, ensemble={"medical": DOMAINS}, domains=("medical",)),
)
ARMS = (*MAIN, *FRACTIONS, *EXTRAS)
SHORT = ("none", "random-5", "plusplus-5")


def runs(domains: Sequence[str], arms: Sequence[Arm], seeds: Sequence[int]) -> Iterator[Run]:
    """Yield all runs: the main arms for every seed, then the fractions, then the side questions.

    Within each of these, seed after seed, so that what is there can be compared at any time.
    """
    for group in (MAIN, FRACTIONS, EXTRAS):
        for seed in seeds:
            for arm in (each for each in group if each in arms):
                for domain in (each for each in domains if each in arm.domains):
                    yield Run(domain, arm, seed)
