"""What servers have: the models' names at each, found before they are asked to score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpx

from curate.backends.base import Compute, Engine
from curate.backends.server.asking import Servers, Unanswered, accepted, address, ask, client
from curate.backends.vllm.adapters import short_limit, why_merged
from curate.errors import CurateError
from curate.models.fingerprints import is_adapter
from curate.models.resolve import Model

FIRST_PATIENCE = 5.0
"""Seconds for which a server is looked for before a run: one that is not there is a mistake."""


def check(
    models: Sequence[Model],
    compute: Compute,
    patience: float = FIRST_PATIENCE,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, list[str]]:
    """By each server's address the names under which it has the models, in the models' order.

    `note` is told what a vLLM server would score wrongly, as far as the models' files here say.

    Raises `CurateError` for a server that is not there after `patience` seconds or wants a key, a
    model that it doesn't serve, or one whose context is too short.
    """
    if compute.in_flight < 1:
        raise CurateError(f"--in-flight must be at least 1, not {compute.in_flight}")
    names: dict[str, list[str]] = {}
    urls = [address(url) for url in compute.servers]
    with client(1) as http:
        for url in urls:
            try:
                there = ask(Servers([url]), lambda url: _list(http, url), patience, note)
            except Unanswered as end:
                raise CurateError(f"{url} doesn't answer ({end.why}): is the server up?") from None
            names[url] = [_name(model, there, url) for model in models]
            for model, name in zip(models, names[url], strict=True):
                _check_length(there[name].get("max_model_len"), compute.max_length, url)
                _warn(model, there[name], there, url, note)
    return names


def _list(http: httpx.Client, url: str) -> dict[str, dict[str, Any]]:
    """What a server says of the models that it has, by their served names."""
    answer = accepted(http.get(f"{url}/models", timeout=30.0), url)
    try:
        found = {one["id"]: dict(one) for one in answer.json()["data"]}
        contexts = [one.get("max_model_len") for one in found.values()]
        if any(type(name) is not str for name in found):
            raise TypeError
        if any(n is not None and (type(n) is not int or n < 2) for n in contexts):
            raise TypeError
        return found
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CurateError(
            f"{url} is no OpenAI-compatible server: /models gave {answer.status_code}, "
            "and no list of models with their lengths"
        ) from None


def _name(model: Model, there: Iterable[str], url: str) -> str:
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


def _warn(
    model: Model,
    entry: dict[str, Any],
    there: dict[str, dict[str, Any]],
    url: str,
    note: Callable[[str], None],
) -> None:
    """Say why a vLLM server would give wrong numbers of a model."""
    as_adapter = entry.get("parent", "?") is not None  # vLLM names an adapter's base there
    if as_adapter and model.adapter is not None and is_adapter(model.adapter):
        reason = why_merged(model, Engine())
        if reason:
            note(f"{model.name}: {reason}, which vLLM can't score as an adapter: serve it merged")
    # Of an adapter it is not said.
    room = max(other.get("max_model_len") or 0 for other in there.values())
    limit = short_limit(model.path) if (model.path / "config.json").is_file() else None
    if limit is not None and room > limit:
        note(
            f"{model.name}: above {limit} tokens its rotary factors change (longrope), and {url}, "
            f"which reads {room}, takes those of long texts for all: serve it with "
            f"--max-model-len {limit}"
        )
