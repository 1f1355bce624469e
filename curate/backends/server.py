"""The server backend: running OpenAI-compatible vLLM servers, adapters by their served names."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from curate.backends import Compute
from curate.chat import Rendered
from curate.errors import CurateError
from curate.models import Model
from curate.stopping import heed

KEY = "VLLM_API_KEY"
"""The environment variable of the servers' key: the one that `vllm serve` itself reads."""

PATIENCE = 300.0
"""Seconds for which a request is tried again: a server that restarts loads its model first."""

_TIMEOUT = 600.0  # seconds that a busy server may take to answer
_CLAMP = -9999.0
_AGAIN = {408, 409, 425, 429}  # beside all 5xx


class ServerBackend:
    """Models behind one address or several, with `in_flight` requests under way at a time.

    A request that a server can't answer now (429, 5xx, no connection) goes to the next server,
    and round again with growing pauses.
    """

    name = "server"
    whole_windows = False

    def __init__(
        self, group: Sequence[Model], compute: Compute, note: Callable[[str], None]
    ) -> None:
        self.dtype = compute.dtype or "unknown"
        self._note = note
        self._urls = [_address(url) for url in compute.servers]
        self._in_flight = compute.in_flight
        self._client = _client(compute.in_flight)
        self._served = check(group, compute)
        self._pool = ThreadPoolExecutor(compute.in_flight, thread_name_prefix="curate-server")
        self._closed = False

    def score(
        self,
        rendered: Sequence[Rendered],
        models: Sequence[int] = (),
        known: Collection[int] = (),
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Score a window, a request for each example and model; see `Backend.score`."""
        todo = iter(range(len(rendered)))
        under_way: dict[Future[npt.NDArray[np.float32]], int] = {}
        for index in todo:
            place = models[index] if models else 0
            future = self._pool.submit(self._one, rendered[index], self._served[place], index)
            under_way[future] = index
            while len(under_way) >= 2 * self._in_flight:
                yield from self._finished(under_way)
        while under_way:
            yield from self._finished(under_way)

    def close(self) -> None:
        """Drop what is under way and the connections."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _finished(
        self, under_way: dict[Future[npt.NDArray[np.float32]], int]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        heed()
        done, _ = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in done:
            yield under_way.pop(future), future.result()

    def _one(self, item: Rendered, served: str, turn: int) -> npt.NDArray[np.float32]:
        """One example's log-probs, asked until a server gives them."""
        import httpx
        import tenacity

        patience = tenacity.stop_after_delay(PATIENCE)
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((_Busy, httpx.TransportError)),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=15),
            stop=lambda state: self._closed or patience(state),
            before_sleep=self._tell,
            reraise=True,
        )
        body = _body(item, served)
        try:
            for attempt in attempts:
                with attempt:
                    # Neighbours go to different servers, and each next attempt to another one.
                    number = turn + attempt.retry_state.attempt_number - 1
                    url = self._urls[number % len(self._urls)]
                    return _read(self._client.post(f"{url}/completions", json=body), item, url)
        except (_Busy, httpx.TransportError) as error:
            raise CurateError(
                f"no server gave log-probs for {PATIENCE:.0f} seconds, {url} last "
                f"({_brief(error)}); what was scored is kept: mend it and run the same again"
            ) from None
        raise AssertionError("attempts end with a result or an error")  # pragma: no cover

    def _tell(self, state: Any) -> None:
        """Say once in a while that a server is gone; the others go on."""
        if state.attempt_number == 3 and not self._closed:
            self._note(f"a server doesn't answer ({_brief(state.outcome.exception())}): trying on")


class _Busy(Exception):  # noqa: N818 - a reason to ask again
    """The server can't answer now."""


def check(models: Sequence[Model], compute: Compute) -> list[str]:
    """The names under which every server has the models, in the models' order.

    Raises `CurateError` for a server that is not there or wants a key, a model that it doesn't
    serve, or one whose context is too short.
    """
    for package in ("httpx", "tenacity"):
        try:
            __import__(package)
        except ImportError:
            raise CurateError(
                f"--backend server needs {package}: pip install 'curate[server]'"
            ) from None
    served: list[str] = []
    with _client(1) as client:
        for address in compute.servers:
            url = _address(address)
            there = _served(client, url)
            served = [_name(model, there, url) for model in models]
            for name in served:
                _check_length(there[name].get("max_model_len"), compute.max_length, url)
    return served


def _address(url: str) -> str:
    """The address of the API, with `/v1` at its end."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CurateError(f"--server {url}: give an address like http://localhost:8000")
    if parts.username or parts.password:
        raise CurateError(f"--server: put the key into {KEY}, not into the address")
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def _client(connections: int) -> Any:
    """An HTTP client that sends the key, if there is one, and follows no redirect with it."""
    import httpx

    key = os.environ.get(KEY)
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(_TIMEOUT, connect=10.0),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def _served(client: Any, url: str) -> dict[str, dict[str, Any]]:
    """What a server says of the models it has, by their served names."""
    import httpx

    try:
        answer = client.get(f"{url}/models", timeout=30.0)
    except httpx.HTTPError as error:
        raise CurateError(f"{url} doesn't answer ({_brief(error)}): is the server up?") from None
    if answer.status_code in (401, 403):
        raise CurateError(f"{url} wants a key ({answer.status_code}): put it into {KEY}")
    try:
        return {entry["id"]: entry for entry in answer.json()["data"]}
    except (ValueError, KeyError, TypeError):
        raise CurateError(
            f"{url} is no OpenAI-compatible server: /models gave {answer.status_code}"
        ) from None


def _name(model: Model, there: dict[str, dict[str, Any]], url: str) -> str:
    for name in (model.name, model.reference):
        if name in there:
            return name
    raise CurateError(
        f"{url} serves no model called {model.name}, but {', '.join(sorted(there))}: write "
        f"SERVED={model.reference}"
    )


def _check_length(context: int | None, wanted: int | None, url: str) -> None:
    # A server takes one token less than its context: it wants room for the one it generates.
    if context and (wanted is None or wanted >= context):
        raise CurateError(
            f"{url} reads at most {context - 1} tokens: give --max-length {context - 1} or less, "
            "or serve the model with a larger --max-model-len"
        )


def _body(item: Rendered, served: str) -> dict[str, Any]:
    return {
        "model": served,
        "prompt": item.ids[: item.stop],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
    }


def _read(answer: Any, item: Rendered, url: str) -> npt.NDArray[np.float32]:
    """The answer tokens' log-probs from a server's response.

    Raises `_Busy` where it is worth asking again, a missing number included.
    """
    code = answer.status_code
    if code in _AGAIN or code >= 500:
        raise _Busy(f"it says {code}")
    if code in (401, 403):
        raise CurateError(f"{url} wants another key ({code}): put it into {KEY}")
    if code != 200:
        raise CurateError(f"{url} refuses a request ({code}): {_message(answer)}")
    try:
        rows = answer.json()["choices"][0]["prompt_logprobs"]
        # vLLM writes minus infinity, for which JSON has no number, as -9999.
        found = [rows[at][str(item.ids[at])]["logprob"] for at in range(item.start, item.stop)]
        if len(rows) != item.stop or any(value is None for value in found):
            raise ValueError("some are missing")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _Busy(f"an answer lacks prompt_logprobs ({_brief(error)})") from None
    numbers = np.array(found, dtype=np.float32)
    return np.where(numbers <= _CLAMP, -np.inf, numbers).astype(np.float32)


def _message(answer: Any) -> str:
    try:
        said = answer.json()
        said = said.get("error", said)
        return str(said.get("message", said))[:300]
    except (ValueError, AttributeError):
        return str(answer.text)[:300]


def _brief(error: BaseException | None) -> str:
    """One line of an error. Its request, which holds the key, is never shown."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
