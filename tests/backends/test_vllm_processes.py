"""Child processes: asked over a pipe, ended with all they started, and explained if they die."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from curate.backends import open_backend
from curate.backends.base import Compute
from curate.backends.vllm import processes
from curate.backends.vllm.processes import MEMORY_HINT, Child, answering, merge
from curate.chat.encode import Encoded
from curate.models.resolve import resolve
from tests import real
from tests.conftest import Family


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Child]]:
    """Children to be ended, whatever happens; a stubborn one is not waited for long."""
    monkeypatch.setattr(processes, "_END_SECONDS", 1.0)
    children: list[Child] = []
    yield children
    for child in children:
        child.close()
        child.log.unlink(missing_ok=True)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: whoever imports modules from it ends."""
    for name in ("numpy", "torch", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run by accident')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(begun: list[Child], how: str) -> Child:
    """A child of tests/children.py."""
    begun.append(Child("tests.children", how, {"GIVEN": "got "}))
    return begun[-1]


@pytest.mark.parametrize("how", ["kind", "stubborn"])
def test_a_child_answers_and_ends_with_what_it_started(begun: list[Child], how: str) -> None:
    """Also one that doesn't end when it is asked to; its log goes with it."""
    child, other = start(begun, how), start(begun, how)
    below = [child.receive(), other.receive()]
    child.send("this")
    assert answering([child, other]) == [child]
    assert child.receive() == "got this"
    for each in (child, other):
        each.close()
    began = time.monotonic()
    while any(psutil.pid_exists(pid) for pid in below):  # until init has reaped them
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    assert not child.log.exists()


def test_no_child_imports_from_the_current_folder(begun: list[Child], hostile: Path) -> None:
    """Data from anywhere may lie there under the names of modules: not even a child's child."""
    assert start(begun, "who").receive() == [np.__file__, np.__file__]


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("die", "its process died (exit code 7)"),
        ("killed", f"its process was ended by SIGKILL, perhaps {MEMORY_HINT}"),
        ("say (EngineCore pid=7) ERROR 11-21 [core.py:1] ValueError: head size 8", "ValueError: h"),
        ("say torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", MEMORY_HINT),
        ("say RuntimeError: vLLM's engine was ended by SIGKILL", f"SIGKILL, perhaps {MEMORY_HINT}"),
        ("say RuntimeError: Engine core failed. See root cause above.", "its process died"),
    ],
)
def test_a_dead_child_is_explained_by_its_log(begun: list[Child], how: str, cause: str) -> None:
    """One line with the cause and the log's place, and no word of scores; the log stays."""
    child = start(begun, how)
    assert child.receive() is None
    why = child.why(None)
    assert "\n" not in why
    assert cause in why
    assert why.endswith(f"; its log is {child.log}")
    child.close()
    assert child.log.exists()


def test_what_a_child_says_of_itself_comes_first(begun: list[Child]) -> None:
    """Unless it only points to its log."""
    child = start(begun, "say KeyError: 'elsewhere'")
    child.receive()
    assert child.why("TypeError: no such thing").startswith("TypeError: no")
    pointing = "RuntimeError: failed. See root cause above."
    assert child.why(pointing).startswith("KeyError: 'elsewhere'")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_merged_checkpoint_is_the_adapter(family: Family, hostile: Path) -> None:
    """A process of its own writes it, and it scores as the adapter does.

    It doesn't mind how the model generates: published settings contradict themselves, and
    transformers before 5.20 won't save those.
    """
    base, merged = hostile / "base", hostile / "merged"
    shutil.copytree(family.aligned, base)
    odd = {"do_sample": False, "temperature": 0.9, "top_p": 0.6}
    (base / "generation_config.json").write_text(json.dumps(odd))
    adapter = resolve(str(base), [str(family.legal)])[1]
    merge(adapter, "float32", merged)
    assert "temperature" not in (merged / "generation_config.json").read_text()
    (whole,) = resolve(str(base), [f"merged={merged}"])[1:]
    items = [Encoded(list(range(1, n)), n // 2, n - 1, False) for n in (8, 40, 100)]
    found, wanted = (
        real.nlls(open_backend([model], Compute("transformers", device="cpu")), items)
        for model in (whole, adapter)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-6)
