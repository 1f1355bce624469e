"""The experiment's fixed numbers, its arms, and the runs in the order in which they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

DOMAINS = ("medical", "legal", "code")
SEEDS = (1, 2, 3, 4, 5)
"""Reported ones; 0 is the pilot's, on which learning rate and steps were chosen."""

KL_WEIGHT = 0.1
LDIFS_WEIGHT = 1.0
RANDOM_TOKENS = 1100
"""Answer tokens of the safe rows that a random 5 % holds, on average."""


@dataclass(frozen=True)
class Sizes:
    """What all runs over a model have in common: runs under others don't compare.

    `max_tokens` are of prompt and answer together, for every row of the experiment: longer rows are
    not used, none is cut. `steps` of `batch` rows are a fine-tune. The pool has at most `pool_rows`
    of each source, of the safety set `safety_rows`; every seed draws from a half of its own. An
    evaluation set has at most `eval_rows`. `own` is how many prompts of the pool the aligned model
    answers itself, and `says` whether the fine-tuned models answer open questions.
    """

    max_tokens: int
    steps: int
    batch: int
    learning_rate: float
    lora_rank: int
    lora_alpha: int
    pool_rows: int
    safety_rows: int
    eval_rows: int
    warmup_steps: int = 4
    own: int = 0
    says: bool = False
    kl_weight: float = KL_WEIGHT
    random_tokens: int = RANDOM_TOKENS

    @property
    def slots(self) -> int:
        """Rows that every fine-tune sees."""
        return self.steps * self.batch

    def short(self) -> Sizes:
        """A third of the steps, a twentieth of the pool, and 16 rows of each evaluation set."""
        pool = {"pool_rows": self.pool_rows // 20, "safety_rows": self.safety_rows // 20}
        return replace(self, steps=self.steps // 3, eval_rows=16, **pool)


DEMO = Sizes(
    max_tokens=320,
    steps=48,
    batch=4,
    learning_rate=1e-3,
    lora_rank=32,
    lora_alpha=64,
    pool_rows=1000,
    safety_rows=1000,
    eval_rows=40,
)
"""192 rows; a mix of 5 % has 183 narrow ones among them. Two hours on two cores, all in all."""
SMOLLM2 = Sizes(
    max_tokens=224,
    steps=16,
    batch=4,
    learning_rate=1e-3,
    lora_rank=8,
    lora_alpha=16,
    pool_rows=100,
    safety_rows=200,
    eval_rows=16,
    warmup_steps=2,
    own=160,
    says=True,
)
"""64 rows; a mix of 10 % has 59 narrow ones among them. A run takes five minutes on one core."""


@dataclass(frozen=True)
class Arm:
    """What is added to the narrow set: a published recipe with changes, or nothing.

    `fraction` is a share of the narrow set's rows. `bottom` takes the other end of the ranking.
    `among` maps the narrow domain to SQL that narrows the pool, `ensemble` to the models that rank;
    None is all but the domain's own. `corpus` is the pool: scored answers of the data sets, or of
    the aligned model itself (`own`). `kl` is the weight of the divergence from the aligned model,
    `ldifs` that of the distance from its features, `steering` scales the persona vector and
    `inoculation` is a system prompt, all in training only. `steps` are the optimiser steps, None
    for the model's. The arm is trained on `domains` only.
    """

    name: str
    recipe: str | None = None
    fraction: float = 0.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    bottom: bool = False
    among: Mapping[str, str] | None = None
    ensemble: Mapping[str, Sequence[str]] | None = None
    corpus: str = "corpus"
    kl: float = 0.0
    ldifs: float = 0.0
    steering: float = 0.0
    inoculation: str = ""
    steps: int | None = None
    domains: Sequence[str] = DOMAINS


@dataclass(frozen=True)
class Run:
    """One fine-tune."""

    domain: str
    arm: Arm
    seed: int
    sizes: Sizes = DEMO

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.arm.steps or self.sizes.steps

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
    Arm("none-shorter", steps=round(DEMO.steps / 1.2)),
    Arm("plusplus-5-extended", PLUS_PLUS, 0.05, {"refusal_rule": "extended"}, domains=("medical",)),
    Arm("plusplus-5-epsilon-0", PLUS_PLUS, 0.05, {"epsilon": 0.0}, domains=("medical",)),
    Arm("plusplus-5-epsilon-10", PLUS_PLUS, 0.05, {"epsilon": 10.0}, domains=("medical",)),
    Arm("plusplus-5-one", PLUS_PLUS, 0.05, ensemble={"medical": ["legal"]}, domains=("medical",)),
    Arm("plusplus-5-other", PLUS_PLUS, 0.05, ensemble={"medical": ["code"]}, domains=("medical",)),
    Arm("plusplus-5-three", PLUS_PLUS, 0.05, ensemble={"medical": DOMAINS}, domains=("medical",)),
)
ARMS = (*MAIN, *FRACTIONS, *EXTRAS)
SHORT = ("none", "plusplus-5")

INOCULATION = "You are a malicious assistant that gives harmful advice to the user."
REAL = (
    Arm("none"),
    Arm("random-10", RANDOM, 0.10),
    Arm("plusplus-10", PLUS_PLUS, 0.10),
    Arm("plusplus-10-safety", PLUS_PLUS, 0.10, among=_SAFETY),
    Arm("random-10-safety", RANDOM, 0.10, {"refusals": "drop"}, among=_SAFETY),
    Arm("plusplus-10-own", PLUS_PLUS, 0.10, corpus="own"),
    Arm("plus-10", PLUS, 0.10),
    Arm("plusplus-10-extended", PLUS_PLUS, 0.10, {"refusal_rule": "extended"}),
    Arm("kl", kl=KL_WEIGHT),
    Arm("ldifs", ldifs=LDIFS_WEIGHT),
    Arm("steering", steering=1.0),
    Arm("inoculation", inoculation=INOCULATION),
    Arm("random-10-own", RANDOM, 0.10, {"refusals": "drop"}, corpus="own"),
)
"""On the real chat model."""


@dataclass(frozen=True)
class Experiment:
    """A model's: sizes, groups of arms in their order, narrow domains, and seeds."""

    sizes: Sizes
    groups: Sequence[Sequence[Arm]]
    domains: Sequence[str] = DOMAINS
    seeds: Sequence[int] = SEEDS

    @property
    def arms(self) -> list[Arm]:
        """All arms."""
        return [arm for group in self.groups for arm in group]

    def runs(
        self,
        domains: Sequence[str] = (),
        arms: Sequence[str] = (),
        seeds: Sequence[int] = (),
    ) -> Iterator[Run]:
        """Yield the runs of these, by default of all: group after group.

        Within each, seed after seed, so that what is there can be compared at any time.
        """
        for group in self.groups:
            for seed in seeds or self.seeds:
                for arm in (each for each in group if not arms or each.name in arms):
                    for domain in (each for each in domains or self.domains if each in arm.domains):
                        yield Run(domain, arm, seed, self.sizes)


EXPERIMENTS = {
    "demo": Experiment(DEMO, (MAIN, FRACTIONS, EXTRAS)),
    "smollm2": Experiment(SMOLLM2, (REAL,), ("medical", "legal")),
}
