"""How servers are asked: their addresses, the key that is never shown, and what is asked again."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any, TypeVar

from curate.errors import CurateError

KEY = "VLLM_API_KEY"
"""The environment variable of the servers' key: the one that `vllm serve` itself reads."""

PATIENCE = 300.0
"""Seconds for which a request is tried again: a server that restarts loads its model first."""

_CONNECT = 10.0  # seconds that a connection may take
_AGAIN = {408, 409, 425, 429}  # beside all 5xx
_SENDABLE = re.compile(r"[!-~]([ -~]*[!-~])?")  # what may stand in a header: RFC 9110, 5.5

Answer = TypeVar("Answer")


class Unanswered(Exception):  # noqa: N818 - each caller has an error of its own to make of it
    """No server answered in time: the one asked last, the seconds it took, and the last reason."""

    def __init__(self, url: str, seconds: float, why: str) -> None:
        super().__init__(url, seconds, why)
        self.url, self.seconds, self.why = url, seconds, why


def ask(
    turns: Turns,
    request: Callable[[str, float], Answer],
    patience: float,
    note: Callable[[str], None] = lambda _: None,
    closed: Event | None = None,
) -> Answer:
    """What `request` gets from the first server that answers, asked in turn with growing pauses.

    It is given an address and the seconds that an answer may take. However long that is, as many
    attempts are made as there are servers, and two at least. `note` hears of a server that stays
    away; `closed` ends pauses and attempts early.

    Raises `Unanswered` when `patience` seconds are over; an answer that is an error is raised at
    once.
    """
    import httpx
    import tenacity

    closed = closed or Event()
    tried: Counter[str] = Counter()
    url, began = "", time.monotonic()
    retried = (Busy, httpx.RequestError)

    def attempt() -> Answer:
        nonlocal url
        with turns.turn(tried) as (url, seconds):
            return request(url, seconds)

    def tell(state: Any) -> None:
        if state.attempt_number == 3:
            note(f"a server doesn't answer ({brief(state.outcome.exception())}): trying on")

    enough = tenacity.stop_all(
        tenacity.stop_after_delay(patience), tenacity.stop_after_attempt(max(2, len(turns.urls)))
    )
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(retried),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=15),
        stop=tenacity.stop_any(tenacity.stop_when_event_set(closed), enough),
        sleep=tenacity.sleep_using_event(closed),
        before_sleep=tell,
        reraise=True,
    )
    try:
        return attempts(attempt)
    except retried as error:
        raise Unanswered(url, time.monotonic() - began, brief(error)) from None


def address(url: str) -> str:
    """The address of the API, with `/v1` at its end.

    Raises `CurateError` for what is none, or holds more, such as a password.
    """
    import httpx

    if re.search(r"[@?#]", url):  # never quoted: what stands there may be a key
        raise CurateError(
            f"--server: put the key into {KEY}, not into the address, which ends with its path: "
            "like http://localhost:8000, without @, ? and #"
        )
    try:
        parts = httpx.URL(url)
        known = parts.scheme in ("http", "https") and 0 < (parts.port or 80) < 2**16
        usable = known and parts.host.encode("idna")
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise CurateError(f"--server {url}: give an address like http://localhost:8000")
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def client(connections: int) -> Any:
    """An `httpx.Client` that sends the key, if there is one, and follows no redirect with it.

    Raises `CurateError` for a key that no request can carry.
    """
    import httpx

    key = os.environ.get(KEY)
    if key and not _SENDABLE.fullmatch(key):
        raise CurateError(
            f"{KEY} can't be sent: it begins or ends with white space, or holds a line's end or "
            "another character that is not plain ASCII; set it anew"
        )
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=timeout(TIMEOUT),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def timeout(seconds: float) -> Any:
    """So long an answer is waited for."""
    import httpx

    return httpx.Timeout(seconds, connect=_CONNECT)


def accepted(answer: Any, url: str) -> Any:
    """A response that is worth reading; the others are raised.

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
    import httpx

    if isinstance(error, Busy):
        return str(error)
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, httpx.LocalProtocolError):  # its text may quote a header
        return type(error).__name__
    return f"{type(error).__name__}: {hidden(lines[0])}"[:200]


def hidden(text: str) -> str:
    """A text without the key, should a server repeat it."""
    key = os.environ.get(KEY)
    return text.replace(key, "***") if key else text


TIMEOUT = 600.0
"""Seconds that a busy server may take to answer."""

_TRIAL_TIMEOUT = 60.0  # for one that was bad, and is tried again while others do the work
_BUSY_ASIDE = 5.0  # seconds for which others come first: after an answer such as 429 or 503
_LOST_ASIDE = 60.0  # after a connection that failed
_SILENT_ASIDE = 600.0  # after a time-out: each trial may hold up the end of a window


class Busy(Exception):  # noqa: N818 - a reason to ask again
    """A server can't answer now."""


class Turns:
    """Servers, and what all requests that are under way have learnt of them.

    Each request goes to the server on which the fewest wait, so that a silent one never holds more
    than its share of them. One that failed comes last for a while, and then gets a single request,
    until it answers one.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self._waiting: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._aside: dict[str, float] = {}  # those that failed last: until when they come last
        self._lock = Lock()

    @contextmanager
    def turn(self, tried: Counter[str]) -> Iterator[tuple[str, float]]:
        """The server to ask and the seconds to give it; how that ends is remembered.

        `tried`: how often each was asked for the same thing; it is counted up here.
        """
        import httpx

        url, seconds = self._take(tried)
        aside = 0.0
        try:
            yield url, seconds
        except Busy:
            aside = _BUSY_ASIDE
            raise
        except httpx.ReadTimeout:
            aside = _SILENT_ASIDE
            raise
        except httpx.RequestError:
            aside = _LOST_ASIDE
            raise
        finally:
            with self._lock:
                self._waiting[url] -= 1
                self._aside.pop(url, None)
                if aside:
                    self._aside[url] = time.monotonic() + aside

    def _take(self, tried: Counter[str]) -> tuple[str, float]:
        now = time.monotonic()

        def rank(url: str) -> tuple[float, int, int, int]:
            until = self._aside.get(url, 0.0)
            if until <= now:  # a trial is over before there is another
                until = now if until and self._waiting[url] else 0.0
            return until, tried[url], self._waiting[url], self._asked[url]

        with self._lock:
            url = min(self.urls, key=rank)
            self._waiting[url] += 1
            self._asked[url] += 1
            on_trial = url in self._aside and len(self._aside) < len(self.urls)
        tried[url] += 1
        return url, min(_TRIAL_TIMEOUT, TIMEOUT) if on_trial else TIMEOUT
