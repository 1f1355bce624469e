"""A disk that is full or read-only: one line, what was scored stays, and the next run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Family
from tests.files import write
from tests.small_disk import ROOM

SCRIPT = Path(__file__).parents[1] / "small_disk.py"
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
POINTS = int(os.environ.get("CURATE_KILLS", "5"))
"""At how many random points a disk is full; `make soak` tries a hundred."""


def points(count: int, until: float = 1.0) -> list[float]:
    """So many random shares of the room that a whole run takes, one in each stretch of it."""
    chance = random.Random(count)
    return [(part + chance.random()) / count * until for part in range(count)]


def _may_mount() -> bool:
    command = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True).returncode == 0
    return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _may_mount(), reason="no disk can be mounted here (unshare)"),
    pytest.mark.timeout(600 + 30 * POINTS),
]


def on_disks(place: Path, *jobs: list[list[Any]]) -> list[list[Any]]:
    """Let small_disk.py do these jobs, each on a disk of its own."""
    place.mkdir(exist_ok=True)
    ran = subprocess.run(
        [*UNSHARE, sys.executable, str(SCRIPT)],
        input=json.dumps([str(place), jobs]),
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[1],
    )
    assert ran.returncode == 0, ran.stderr
    answers: list[list[Any]] = json.loads(ran.stdout)
    return answers


def check_full(ran: dict[str, Any], start: str) -> None:
    """One line that begins so, and says that the disk is full."""
    assert ran["code"] == 1, ran
    assert ran["err"].startswith(start)
    assert ran["err"].count("\n") == 1
    assert "No space left on device" in ran["err"]


@pytest.fixture
def command(family: Family, tmp_path: Path) -> list[str]:
    """Score twenty rows under two models, on the small disk."""
    rows = [{"prompt": f"{n}?", "response": f"It is {n}, " + "so " * n} for n in range(20)]
    source = write(tmp_path / "rows.jsonl", [*rows, {"prompt": "?", "response": ""}])
    corpus = str(tmp_path / "disk" / "corpus")
    return ["score", str(source), "-c", corpus, *family.arguments("medical"), "--quiet"]


def near(scores: list[Any]) -> list[Any]:
    """The same examples and models, with sums within 1e-5 nats for each of some fifty tokens."""
    return [[*score[:2], pytest.approx(score[2], abs=5e-4)] for score in scores]


def test_a_full_disk_loses_nothing(command: list[str], tmp_path: Path) -> None:
    """Full at points from the first file to the last: no score is wrong, and none made twice."""
    place = tmp_path / "disk"
    ((whole, wanted),) = on_disks(place, [["run", command], ["scores"]])
    assert (whole["code"], len(wanted["scores"])) == (0, 40), whole
    # Scores are stored in the first third; the rest is taken by corpus.duckdb.
    shares = [*points(POINTS, until=0.35), *points(max(1, POINTS // 6))]
    sizes = [4096, *(int(wanted["used"] * share) for share in shares)]
    then = [["size", ROOM], ["run", [*command, "--json"]], ["scores"]]
    jobs = [[["size", size], ["run", command], ["scores"], *then] for size in sizes]
    found = on_disks(place, *jobs)
    assert any(0 < len(full["scores"]) < 40 for _, full, *_ in found), "full while scoring"
    for broken, full, again, after in found:
        check_full(broken, "Error: ")
        assert "run the same command again" in broken["err"]
        assert str(place) in broken["err"]
        assert full["left"] == []
        before = {tuple(score[:2]) for score in full["scores"]}
        assert full["scores"] == near([s for s in wanted["scores"] if tuple(s[:2]) in before])
        assert again["code"] == 0, again
        scored = sum(model["scored"] for model in json.loads(again["out"])["models"])
        assert scored == 40 - len(full["scores"])
        assert (after["scores"], after["left"]) == (near(wanted["scores"]), [])


def test_a_read_only_corpus_answers_and_takes_nothing(command: list[str], tmp_path: Path) -> None:
    """Reading goes on; a run, an export and a new corpus there are one line each."""
    place = tmp_path / "disk"
    corpus = ["-c", str(place / "corpus")]
    new = [str(place / "new") if text == corpus[1] else text for text in command]
    outside = str(tmp_path / "out.jsonl")
    steps = [
        command,
        ["status", "--verify", *corpus],
        ["sql", "top_gaps", *corpus],
        ["export", *corpus, "--top", "3", "-o", outside],
        command,
        new,
        ["export", *corpus, "--top", "3", "-o", str(place / "out.jsonl")],
    ]
    runs = [["run", step] for step in steps]
    (found,) = on_disks(place, [runs[0], ["read-only"], *runs[1:]])
    assert [ran["code"] for ran in found] == [0, 0, 0, 0, 1, 1, 1], found
    for ran in found[4:]:
        assert ran["err"].startswith("Error: ")
        assert ran["err"].count("\n") == 1
        assert "can't be written (Read-only file system)" in ran["err"]
    assert len(Path(outside).read_text().splitlines()) == 3
