"""Requests to servers: addresses, the key (which is never shown), and retries."""

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
"""Seconds for which a request is retried: a server that restarts has to load its model."""
TIMEOUT = 600.0
"""Seconds that a busy server may take to answer."""

_ASIDE = 15.0  # seconds for which other servers come first after one failed
_AGAIN = {408, 409, 425, 429}  # beside all 5xx
_SENDABLE = re.compile(r"[!-~]([ -~]*[!-~])?")  # what may stand in a header: RFC 9110, 5.5

Answer = TypeVar("Answer")


class Busy(Exception):  # noqa: N818 - a reason to ask again
    """The server can't answer now."""


class Unanswered(Exception):  # noqa: N818 - each caller has an error of its own to make of it
    """No server answered in time: the last server, the seconds, and the last reason."""

    def __init__(self, url: str, seconds: float, why: str) -> None:
        super().__init__(url, seconds, why)
        self.url, self.seconds, self.why = url, seconds, why


class Servers:
    """The servers' addresses. Requests go to the working server with the fewest waiting."""

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
        """The result of `request` from the first server that answers, tried in turn.

        There are at least two attempts, and as many as servers, with growing pauses. `note`
        receives a message about a server that doesn't answer; `closed` ends attempts early.

        Raises `Unanswered` after `patience` seconds; other errors at once.
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
        """The next server; one that has failed comes last for a while."""
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

    Raises `CurateError` for anything else, or if it contains more, such as a password.
    """
    if re.search(r"[@?#]", url):  # never quoted: it may contain a key
        raise CurateError(
            f"--server: put the key into {KEY}, not into the address. An address looks like "
            "http://localhost:8000, without @, ? and #."
        )
    try:
        parts = httpx.URL(url)
        usable = parts.scheme in ("http", "https") and bool(parts.host)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise CurateError(f"--server {url}: not an address. Give one like http://localhost:8000.")
    return url.rstrip("/").removesuffix("/v1") + "/v1"


def client(connections: int) -> httpx.Client:
    """A client that sends the key, if there is one, and doesn't follow redirects.

    Raises `CurateError` for a key that can't be sent in a header.
    """
    key = os.environ.get(KEY)
    if key and not _SENDABLE.fullmatch(key):
        raise CurateError(
            f"{KEY} can't be sent: it starts or ends with white space, or contains a line break or "
            "a character that is not ASCII. Set it again."
        )
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(TIMEOUT, connect=10.0),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def accepted(answer: httpx.Response, url: str) -> httpx.Response:
    """A response that is final.

    Raises `Busy` for one that is worth a retry, and `CurateError` if the key is wrong.
    """
    code = answer.status_code
    if code in _AGAIN or code >= 500:
        raise Busy(f"it says {code}")
    if code in (401, 403):
        kind = "another key" if os.environ.get(KEY) else "a key"
        raise CurateError(f"{url}: needs {kind} ({code}). Put it into {KEY}.")
    return answer


def brief(error: BaseException | None) -> str:
    """An error in one line, without its request, which contains the key."""
    if isinstance(error, Busy):
        return str(error)
    line = f"{type(error).__name__}: {hidden(str(error).strip())}".splitlines()[0]
    return line.removesuffix(": ")[:200]


def hidden(text: str) -> str:
    """A text without the key, in case a server repeats it."""
    key = os.environ.get(KEY)
    return text.replace(key, "***") if key else text
