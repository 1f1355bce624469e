"""Processes killed at any moment: nothing stored is lost or wrong, and no file is left half done.

`CURATE_KILLS` says how many kills are tried; `make soak` tries a hundred.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

import curate
from tests.conftest import stop_seconds
from tests.corpora import large_corpus

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "data" / "models"
KILLS = int(os.environ.get("CURATE_KILLS", "3"))
NEAR = 1e-5  # nats per token: what a resumed run's NLLs may be off
NAMES = ("aligned", "medical", "code")
TEMPORARY = ".tmp-*"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 240 * KILLS)]


def score_command(corpus: Path, **changed: str) -> list[str]:
    """`curate score` of sixty demo examples under three of the demo's models.

    `changed` puts another of them under one's name.
    """
    places = {name: MODELS / changed.get(name, name) for name in NAMES[1:]}
    misaligned = [text for n, at in places.items() for text in ("--misaligned", f"{n}={at}")]
    aligned = ["--aligned", f"aligned={MODELS / 'aligned'}"]
    source = str(ROOT / "data" / "examples")
    return ["score", source, "-c", str(corpus), *aligned, *misaligned, "--sample", "60", "--json"]


def start(command: Sequence[str], apart: bool = False) -> subprocess.Popen[str]:
    """Run curate in a process of its own; `apart` drops its stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", "curate", *command],
        stdout=subprocess.DEVNULL if apart else subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # A CI that runs in the background has Ctrl-C switched off; here it is on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(command: Sequence[str]) -> tuple[str, float]:
    """Run curate to its end; gives what it said and the seconds it took."""
    began = time.monotonic()
    with start(command) as ran:
        said = ran.communicate()[0]
    assert ran.returncode == 0, said
    return said, time.monotonic() - began


Nlls = dict[tuple[str, str], float]


def nlls_of(corpus: Path) -> Nlls:
    """The stored NLLs by example and model; each pair stands there once."""
    rows = curate.open(corpus).sql("select example_id::varchar, model, nll from scores").fetchall()
    stored = {(example, model): nll for example, model, nll in rows}
    assert len(stored) == len(rows)
    return stored


def near(found: Nlls, wanted: Nlls) -> bool:
    """Whether all that is found is wanted, and the same number."""
    return all(pair in wanted and abs(nll - wanted[pair]) < NEAR for pair, nll in found.items())


def check_equal(corpus: Path, wanted: Nlls) -> None:
    """All that is wanted is there, nothing else, and nothing unfinished."""
    found = nlls_of(corpus)
    assert len(found) == len(wanted) and near(found, wanted)
    assert not list(corpus.rglob(TEMPORARY))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A corpus made without a disturbance, and the seconds that it took."""
    corpus = tmp_path_factory.mktemp("whole") / "corpus"
    return corpus, finish(score_command(corpus))[1]


def wait_until(ran: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait while a process runs, until something has happened."""
    while ran.poll() is None and not happened():
        time.sleep(0.0005)


def wait_for(ran: subprocess.Popen[str], seconds: float) -> None:
    """Wait for a moment of the process's life."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        ran.wait(timeout=seconds)


def wait_for_files(ran: subprocess.Popen[str], folder: Path, name: str, passed: float = 0) -> None:
    """Wait until a temporary file of this name is being written; the first few are let go by."""
    seen: set[Path] = set()

    def written() -> bool:
        seen.update(folder.rglob(TEMPORARY + name))
        return len(seen) > passed

    wait_until(ran, written)


WRITES = [None, "part-*", "curate.json"]
"""What a run is writing when it is killed; None: it is killed at a random moment."""


def test_killed_runs_complete_to_an_undisturbed_one(
    whole: tuple[Path, float], tmp_path: Path
) -> None:
    """Whatever moment it is, stored scores are right, and the next run adds only what lacks."""
    reference, seconds = whole
    wanted = nlls_of(reference)
    chance = random.Random(KILLS)
    corpus, killed, completed = tmp_path / "0", 0, 0
    while killed < KILLS:
        name = WRITES[killed % len(WRITES)]
        with start(score_command(corpus)) as ran:
            if name:
                wait_for_files(ran, corpus, name, passed=chance.random() * 5)
            else:
                wait_for(ran, chance.random() * seconds)
            ran.kill()
            said = ran.communicate()[0]
        if ran.returncode == 0 or chance.random() < 0.3:
            _complete(corpus, wanted)
            completed += 1
            corpus = tmp_path / str(completed)
        if ran.returncode == 0:
            continue
        assert ran.returncode == -signal.SIGKILL, said
        killed += 1
        if (corpus / "curate.json").exists():
            assert near(nlls_of(corpus), wanted)
    _complete(corpus, wanted)
    print(f"\nkilled {killed}, completed {completed + 1} corpora, nothing lost")


def _complete(corpus: Path, wanted: Nlls) -> None:
    """The next run computes exactly what is missing."""
    before = nlls_of(corpus) if (corpus / "curate.json").exists() else {}
    said, _ = finish([*score_command(corpus), "--quiet"])
    scored = sum(model["scored"] for model in json.loads(said)["models"])
    assert scored == len(wanted) - len(before)
    check_equal(corpus, wanted)


def _fingerprint(corpus: Path) -> str:
    """That of the model called medical, by the manifest."""
    return curate.open(corpus).manifest.models["medical"].fingerprint


def test_a_killed_replacement_mixes_no_scores(whole: tuple[Path, float], tmp_path: Path) -> None:
    """While `--replace` puts a changed model in another's place, its name has scores of one."""
    old, seconds = whole
    new = tmp_path / "new"
    finish(score_command(new, medical="legal"))
    allowed = {_fingerprint(corpus): nlls_of(corpus) for corpus in (old, new)}
    assert len(allowed) == 2
    wanted, chance, kills = nlls_of(new), random.Random(1), 0
    for number in range(max(2, KILLS // 5)):
        corpus = tmp_path / str(number)
        command = [*score_command(corpus, medical="legal"), "--replace"]
        (part,) = (Path(shutil.copytree(old, corpus)) / "scores" / "medical").glob("part-*")
        with start(command) as ran:
            if number % 2:
                wait_until(ran, lambda part=part: not part.exists())
            else:
                wait_for(ran, chance.random() * seconds)
            ran.kill()
            ran.communicate()
        kills += ran.returncode == -signal.SIGKILL
        found, which = nlls_of(corpus), _fingerprint(corpus)
        assert near(found, allowed[which])
        said, _ = finish([*command, "--quiet"])
        kept = [pair for pair in found if which == _fingerprint(new) or pair[1] != "medical"]
        assert sum(m["scored"] for m in json.loads(said)["models"]) == len(wanted) - len(kept)
        check_equal(corpus, wanted)
        assert _fingerprint(corpus) == _fingerprint(new)
    print(f"\nkilled {kills} replacements, nothing mixed")


def _check_whole(path: Path) -> None:
    """Rows, an object, a page, a picture; or a folder of such, as its manifest says."""
    if path.is_dir():
        for each in path.glob("[!.]*"):
            _check_whole(each)
        if (path / "manifest.json").exists():
            record = json.loads((path / "manifest.json").read_text())
            found = {each.name: sha256(each.read_bytes()).hexdigest() for each in path.iterdir()}
            assert found.items() >= record["output"]["files"].items()
            assert len(found) == len(record["output"]["files"]) + 1
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        rows = path.read_text().splitlines()
        assert len(rows) in (5, 10, 55, 3000)
        assert all(json.loads(row) for row in rows)
    elif path.suffix in ENDS:
        assert path.read_bytes().rstrip().endswith(ENDS[path.suffix])


ENDS = {".html": b"</html>", ".svg": b"</svg>", ".png": b"IEND\xaeB`\x82"}
OUTPUTS = {
    "export": ("mix.jsonl", ["export", "--top", "10"]),
    "mix": ("set", ["export", "--fraction", "0.1", "--into", "narrow.jsonl", "--trainer", "trl"]),
    "report": ("page.html", ["report", "--plots", "outputs/plots"]),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_killed_output_is_whole_or_not_there(
    kind: str, whole: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`curate export` and `report`, also over an earlier one; the next run takes what is left."""
    monkeypatch.chdir(tmp_path)
    Path("narrow.jsonl").write_text('{"prompt": "1 + 1?", "completion": "2"}\n' * 50)
    shutil.copytree(whole[0], "corpus")
    name, command = OUTPUTS[kind]
    place = Path("outputs")
    command = [*command, "-c", "corpus", "--output", str(place / name), "--force"]
    finish(["5" if each == "10" else each for each in command])  # of --top
    earlier = place.rename("earlier")
    _, seconds = finish(command)
    made = sorted(str(path.relative_to(place)) for path in place.rglob("*"))
    chance = random.Random(kind)
    for number in range(max(4, KILLS // 5)):
        shutil.rmtree(place)
        over = number % 4 >= 2
        shutil.copytree(earlier, place) if over else place.mkdir()
        with start(command) as ran:
            if number % 2:
                wait_for_files(ran, place, "")
            else:
                wait_for(ran, chance.random() * seconds)
            ran.kill()
            ran.communicate()
        for path in place.glob("[!.]*"):
            _check_whole(path)
        assert not over or (place / name).exists() or list(place.glob(".old-*"))
    finish(command)
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == made
    _check_whole(place / name)


# Stops


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60,000 examples: their export and their report take some seconds."""
    return large_corpus(tmp_path_factory.mktemp("large") / "corpus")


def _catches_sigterm(pid: int) -> bool:
    """Whether a process does: before that it has not begun."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "command",
    [
        ["export", "--top", "3000", "--max-similar", "1", "--output", "mix.jsonl"],
        ["report", "--output", "page.html", "--plots", "plots"],
    ],
    ids=["export", "report"],
)
def test_a_stop_takes_effect_within_seconds(
    command: list[str], large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment: one line, the signal's code, what is there is whole, no temporary file."""
    monkeypatch.chdir(tmp_path)
    chance, stopped = random.Random(command[0]), 0
    for length in [3.0, 2.0, 1.0, 0.5] * max(1, KILLS // 10):
        with start([*command, "-c", str(large), "--force"], apart=True) as ran:
            wait_until(ran, lambda pid=ran.pid: _catches_sigterm(pid))
            wait_for(ran, chance.random() * length)
            began = time.monotonic()
            ran.terminate()
            _, said = ran.communicate(timeout=60)
        if ran.returncode == 128 + signal.SIGTERM:
            stopped += 1
            assert time.monotonic() - began < stop_seconds()
            assert said.splitlines()[-1].startswith("Stopped")
            assert "Traceback" not in said
        else:  # it had ended, or Python was about to
            assert ran.returncode in (0, -signal.SIGTERM), said
        assert not list(tmp_path.rglob(TEMPORARY))
        for path in tmp_path.glob("[!.]*"):
            _check_whole(path)
    assert stopped, "it ends before it can be stopped"
