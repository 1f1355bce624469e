"""The server backend: running OpenAI-compatible vLLM servers, adapters by their served names."""

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

_REFUSED = {400, 413, 422}  # what an example is at fault for, and not the server or the model
_MAY_BE_IT = {f"it says {code}" for code in (500, 502, 504)}  # or the server is at fault

_SCORED = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What a server would else take from the model's generation_config.json."""

Answer = Found | Written
Done = SimpleQueue[tuple[int, Answer | BaseException]]
Request = tuple[int, dict[str, Any], Callable[[httpx.Response, str], Answer]]
"""The model's place in the group, the body without its name, and what reads the response."""


class ServerBackend:
    """Models behind one address or several, with `in_flight` requests under way at a time.

    A request that a server can't answer now (429, 5xx, no connection) goes to another server, and
    round again with growing pauses. The threads that wait for answers are daemons: a stop or an
    error ends the process whether or not a server ever answers.
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
        """Score a window, a request for each example and model; see `Backend.score`."""
        places = models or [0] * len(encoded)
        return self._asked(
            _scored(item, place) for item, place in zip(encoded, places, strict=True)
        )

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Written]]:
        """Answer prompts, a request for each; see `Backend.generate`."""
        return self._asked(_written(prompt, sampling) for prompt in prompts)

    def _asked(self, requests: Iterable[Request]) -> Iterator[tuple[int, Any]]:
        """What the requests get, as it comes; as many again wait as are under way."""
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
        """Drop what is under way and the connections."""
        self._closed.set()
        for _ in range(self._in_flight):
            self._jobs.put(None)  # wakes a thread
        self._client.close()

    def _work(self) -> None:
        """Do one job after the other, in a thread; errors are raised where the answers are read."""
        while (job := self._jobs.get()) is not None and not self._closed.is_set():
            done, index, request = job
            found: Answer | BaseException
            try:
                found = self._one(request)
            except BaseException as error:
                found = error
            done.put((index, found))

    def _one(self, request: Request) -> Answer:
        """What one request gets, made until a server answers or refuses it."""
        try:
            return self._ask(request, asking.PATIENCE)
        except Unanswered as end:
            if end.why in _MAY_BE_IT:
                with suppress(Unanswered):
                    return self._at_last(request)
            what = "log-probs" if "prompt_logprobs" in request[1] else "an answer"
            raise CurateError(
                f"no server gave {what} for {end.seconds:.0f} seconds, {end.url} last: {end.why}"
            ) from None

    def _at_last(self, request: Request) -> Answer:
        """Ask once more for what servers fail on; its reason, if they still do and work otherwise.

        Raises `Unanswered` where they don't: each run would else end at this example.
        """
        place, body, _ = request
        self._ask(_scored(Encoded(body["prompt"][:2], 1, 2, False), place), 0.0)
        try:
            return self._ask(request, 0.0)
        except Unanswered as end:
            if end.why not in _MAY_BE_IT:
                raise
            return f"the servers fail on it alone ({end.why})"

    def _ask(self, request: Request, patience: float) -> Answer:
        place, body, read = request

        def post(url: str) -> Answer:
            named = {"model": self._names[url][place], **body}
            return read(self._client.post(f"{url}/completions", json=named), url)

        return self._servers.ask(post, patience, self._tell, self._closed)

    def _tell(self, text: str) -> None:
        """Say what many requests hear at once, such as that a server is gone, once in a while."""
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
    """The next answer that comes; what it can't be is raised."""
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
    """Why a server refuses this example, if it does.

    Raises `Busy` where it is worth asking again, and `CurateError` where it refuses more than this
    example.
    """
    code = accepted(answer, url).status_code
    if code in _REFUSED:
        return f"the server refuses it ({code}): {hidden(answer.text)[:300]}"
    if code != 200:
        raise CurateError(f"{url} refuses a request ({code}): {hidden(answer.text)[:300]}")
    return None


def _read_ids(answer: httpx.Response, url: str) -> Written:
    """The ids that a server wrote, or why it refuses this prompt; raises as `_refusal` does."""
    if refusal := _refusal(answer, url):
        return refusal
    try:
        ids = [int(one) for one in answer.json()["choices"][0]["token_ids"]]
    except (ValueError, LookupError, TypeError):
        raise CurateError(
            f"{url}: its answers have no token_ids; vLLM has given them since 0.10.2"
        ) from None
    return ids or "the server gave an answer without tokens"


def _read(item: Encoded, answer: httpx.Response, url: str) -> Found:
    """The answer tokens' log-probs from a server's response, or why it refuses this example.

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
