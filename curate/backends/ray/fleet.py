"""Workers that come and go, and their tasks: each result is delivered once."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from curate.backends.ray import cluster
from curate.backends.ray.worker import Opened, Worker
from curate.errors import CurateError
from curate.system.stopping import check_cancelled

IN_FLIGHT = 2
"""Tasks that a worker has: one that it works on, and the next."""
KILLS = 3
"""If this many workers die of the same task, the task is at fault."""
FAILURES = 5
"""If this many workers in a row die while loading, the models or the machines are at fault."""
SILENT_SECONDS = 600.0
LOADING = 6
"""Loading may take this many times as long as a worker may be silent."""
COUNT_SECONDS = 5.0
_DEAD = re.compile(r"The actor is dead because (?P<why>.*?)\.(?: |$)")


@dataclass
class Task:
    """A window on its way: our reference to it, the arguments of a call, and missing results."""

    window: Any
    arguments: list[Any]  # references to them, and plain values
    left: set[int]
    names: list[str]  # of the examples, by their index
    deaths: int = 0  # of workers since its last result


@dataclass
class Member:
    """A worker as the driver sees it: what it was asked for and hasn't returned yet."""

    actor: Any
    coming: Any  # a reference: where it runs, then that it has opened; None once it has
    host: str = ""
    opened: Opened | None = None
    tasks: deque[tuple[Task, Any]] = field(default_factory=deque)  # each with its results' stream
    heard: float = 0.0  # when it last gave anything

    @property
    def awaited(self) -> Any:
        """What Ray should wait for; None if the worker has nothing to do."""
        return self.coming or (self.tasks[0][1] if self.tasks else None)


class Fleet:
    """Actors with a backend each; `opening` are the arguments that open it."""

    def __init__(
        self,
        opening: tuple[Any, ...],
        asked: dict[str, float],
        most: int | None,
        note: Callable[[str], None],
    ) -> None:
        self._opening, self._asked, self._most, self._note = opening, asked, most, note
        self._class = ray.remote(max_restarts=0, **cluster.options(asked))(Worker)
        self._silent = float(os.environ.get("CURATE_WORKER_SECONDS", SILENT_SECONDS))
        self.members: list[Member] = []
        self._waiting: deque[Task] = deque()
        self._first: Opened | None = None
        self._failures, self._hire_at = 0, 0.0
        self._places, self._counted = 0, 0.0

    @property
    def open(self) -> list[Member]:
        """The workers that are ready."""
        return [member for member in self.members if member.opened]

    def first(self, wanted: int) -> Opened:
        """Wait until one worker is ready, while up to `wanted` are being hired."""
        while self._first is None:
            self._hire(wanted)
            list(self._hear(1.0))
        return self._first

    def run(
        self, method: str, tasks: Iterator[Task], workers: Callable[[int], None]
    ) -> Iterator[tuple[Task, list[tuple[int, Any]]]]:
        """Hand out tasks; yield some results of one task at a time, with their indexes."""
        more, shown = True, -1
        while True:
            if len(self.open) != shown:
                shown = len(self.open)
                workers(shown)
            self._hand_out(method)
            under_way = len(self._waiting) + sum(len(member.tasks) for member in self.members)
            hungry = more and under_way < IN_FLIGHT * max(1, self._wanted())
            if hungry:
                task = next(tasks, None)
                more = task is not None
                self._waiting.extend(filter(None, [task]))
            elif not under_way:
                return
            self._hire(under_way + hungry)
            yield from self._hear(0.0 if hungry else 1.0)

    def close(self) -> None:
        """End all workers, which frees their memory."""
        for member in self.members:
            _kill(member)
        self.members.clear()

    def _wanted(self) -> int:
        """How many workers there should be if there is work: as many as requested, or as fit."""
        if self._most is not None:
            return self._most
        if (now := time.monotonic()) - self._counted > COUNT_SECONDS:
            self._places, self._counted = cluster.places(self._asked), now
        return self._places

    def _hire(self, most: int) -> None:
        """Ask Ray for the missing workers; it starts them where and when there is room.

        For some seconds, a machine that is gone looks like room, so we pause after each loss.
        """
        while time.monotonic() >= self._hire_at and len(self.members) < min(most, self._wanted()):
            actor = self._class.remote()
            self.members.append(Member(actor, actor.host.remote()))

    def _hand_out(self, method: str) -> None:
        for most in range(1, IN_FLIGHT + 1):
            for member in self.open:
                if self._waiting and len(member.tasks) < most:
                    task = self._waiting.popleft()
                    call = getattr(member.actor, method).options(num_returns="streaming")
                    member.heard = member.heard if member.tasks else time.monotonic()
                    member.tasks.append((task, call.remote(sorted(task.left), *task.arguments)))

    def _hear(self, seconds: float) -> Iterator[tuple[Task, list[tuple[int, Any]]]]:
        """Collect results for some time, and give up workers that are lost or silent."""
        check_cancelled()
        awaited = {id(member.awaited): member for member in self.members if member.awaited}
        if not awaited:
            time.sleep(min(seconds, 0.1))
            return
        every = [member.awaited for member in awaited.values()]
        ready, rest = ray.wait(every, timeout=seconds)
        ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else []
        for one in ready:
            yield from self._take(awaited[id(one)])
        now = time.monotonic()
        for member in list(self.members):
            limit = self._silent * (1 if member.opened else LOADING)
            if member.awaited and member.host and now - member.heard > limit:
                self._lose(member, f"no result for {limit:,.0f} s")

    def _take(self, member: Member) -> Iterator[tuple[Task, list[tuple[int, Any]]]]:
        """Collect what a worker has ready."""
        try:
            if member.coming:
                self._arrived(member, ray.get(member.coming))
            else:
                task, stream = member.tasks[0]
                found = [each for each in ray.get(next(stream)) if each[0] in task.left]
                task.left.difference_update(index for index, _ in found)
                if found:
                    task.deaths = 0
                    yield task, found
            member.heard = time.monotonic()
        except StopIteration:
            member.tasks.popleft()
            member.heard = time.monotonic()
        except RayTaskError as error:
            if not isinstance(error.cause, CurateError):
                raise  # a bug, with its traceback
            if not member.opened:
                raise error.cause from None
            self._lose(member, str(error.cause))
        except RayError as error:  # it may live on, but its results are ignored from now on
            self._lose(member, _brief(error))

    def _arrived(self, member: Member, said: str | Opened) -> None:
        """A worker has started and begins to load its models, or has loaded them."""
        if isinstance(said, str):
            member.host, member.coming = said, member.actor.open.remote(*self._opening)
            return
        if self._first is None:
            self._first = said
            for text in said.notes:
                self._note(text)
        cluster.refuse_other(self._first.versions, said.versions, self._first.host, said.host)
        member.opened, member.coming, self._failures = said, None, 0

    def _lose(self, member: Member, why: str) -> None:
        """Give up a worker, and hand its tasks to others."""
        _kill(member)
        self.members.remove(member)
        where = member.host or "a machine"
        if member.opened is None:
            self._failures += 1
            if self._failures == FAILURES:
                raise CurateError(
                    f"{FAILURES} workers in a row were lost while they loaded, the last on "
                    f"{where}: {why}. See Ray's logs there (/tmp/ray/session_latest/logs)."
                )
        self._hire_at = time.monotonic() + 2.0**self._failures
        self._note(f"the worker on {where} is lost ({why}); other workers take over its examples")
        for task, _ in reversed(member.tasks):
            if task.left:
                self._waiting.appendleft(task)
        if not member.tasks:
            return
        task, _ = member.tasks[0]
        task.deaths += 1
        if task.deaths == KILLS:
            left = sorted(task.left)
            names = ", ".join(task.names[index] for index in left[:3])
            more = f" and {len(left) - 3:,} more" if len(left) > 3 else ""
            raise CurateError(
                f"{KILLS} workers in a row were lost with the same examples, {names}{more} (on "
                f"{where}: {why}). Lower --batch-tokens or --max-length, or exclude them with "
                "--where."
            )


def _brief(error: RayError) -> str:
    """The reason of an actor's death, from Ray's long message."""
    text = " ".join(str(error).split())
    if "running low on memory" in text:
        return "its machine ran low on memory"
    found = _DEAD.search(text)
    return found["why"] if found else text[:200]


def _kill(member: Member) -> None:
    with suppress(RayError):
        ray.kill(member.actor)
