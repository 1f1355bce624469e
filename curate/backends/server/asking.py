"""How servers are asked: their addresses, the key that is never shown, and what is asked again."""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import TypeVar

import httpx

from curate.errors import CurateError

KEY = "VLLM_API_KEY"
"""The environment variable of the servers' key: the one that `vllm serve` itself reads."""
PATIENCE = 300.0
"""Seconds for which a request is tried again: a server that restarts loads its model first."""
TIMEOUT = 600.0
"""Seconds that a busy server may take to answer."""

_ASIDE = 15.0  # seconds for which other servers come first after one failed
_AGAIN = {408, 409, 425, 429}  # beside all 5xx
_SENDABLE = re.compile(r"[!-~]([ -~]*[!-~])?")  # what may stand in a header: RFC 9110, 5.5

Answer = TypeVar("Answer")


class Busy(Exception):  # noqa: N818 - a reason to ask again
    """A server can't answer now."""


class Unanswered(Exception):  # noqa: N818 - each caller has an error of its own to make of it
    """No server answered in time: the one asked last, the seconds it took, and the last reason."""

    def __init__(self, url: str, seconds: float, why: str) -> None:
        super().__init__(url, seconds, why)
        self.url, self.seconds, self.why = url, seconds, why


class Servers:
    """The servers' addresses. Each request goes to one that works and has the fewest waiting."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self._waiting: Counter[str] = Counter()
        self._aside = dict.fromkeys(urls, 0.0)  # until when others come first
        self._lock = Lock()

    def ask(
        self,
        request: Callable[[str], Answer],
        patience: float,
        note: Callable[[str], None] = lambda _: None,
        closed: Event | None = None,
    ) -> Answer:
        """What `request` gets from the first that answers, asked in turn with growing pauses.

        However long an answer takes, as many attempts are made as there are servers, and two at
        least. `note` hears of a server that stays away; `closed` ends pauses and attempts early.

        Raises `Unanswered` when `patience` seconds are over; other errors at once.
        """
        closed, began, attempt = closed or Event(), time.monotonic(), 0
        while True:
            attempt += 1
            try:
                with self._turn() as url:
                    return request(url)
            except (Busy, httpx.RequestError) as error:
                seconds = time.monotonic() - began
                enough = seconds >= patience and attempt >= max(2, len(self.urls))
                if enough or closed.is_set():
                    raise Unanswered(url, seconds, brief(error)) from None
                if attempt == 3:
                    note(f"a server doesn't answer ({brief(error)}): trying again")
            closed.wait(random.uniform(0.0, min(15.0, 2.0 ** (attempt - 2))))

    @contextmanager
    def _turn(self) -> Iterator[str]:
        """The server to ask next; one that fails comes last for a while."""
        with self._lock:
            now = time.monotonic()
            url = min(self.urls, key=lambda url: (max(now, self._aside[url]), self._waiting[url]))
            self._waiting[url] += 1
        try:
            yield url
        except (Busy, httpx.RequestError) as error:
            silent = isinstance(error, httpx.ReadTimeout)  # it would hold its share as long again
            self._aside[url] = time.monotonic() + (TIMEOUT if silent else _ASIDE)
            raise
        finally:
            with self._lock:
                self._waiting[url] -= 1


def address(url: str) -> str:
    """The address of the API, with `/v1` at its end.

    Raises `CurateError` for what is none, or holds more, such as a password.
    """
    if re.search(r"[@?#]", url):  # never quoted: what stands there may be a key
        raise CurateError(
            f"--server: put the key into {KEY}, not into the address, which ends with its path: "
            "like http://localhost:8000, without @, ? and #"
        )
    try:
        parts = httpx.URL(url)
        usable = parts.scheme in ("http", "https") and 0 < (parts.port or 80) < 2**16
        usable = usable and bool(parts.host.encode("idna"))
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise CurateError(f"--server {url}: give an address like http://localhost:8000")
    return url.rstrip("/").removesuffix("/v1") + "/v1"


def client(connections: int) -> httpx.Client:
    """A client that sends the key, if there is one, and follows no redirect with it.

    Raises `CurateError` for a key that no request can carry.
    """
    key = os.environ.get(KEY)
    if key and not _SENDABLE.fullmatch(key):
        raise CurateError(
            f"{KEY} can't be sent: it begins or ends with white space, or holds a line's end or "
            "another character that is not plain ASCII; set it again"
        )
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(TIMEOUT, connect=10.0),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def accepted(answer: httpx.Response, url: str) -> httpx.Response:
    """A response that is worth reading.

    Raises `Busy` where it is worth asking again, and `CurateError` where the key is at fault.
    """
    code = answer.status_code
    if code in _AGAIN or code >= 500:
        raise Busy(f"it says {code}")
    if code in (401, 403):
        kind = "another key" if os.environ.get(KEY) else "a key"
        raise CurateError(f"{url} wants {kind} ({code}): put it into {KEY}")
    return answer


def brief(error: BaseException | None) -> str:
    """One line of an error. Its request, which holds the key, is never shown."""
    if isinstance(error, Busy):
        return str(error)
    line = f"{type(error).__name__}: {hidden(str(error).strip())}".splitlines()[0]
    return line.removesuffix(": ")[:200]


def hidden(text: str) -> str:
    """A text without the key, should a server repeat it."""
    key = os.environ.get(KEY)
    return text.replace(key, "***") if key else text
