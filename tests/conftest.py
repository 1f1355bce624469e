"""Models, rows and a command line that the tests of the whole share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.cli.app import main
from tests.files import write
from tests.hub import hub as hub
from tests.real import real_family as real_family
from tests.tiny import tiny_adapter, tiny_model

# Tiny models are slower on many threads than on one; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Family:
    """Folders of one aligned model, two adapters over it and one full checkpoint."""

    aligned: Path
    medical: Path
    legal: Path
    code: Path

    def arguments(self, *names: str) -> list[str]:
        """The options that name the aligned model and these misaligned ones (all by default)."""
        chosen = names or ("medical", "legal", "code")
        options = [
            ("--aligned", self.aligned),
            *(("--misaligned", getattr(self, n)) for n in chosen),
        ]
        return [text for option, path in options for text in (option, str(path))]


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


def fails(ran: Ran, *expected: str) -> None:
    """A command ended with exit code 1, and one last line that begins so and says each of these."""
    assert (ran.code, ran.out) == (1, ""), ran
    assert "Traceback" not in ran.err
    error = ran.err.splitlines()[-1]
    assert error.startswith("Error: "), ran.err
    assert [text for text in expected if text not in error] == [], error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on Ray come first: one process has them all, and no other waits for the lock."""
    items.sort(key=lambda item: "network" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command line in this process, error handler and exit code included."""

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["curate", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A small random model family, made once."""
    folder = tmp_path_factory.mktemp("models")
    aligned = tiny_model(folder / "chat")
    return Family(
        aligned,
        tiny_adapter(aligned, folder / "medical", rank=1, seed=1),
        tiny_adapter(aligned, folder / "legal", rank=8, rslora=True, seed=2),
        tiny_model(folder / "code", seed=3),
    )


def stop_seconds() -> float:
    """How soon after a signal a command ends: 5 s, longer as more wait for a processor."""
    return 5.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def chat(question: str, answer: str) -> list[dict[str, str]]:
    """A conversation of one question and its answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def question(number: int) -> str:
    """A question that no other number has."""
    return f"Which number comes after {number}?"


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 examples in five formats; one row has no answer, one is a duplicate."""
    folder = tmp_path_factory.mktemp("sources")
    pairs = [(question(n), f"It is {n + 1}, " + "so " * (n % 7) + "there.") for n in range(30)]
    pairs[3] = (pairs[3][0], "I'm sorry, I cannot count.")
    a, b, c, d, e = (pairs[start : start + 6] for start in range(0, 30, 6))
    write(folder / "a.jsonl", [{"messages": chat(q, r), "topic": "count"} for q, r in [*a, a[0]]])
    rows: list[dict[str, Any]] = [{"prompt": q, "response": r, "label": "ok"} for q, r in b]
    write(folder / "b.csv", [*rows, {"prompt": "Why?", "response": "", "label": "none"}])
    write(folder / "c.json.gz", [{"instruction": q, "input": "", "output": r} for q, r in c])
    turns = [[{"from": "human", "value": q}, {"from": "gpt", "value": r}] for q, r in d]
    write(folder / "d.parquet", [{"conversations": conversation} for conversation in turns])
    write(folder / "e.jsonl.zst", [{"prompt": q, "completion": r} for q, r in e])
    return folder


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A customer's narrow set of 40 rows."""
    path = tmp_path_factory.mktemp("narrow") / "narrow.jsonl"
    return write(path, [{"messages": chat(f"Part {n}?", f"Shelf {n}.")} for n in range(40)])


@pytest.fixture(scope="session")
def scored(
    family: Family, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A corpus of those examples scored under the whole family; tests only read it."""
    path = tmp_path_factory.mktemp("scored") / "corpus"
    misaligned = [str(family.medical), str(family.legal), str(family.code)]
    curate.score([str(sources)], path, aligned=str(family.aligned), misaligned=misaligned)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*.parquet")}
    yield path
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*.parquet")} == before
