"""Workers of a real Ray cluster: lost, stopped and poisoned ones, and the GPUs that each sees."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from curate.backends import choose
from curate.backends.base import Compute, Engine, Window
from curate.backends.ray import cluster
from curate.backends.ray.windows import Scores, pack, unpack
from curate.chat.encode import Encoded
from curate.errors import CurateError
from tests.clusters import add, driver, machines, network, workers

__all__ = ["driver", "machines", "network"]
POISON = 666


class Pretended:
    """A backend that takes 20 ms for an example, and says which process scored it."""

    name, engines = "pretended", 1

    def __init__(self) -> None:
        self.dtype = os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Any]]:
        """The first id and the model of each example, and the process, in reversed order."""
        for index in reversed(range(len(encoded))):
            time.sleep(0.02)
            if encoded[index].ids[0] == POISON:
                os.kill(os.getpid(), signal.SIGKILL)
            found = encoded[index].ids[0], models[index], os.getpid()
            yield index, np.array(found, np.float32)


def pretend(*_: Any) -> Pretended:
    """What opens it."""
    return Pretended()


def windows(count: int, size: int, poison: int = -1) -> list[Window]:
    """Windows of examples that are numbered through; one may be poisonous."""
    numbers = [range(k * size, (k + 1) * size) for k in range(count)]
    return [
        Window(
            [f"id-{n}" for n in some],
            [n % 3 for n in some],
            [Encoded([POISON if n == poison else 10_000 + n, 1], 1, 2, False) for n in some],
        )
        for some in numbers
    ]


@pytest.fixture
def fleet(driver: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Opens the backend under test, over pretended ones."""
    import ray

    from curate.backends.ray.backend import RayBackend

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    opened, notes = [], list[str]()

    def open_(compute: Compute, count: int = 2) -> Any:
        opened.append(RayBackend([], compute, notes.append, pretend, count))
        opened[-1].notes = notes
        return opened[-1]

    yield open_
    for backend in opened:
        backend.close()


def numbers(found: list[tuple[Window, int, Any]]) -> list[int]:
    """The examples that were scored, by their numbers; each with its own id and model."""
    for window, index, (first, model, _) in found:
        assert window.example_ids[index] == f"id-{int(first) - 10_000}"
        assert window.models[index] == model
        assert window.encoded[index].ids == []
    return sorted(int(first) - 10_000 for _, _, (first, *_) in found)


def test_packed_windows_keep_pairs_apart() -> None:
    """A text of several models is sent once; results and reasons keep their places."""
    one, two = Encoded([5, 6, 7, 8], 2, 3, False), Encoded([9, 10], 1, 2, True)
    packed = pack([one, two, one], [0, 0, 1])
    assert packed.ids.tolist() == [5, 6, 7, 9, 10]
    items, models = unpack(packed, [1, 2])
    assert [(item.ids, item.start, item.stop) for item in items] == [
        ([9, 10], 1, 2),
        ([5, 6, 7], 2, 3),
    ]
    assert models == [0, 1]
    scores = Scores.of([(7, np.float32([1, 2])), (3, "why"), (4, np.float32([3]))])
    assert [(index, list(found)) for index, found in scores] == [
        (7, [1, 2]),
        (4, [3]),
        (3, list("why")),
    ]
    assert list(Scores.of([(0, "why")])) == [(0, "why")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ray": "ray://10.0.0.1:10001"}, "client protocol"),
        ({"ray": "127.0.0.1:9"}, "nothing answers there"),
        ({"ray": "somewhere"}, "HOST:PORT"),
        ({"ray": "auto", "backend": "server", "servers": ("http://x",)}, "need no workers"),
        ({"ray": "auto", "device": "cuda:1"}, "Ray chooses the GPU"),
        ({"workers": 2}, "--workers needs --ray"),
    ],
)
def test_refused_without_a_cluster(given: dict[str, Any], expected: str) -> None:
    """What can't be meant is one line, before Ray is asked."""
    with pytest.raises(CurateError, match=expected):
        choose(Compute(**given), print)


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CurateError, match=r"pip install '.\[ray\]'"):
        choose(Compute(ray="auto"), print)


def test_other_versions_are_refused() -> None:
    """The package, both versions and both machines are named."""
    with pytest.raises(CurateError, match=r"torch is 2\.13\.0 on a and missing on b"):
        cluster.refuse_other({"torch": "2.13.0", "vllm": None}, {"torch": None}, "a", "b")


slow = [pytest.mark.slow, pytest.mark.timeout(600)]


class TestCluster:
    """On real machines; one after the other."""

    pytestmark = slow

    def test_windows_are_shared(self, fleet: Callable[..., Any]) -> None:
        """Both machines work, and each result comes once, with its window."""
        counts: list[int] = []
        found = list(fleet(Compute(ray="-")).stream(windows(8, 40), counts.append))
        assert numbers(found) == list(range(320))
        assert max(counts) == 2

    def test_killed_workers_cost_no_result(self, fleet: Callable[..., Any]) -> None:
        """Five kills in turn: each result comes once all the same."""
        backend, found, killed = fleet(Compute(ray="-")), [], set[int]()
        for window, index, result in backend.stream(windows(8, 100), lambda _: None):
            found.append((window, index, result))
            if len(killed) < 5 and (pid := int(result[2])) not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        assert numbers(found) == list(range(800))
        assert sum("take over its examples" in note for note in backend.notes) == 5

    def test_the_maximum_is_kept(self, fleet: Callable[..., Any]) -> None:
        """--workers 1 is one worker, whatever has room."""
        counts: list[int] = []
        found = list(fleet(Compute(ray="-", workers=1)).stream(windows(3, 5), counts.append))
        assert len(found) == 15
        assert max(counts) == 1

    def test_a_stopped_worker_is_given_up(
        self, fleet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that is silent for too long counts as lost: another one does its windows."""
        monkeypatch.setenv("CURATE_WORKER_SECONDS", "3")
        backend = fleet(Compute(ray="-"))
        found, stopped = [], []
        for each in backend.stream(windows(6, 100), lambda _: None):
            found.append(each)
            if not stopped and (stopped := workers(".score")[:1]):
                os.kill(stopped[0], signal.SIGSTOP)
        assert numbers(found) == list(range(600))
        assert any("no result for 3 s" in note for note in backend.notes), backend.notes
        assert stopped[0] not in workers()

    def test_a_poisonous_window_ends_the_run(self, fleet: Callable[..., Any]) -> None:
        """Three workers lost without a result in between: the examples are named."""
        backend = fleet(Compute(ray="-"))
        found = []
        with pytest.raises(CurateError, match="3 workers in a row were lost") as error:
            found.extend(backend.stream(windows(4, 60, poison=70), lambda _: None))
        assert "id-60, id-61, id-62" in str(error.value)
        assert "\n" not in str(error.value)

    def test_models_that_cannot_be_loaded(self, driver: None) -> None:
        """A worker's own error ends the run as it would here."""
        from curate.backends.ray.backend import RayBackend

        def broken(*_: Any) -> Pretended:
            raise CurateError("a tensor is missing")

        with pytest.raises(CurateError, match=r"^a tensor is missing$"):
            RayBackend([], Compute(ray="-"), print, broken)

    def test_no_place(self, driver: None) -> None:
        """What a worker asks for, and what the machines have."""
        with pytest.raises(CurateError, match=r"needs 1 CPU and 4 GPUs. .*2 with 1 CPU and 0 GPUs"):
            cluster.needs(Compute("vllm", device="cuda", engine=Engine(2, 2), ray="-"))

    def test_a_worker_sees_the_gpus_of_all_its_engines(
        self, machines: Any, fleet: Callable[..., Any]
    ) -> None:
        """Tensor parallel times data parallel, and two workers none in common."""
        node = add(machines, num_gpus=8)
        try:
            backend = fleet(Compute("vllm", engine=Engine(2, 2), ray="-"), 1)
            assert sorted(backend.dtype.split(",")) in ([*"0123"], [*"4567"])
        finally:
            machines.remove_node(node, allow_graceful=True)
