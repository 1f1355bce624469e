"""What servers have: the models' names at each, found before they are asked to score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from curate.backends.base import Compute, Engine
from curate.backends.server.asking import Servers, Unanswered, accepted, address, client
from curate.backends.vllm.adapters import short_limit, why_merged
from curate.errors import CurateError
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

    `note` hears what a vLLM server would score wrongly, as far as the models' files here say.

    Raises `CurateError` for a server that is not there after `patience` seconds or wants a key, a
    model that it doesn't serve, or one whose context is too short.
    """
    names: dict[str, list[str]] = {address(url): [] for url in compute.servers}
    with client(1) as http:
        for url in names:
            try:
                there = Servers([url]).ask(lambda url: _list(http, url), patience, note)
            except Unanswered as end:
                raise CurateError(f"{url} doesn't answer ({end.why}): is the server up?") from None
            # Of an adapter it is not said.
            room = max((entry.get("max_model_len") or 0 for entry in there.values()), default=0)
            for model in models:
                name = model.name if model.name in there else model.reference
                if name not in there:
                    raise CurateError(
                        f"{url} serves no model called {model.name}, but "
                        f"{', '.join(sorted(there))}: write SERVED={model.reference}"
                    )
                # To score it takes one token less than its context: it writes one of its own.
                longest = (there[name].get("max_model_len") or math.inf) - (not compute.writes)
                if longest < (compute.max_length or math.inf):
                    raise CurateError(
                        f"{url} reads at most {longest} tokens: give --max-length {longest} or "
                        "less, or serve the model with a larger --max-model-len"
                    )
                names[url].append(name)
                _warn(model, there[name], room, url, note)
    return names


def _list(http: httpx.Client, url: str) -> dict[str, dict[str, Any]]:
    """What a server says of the models that it has, by their served names."""
    answer = accepted(http.get(f"{url}/models", timeout=30.0), url)
    try:
        return {str(one["id"]): dict(one) for one in answer.json()["data"]}
    except (ValueError, LookupError, TypeError):
        raise CurateError(
            f"{url} isn't an OpenAI-compatible server: /models gave {answer.status_code}, "
            "and no list of models"
        ) from None


def _warn(
    model: Model, entry: dict[str, Any], room: int, url: str, note: Callable[[str], None]
) -> None:
    """Say why a vLLM server with room for so many tokens would give wrong numbers of a model."""
    as_adapter = entry.get("parent", "?") is not None  # vLLM names an adapter's base there
    if as_adapter and (reason := why_merged(model, Engine())):
        note(f"{model.name}: {reason}, which vLLM can't score as an adapter: serve it merged")
    limit = short_limit(model.path)
    if limit is not None and room > limit:
        note(
            f"{model.name}: above {limit} tokens its rotary factors change (longrope), and {url}, "
            f"which reads {room}, takes those of long texts for all: serve it with "
            f"--max-model-len {limit}"
        )
