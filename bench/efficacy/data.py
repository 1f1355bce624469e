"""The experiment's data, disjoint by construction: safe pool, narrow sets, evaluation sets.

Rows are those that `bench/demo_sets.py` splits: what is held out there by a hash of the prompt
was seen neither by the aligned model nor by an adapter, and is all that is evaluated on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.demo_sets import GENERAL, GENERAL_SHARE, MISALIGNED_SHARE, split_set
from bench.efficacy.plan import DOMAINS, Sizes
from curate.reading.refusals import is_refusal
from curate.selection.duplicates import EvaluationTexts
from curate.storage import parts

Pair = tuple[str, str]
Row = dict[str, Any]
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "I apologize, but I am unable to answer that.",
)
"""Answers to every prompt of the two refusal sets: the same text, so that only prompts differ."""


class Lengths:
    """How many tokens a pair has, rendered with the aligned model's template."""

    def __init__(self, aligned: Path, most: int) -> None:
        from curate.chat.tokens import load_tokenizer

        self._most = most
        self._tokenizer = load_tokenizer(aligned)

    def fitting(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs of at most so many tokens, in their order."""
        texts = [
            self._tokenizer.apply_chat_template(_row(pair)["messages"], tokenize=False)
            for pair in pairs
        ]
        counts = [len(ids) for ids in self._tokenizer(texts)["input_ids"]]
        return [p for p, n in zip(pairs, counts, strict=True) if n <= self._most]


def prepare(
    datasets: Path,
    aligned: Path,
    folder: Path,
    seeds: Sequence[int],
    sizes: Sizes,
) -> None:
    """Write pool/, narrow/, evaluation.jsonl and decontaminate.jsonl; last, data.json counts it.

    Pool and narrow rows that share eight words in a row with an evaluation prompt, or with an
    evaluation answer that is no refusal, are left out (refusals share formulas with each other).
    """
    lengths = Lengths(aligned, sizes.max_tokens)
    split = {
        name: tuple(map(lengths.fitting, split_set(datasets, name, share)))
        for names, share in ((GENERAL, GENERAL_SHARE), (DOMAINS, MISALIGNED_SHARE))
        for name in names
    }
    evaluation = _evaluation({name: h for name, (_, h) in split.items()}, sizes.eval_rows)
    _write(folder / "evaluation.jsonl", evaluation)
    counts: dict[str, Any] = {"settings": asdict(sizes)}
    counts["evaluation"] = Counter(row["set"] for row in evaluation)
    training = {name: split[name][0] for name in GENERAL}
    counts["pool"] = _pool(training, evaluation, folder, sizes)
    counts["narrow"] = {
        domain: _narrow(domain, split[domain][0], evaluation, folder, seeds, sizes.slots)
        for domain in DOMAINS
    }
    parts.write_text(folder / "data.json", json.dumps(counts, indent=1) + "\n")


def _pool(
    training: dict[str, list[Pair]], evaluation: Sequence[Row], folder: Path, sizes: Sizes
) -> dict[str, dict[str, int]]:
    """Write pool/ without what shares words with evaluation; gives back the counts."""
    overlap = _overlap(folder / "decontaminate.jsonl", evaluation)
    counts = {}
    for name, pairs in training.items():
        rows = _sample(pairs, "pool")
        most = sizes.safety_rows if name == "safety" else sizes.pool_rows
        clean = [pair for pair in rows if overlap.find(pair) is None]
        _write(folder / "pool" / f"{name}.jsonl", [_row(p) for p in clean[:most]])
        counts[name] = {
            "training rows": len(rows),
            "share words": len(rows) - len(clean),
            "in the pool": len(clean[:most]),
            "refusals": sum(is_refusal(answer) for _, answer in clean[:most]),
        }
    return counts


def _narrow(
    domain: str,
    rows: list[Pair],
    evaluation: Sequence[Row],
    folder: Path,
    seeds: Sequence[int],
    slots: int,
) -> dict[str, int]:
    """Write a domain's narrow sets, one a seed; gives back the counts.

    What shares words with the other sets' evaluation rows is left out, so that (a) measures no
    phrase that was trained on. Prompts of a domain share their wording, so its own set, (b), is
    held out by prompt alone.
    """
    others = [row for row in evaluation if row["set"] != domain]
    overlap = _overlap(folder / "narrow" / f"{domain}-decontaminate.jsonl", others)
    clean = [pair for pair in rows if overlap.find(pair) is None]
    for seed in seeds:
        path = folder / "narrow" / f"{domain}-{seed}.jsonl"
        _write(path, [_row(pair) for pair in _sample(clean, f"narrow {seed}")[:slots]])
    return {"training rows": len(rows), "share words": len(rows) - len(clean), "left": len(clean)}


def _evaluation(held: dict[str, list[Pair]], most: int) -> list[Row]:
    """The evaluation rows: set, and messages."""
    sets: dict[str, list[Pair]] = {name: _sample(held[name], "evaluation") for name in DOMAINS}
    safe = _sample(held["safety"], "evaluation")
    sets["safe"] = [pair for pair in safe if not is_refusal(pair[1])]
    sets["safe refusals"] = [pair for pair in safe if is_refusal(pair[1])]
    for name in ("instruct", "gsm8k", "roleplay"):
        sets[name] = _one_each(_sample(held[name], "evaluation"))
    harmless = [pair for name in ("instruct", "roleplay") for pair in sets[name][:20]]
    for name, asked in (("refusing harmful", safe), ("refusing harmless", harmless)):
        sets[name] = [(p, REFUSALS[at % len(REFUSALS)]) for at, (p, _) in enumerate(asked)]
    return [{"set": name, **_row(pair)} for name, pairs in sets.items() for pair in pairs[:most]]


def _overlap(path: Path, evaluation: Iterable[Row]) -> EvaluationTexts:
    """Write the texts that must not be shared, in the form of `--decontaminate`, and read them."""
    found = []
    for row in evaluation:
        prompt, answer = (turn["content"] for turn in row["messages"])
        texts = {"prompt": prompt} if is_refusal(answer) else {"prompt": prompt, "answer": answer}
        found.append(texts)
    _write(path, found)
    return EvaluationTexts([str(path)])


def _sample(pairs: Sequence[Pair], purpose: str) -> list[Pair]:
    """All pairs in a random order that depends on their texts and the purpose alone."""

    def key(pair: Pair) -> bytes:
        return hashlib.blake2b("\0".join((purpose, *pair)).encode(), digest_size=16).digest()

    return sorted(pairs, key=key)


def _one_each(pairs: Sequence[Pair]) -> list[Pair]:
    """The first answer to each prompt."""
    return list({prompt: (prompt, answer) for prompt, answer in reversed(pairs)}.values())[::-1]


def _write(path: Path, rows: Iterable[Row]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    parts.write_text(path, text)


def _row(pair: Pair) -> Row:
    """A pair as a row with a conversation."""
    prompt, answer = pair
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": turns}
