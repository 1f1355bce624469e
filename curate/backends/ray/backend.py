"""The backend of a cluster: workers get windows, and return the numbers as they compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import ray
from more_itertools import chunked

from curate.backends.base import PROMPTS, Compute, Found, Prompt, Sampling, Window, Written
from curate.backends.ray import cluster
from curate.backends.ray.fleet import Fleet, Task
from curate.backends.ray.windows import pack
from curate.backends.ray.worker import Opener
from curate.chat.encode import Encoded
from curate.models.elsewhere import absolute
from curate.models.resolve import Model


class RayBackend:
    """A group of models on each of several workers; `opener` opens them there."""

    def __init__(
        self,
        group: Sequence[Model],
        compute: Compute,
        note: Callable[[str], None],
        opener: Opener,
        windows: int = 1,
    ) -> None:
        asked = cluster.needs(compute)
        opening = (absolute(group), replace(compute, ray=None, workers=None), opener)
        self._fleet = Fleet(opening, asked, compute.workers, note)
        try:
            first = self._fleet.first(windows)
        except BaseException:
            self._fleet.close()
            raise
        self.name, self.dtype, self.engines = first.name, first.dtype, first.engines

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Found]]:
        """Score one window, on one worker; see `Backend.score`."""
        window = Window([], list(models), list(encoded))
        return ((index, found) for _, index, found in self.stream([window]))

    def stream(
        self, windows: Iterable[Window], workers: Callable[[int], None] = lambda _: None
    ) -> Iterator[tuple[Window, int, Found]]:
        """Score windows, some on each worker; `workers` receives the number of workers.

        Yields the window (without its ids), the index of an example in it, and what `Backend.score`
        yields for that example.

        Raises:
            CurateError: no worker can load the models, or three died on the same examples.
        """

        def tasks() -> Iterator[Task]:
            for window in windows:
                if window.encoded:
                    packed = ray.put(pack(window.encoded, window.models))
                    light = replace(window, encoded=_without_ids(window.encoded))
                    left = set(range(len(window.encoded)))
                    yield Task(light, [packed], left, window.example_ids)

        for task, found in self._fleet.run("score", tasks(), workers):
            for index, one in found:
                yield task.window, index, one

    def generate(
        self,
        prompts: Iterable[Prompt],
        sampling: Sampling,
        workers: Callable[[int], None] = lambda _: None,
    ) -> Iterator[tuple[int, Written]]:
        """Answer prompts, some hundreds on each worker; see `Backend.generate`."""

        def tasks() -> Iterator[Task]:
            for chunk in chunked(enumerate(prompts), PROMPTS):
                numbers, given = zip(*chunk, strict=True)
                names = [f"prompt {number}" for number in numbers]
                yield Task(numbers, [given, sampling], set(range(len(chunk))), names)

        for task, written in self._fleet.run("generate", tasks(), workers):
            for index, ids in written:
                yield task.window[index], ids

    def close(self) -> None:
        """End all workers, which frees their memory."""
        self._fleet.close()


def _without_ids(items: Iterable[Encoded]) -> list[Encoded]:
    """The items without their ids, which take most of their memory; workers have them."""
    made: dict[int, Encoded] = {}
    return [made.setdefault(id(item), replace(item, ids=[])) for item in items]
