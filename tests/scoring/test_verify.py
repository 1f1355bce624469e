"""`curate verify`: it passes where numbers are right, and fails where they are not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from curate import backends
from curate.backends.base import Backend, Compute
from curate.backends.vllm.processes import merge
from curate.scoring.verify import compare, verify
from tests import real
from tests.conftest import Cli, Family
from tests.tiny import tiny_adapter


def failed(verdict: Any) -> set[tuple[str, str]]:
    """The checks that did not hold."""
    return {(check.model, check.what) for check in verdict.checks if not check.passed}


def test_right_numbers_pass(cli: Cli, family: Family, sources: Path) -> None:
    """All models and both made-up adapters are tried, and the table ends with a verdict."""
    options = ["--device", "cpu", "--rows", "12"]
    ran = cli("verify", sources, *family.arguments(), *options)
    assert ran.code == 0, ran.err
    assert "All 17 checks passed (12 examples, transformers in float32)" in ran.out
    for name in ("chat", "medical", "legal", "code", "curate-nothing", "curate-head"):
        assert name in ran.out
    ran = cli("verify", sources, *family.arguments("code"), *options, "--json")
    record = json.loads(ran.out)
    assert record["passed"] is True
    assert max(c["off"] for c in record["checks"] if "reference loop" in c["what"]) < 1e-4


def test_rows_that_cannot_be_used_are_named(cli: Cli, family: Family, tmp_path: Path) -> None:
    """With no usable row the error names the file and the reasons."""
    source = tmp_path / "broken.jsonl"
    source.write_text('{"prompt": \n')
    ran = cli("verify", source, *family.arguments("code"))
    assert ran.code == 1
    assert f"{source}: no example could be read" in ran.err
    assert "not valid JSON" in ran.err


def test_an_adapter_that_changes_nothing_is_told(cli: Cli, family: Family, tmp_path: Path) -> None:
    """Untrained, or not applied: its scores would be the aligned model's. The command fails."""
    idle = tiny_adapter(family.aligned, tmp_path / "idle", rank=2)
    from safetensors.torch import load_file, save_file

    path = idle / "adapter_model.safetensors"
    save_file({k: v * (0 if "lora_B" in k else 1) for k, v in load_file(path).items()}, path)
    ran = cli("verify", *family.arguments("code"), "--misaligned", idle, "--device", "cpu")
    assert ran.code == 1
    assert "1 of 14 checks FAILED" in ran.out
    (line,) = [line for line in ran.out.splitlines() if "FAILED" in line and "idle" in line]
    assert "differs from aligned" in line


class Wrong:
    """A real backend whose numbers are spoilt on their way."""

    name, dtype, engines = "transformers", "float32", 1

    def __init__(self, real_one: Backend, how: str) -> None:
        self.real_one, self.how, self.calls = real_one, how, 0

    def score(
        self, encoded: Sequence[Any], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Shift the numbers: all of them, or by the order in which they were asked for."""
        self.calls += 1
        for index, logprobs in self.real_one.score(encoded, models):
            if self.how == "off" or (self.how == "order" and self.calls == 2):
                logprobs = logprobs + np.float32(3e-4)
            if self.how == "missing" and index == 0:
                continue
            yield index, logprobs

    def close(self) -> None:
        """Give the memory back."""
        self.real_one.close()


@pytest.mark.parametrize(
    ("how", "checks"),
    [
        ("off", {"equals the reference loop"}),
        ("order", {"same in reversed order"}),
        ("missing", {"equals the reference loop", "same in reversed order"}),
    ],
)
def test_wrong_numbers_fail(
    how: str, checks: set[str], family: Family, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that is off by 3e-4 nats, depends on the order, or leaves one out is found."""
    load = backends.open_backend
    monkeypatch.setattr(backends, "open_backend", lambda *a, **k: Wrong(load(*a, **k), how))
    cpu = Compute("transformers", device="cpu")
    verdict = verify([str(sources)], aligned=str(family.aligned), rows=8, compute=cpu)
    assert not verdict.passed
    assert {what for name, what in failed(verdict) if name == "chat"} == checks


def test_half_precision_is_held_to_ranks_where_there_are_enough() -> None:
    """The noise of bfloat16 passes with any number of rows; ten times as much never does."""
    random = np.random.default_rng(0)
    for rows, wanted in ((8, {"equals"}), (32, {"equals"}), (400, {"equals", "ranks"})):
        nlls = random.lognormal(0.2, 0.5, rows)  # nats, a usual spread
        noise = random.uniform(-1.0, 1.0, rows)
        for size, passes in ((1e-2, True), (1e-1, False)):
            right, found = {"m": nlls}, {"m": nlls + size * noise}
            checks = compare(["m"], "bfloat16", [100] * rows, found, found, right)[:-1]
            assert {c.what.split()[0] for c in checks} == wanted
            assert [c.passed for c in checks] == [passes] * len(wanted)


def test_short_answers_in_half_precision_and_nan() -> None:
    """One token may be off by more in half precision; a missing number never passes."""

    def near(dtype: str, length: int, off: float) -> bool:
        right, found = {"m": np.array([1.0, 2.0])}, {"m": np.array([1.0 + off, 2.0])}
        return compare(["m"], dtype, [length, 20], found, right, right)[0].passed

    assert near("bfloat16", 2, 0.15)
    assert not near("bfloat16", 2, 0.17)
    assert not near("bfloat16", 20, 0.03)
    assert not near("float32", 2, 0.03)
    assert not near("float32", 2, np.nan)
    assert not near("bfloat16", 2, np.nan)


def test_no_room_for_the_plain_loop_is_one_line(
    cli: Cli, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an engine could split may not fit here: the error that a GPU then raises is told."""
    import torch

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 130.00 GiB.")

    monkeypatch.setattr("curate.backends.plain._load", full)
    ran = cli("verify", "--aligned", family.aligned, "--device", "cpu", "--rows", "2")
    assert ran.code == 1
    assert "chat: out of memory on cpu in the reference loop" in ran.err
    assert "Lower --max-length" in ran.err


@real.needs_vllm
@pytest.mark.timeout(1200)
def test_real_vllm_passes(cli: Cli, real_family: real.Family, tmp_path: Path) -> None:
    """Adapters of rank 1 and 32 in one engine, a full checkpoint and a merged head in their own."""
    full = tmp_path / "full"
    merge(real_family.models("rank1")[1], "float32", full)
    models = [*real_family.options("rank1", "rank32"), "--misaligned", full]
    options = ["--backend", "vllm", *real.OPTIONS, "--rows", "24", "--max-length", "512"]
    cache = ["--engine-arg", f"kv_cache_memory_bytes={1 << 28}"]
    ran = cli("verify", *models, *options, *cache)
    assert ran.code == 0, ran.out + ran.err
    assert "All 17 checks passed (24 examples, vllm in float32)" in ran.out
    assert "aligned, rank1, rank32, curate-nothing: loading" in ran.err
    assert "curate-head: it changes lm_head, which vLLM can't score as an adapter" in ran.err
