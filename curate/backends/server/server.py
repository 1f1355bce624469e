"""The server backend: running OpenAI-compatible vLLM servers, with adapters by served name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np

from curate.backends.base import Compute, Found, Prompt, Sampling, Written
from curate.backends.server import asking
from curate.backends.server.asking import Busy, Servers, Unanswered, accepted, brief, hidden
from curate.backends.server.served import check
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model
from curate.system.stopping import check_cancelled

_REFUSED = {400, 413, 422}  # errors caused by the example, not by the server or the model
_MAY_BE_IT = {f"it says {code}" for code in (500, 502, 504)}  # or the server is at fault

_SCORED = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Settings that a server would otherwise take from the model's generation_config.json."""

Answer = Found | Written
Done = SimpleQueue[tuple[int, Answer | BaseException]]
Request = tuple[int, dict[str, Any], Callable[[httpx.Response, str], Answer]]
"""The model's index in the group, the body without its name, and the response's reader."""


class ServerBackend:
    """Models behind one or several addresses, with `in_flight` concurrent requests.

    A request that a server can't answer now (429, 5xx, no connection) is retried on the others in
    turn, with growing pauses. The threads that wait for answers are daemons, so a stop or an error
    ends the process even if a server never answers.
    """

    name = "server"

    def __init__(
        self, group: Sequence[Model], compute: Compute, note: Callable[[str], None]
    ) -> None:
        self.dtype = "unknown" if compute.dtype in (None, "auto") else str(compute.dtype)
        self._note, self._told = note, -math.inf
        self._names = check(group, compute, asking.PATIENCE, note)
        self.engines = len(self._names)
        self._servers = Servers(list(self._names))
        self._client = asking.client(compute.in_flight)
        self._in_flight = compute.in_flight
        self._jobs: SimpleQueue[tuple[Done, int, Request] | None] = SimpleQueue()
        self._closed = Event()
        for number in range(compute.in_flight):
            Thread(target=self._work, name=f"curate-server-{number}", daemon=True).start()

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Found]]:
        """Score a window, with one request per example and model; see `Backend.score`."""
        places = models or [0] * len(encoded)
        return self._asked(
            _scored(item, place) for item, place in zip(encoded, places, strict=True)
        )

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Written]]:
        """Answer prompts, with one request each; see `Backend.generate`."""
        return self._asked(_written(prompt, sampling) for prompt in prompts)

    def _asked(self, requests: Iterable[Request]) -> Iterator[tuple[int, Any]]:
        """The results of the requests as they arrive, with as many more waiting as in flight."""
        done: Done = SimpleQueue()
        count = 0
        for index, request in enumerate(requests):
            self._jobs.put((done, index, request))
            if index >= 2 * self._in_flight:
                yield _next(done)
            else:
                count += 1
        for _ in range(count):
            yield _next(done)

    def close(self) -> None:
        """Drop pending requests and connections."""
        self._closed.set()
        for _ in range(self._in_flight):
            self._jobs.put(None)  # wakes a thread
        self._client.close()

    def _work(self) -> None:
        """Do jobs in a thread; errors are raised where the answers are read."""
        while (job := self._jobs.get()) is not None and not self._closed.is_set():
            done, index, request = job
            found: Answer | BaseException
            try:
                found = self._one(request)
            except BaseException as error:
                found = error
            done.put((index, found))

    def _one(self, request: Request) -> Answer:
        """The result of one request, repeated until a server answers or rejects it."""
        try:
            return self._ask(request, asking.PATIENCE)
        except Unanswered as end:
            if end.why in _MAY_BE_IT:
                with suppress(Unanswered):
                    return self._at_last(request)
            what = "log-probs" if "prompt_logprobs" in request[1] else "an answer"
            raise CurateError(
                f"no server returned {what} in {end.seconds:.0f} seconds; last {end.url}: {end.why}"
            ) from None

    def _at_last(self, request: Request) -> Answer:
        """Retry an example that servers fail on; return the reason if only this one fails.

        Raises `Unanswered` if the servers don't work at all. Otherwise every run would end here.
        """
        place, body, _ = request
        self._ask(_scored(Encoded(body["prompt"][:2], 1, 2, False), place), 0.0)
        try:
            return self._ask(request, 0.0)
        except Unanswered as end:
            if end.why not in _MAY_BE_IT:
                raise
            return f"the servers fail only on this example ({end.why})"

    def _ask(self, request: Request, patience: float) -> Answer:
        place, body, read = request

        def post(url: str) -> Answer:
            named = {"model": self._names[url][place], **body}
            return read(self._client.post(f"{url}/completions", json=named), url)

        return self._servers.ask(post, patience, self._tell, self._closed)

    def _tell(self, text: str) -> None:
        """Limit notes that many requests cause at once, such as that a server is gone."""
        now = time.monotonic()
        if now - self._told > 10.0:
            self._told = now
            self._note(text)


def _scored(item: Encoded, place: int) -> Request:
    return place, {"prompt": item.ids[: item.stop], **_SCORED}, partial(_read, item)


def _written(prompt: Prompt, sampling: Sampling) -> Request:
    body = {
        "prompt": prompt.ids,
        "max_tokens": prompt.room,
        "temperature": sampling.temperature,
        "seed": prompt.seed,
        "stop_token_ids": sampling.ends,
        "return_token_ids": True,
        **_PLAIN,
    }
    return 0, body, _read_ids


def _next(done: Done) -> tuple[int, Answer]:
    """The next answer to arrive; errors are raised."""
    while True:
        check_cancelled()
        try:
            index, found = done.get(timeout=1.0)
        except Empty:
            continue
        if isinstance(found, BaseException):
            raise found
        return index, found


def _refusal(answer: httpx.Response, url: str) -> str | None:
    """Why a server rejects this example, if it does.

    Raises `Busy` if a retry may help, and `CurateError` if it rejects more than this example.
    """
    code = accepted(answer, url).status_code
    if code in _REFUSED:
        return f"the server rejects it ({code}): {hidden(answer.text)[:300]}"
    if code != 200:
        raise CurateError(f"{url}: rejects a request ({code}): {hidden(answer.text)[:300]}")
    return None


def _read_ids(answer: httpx.Response, url: str) -> Written:
    """The ids that a server wrote, or why it rejects this prompt; raises as `_refusal` does."""
    if refusal := _refusal(answer, url):
        return refusal
    try:
        ids = [int(one) for one in answer.json()["choices"][0]["token_ids"]]
    except (ValueError, LookupError, TypeError):
        raise CurateError(
            f"{url}: its answers have no token_ids. Use vLLM 0.10.2 or later."
        ) from None
    return ids or "the server gave an answer without tokens"


def _read(item: Encoded, answer: httpx.Response, url: str) -> Found:
    """The answer tokens' log-probabilities in a response, or why the server rejects this example.

    Raises as `_refusal` does, and `Busy` for a missing number.
    """
    if refusal := _refusal(answer, url):
        return refusal
    try:
        rows = answer.json()["choices"][0]["prompt_logprobs"]
        # vLLM writes minus infinity, for which JSON has no number, as -9999.
        found = [rows[at][str(item.ids[at])]["logprob"] for at in range(item.start, item.stop)]
        if len(rows) != item.stop or None in found:
            raise ValueError("some are missing")
        numbers = np.array(found, dtype=np.float32)
    except (ValueError, LookupError, TypeError) as error:
        raise Busy(f"an answer lacks prompt_logprobs ({brief(error)})") from None
    return np.where(numbers <= -9999.0, np.float32(-np.inf), numbers)
