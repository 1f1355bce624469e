"""What servers offer: the name of each model there, determined before scoring."""

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
"""Seconds to wait for a server before a run: a missing one is a mistake."""


def check(
    models: Sequence[Model],
    compute: Compute,
    patience: float = FIRST_PATIENCE,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, list[str]]:
    """For each server's address, the names of the models there, in the models' order.

    `note` receives warnings about adapters that a vLLM server would score wrongly.

    Raises `CurateError` for a server that doesn't answer within `patience` seconds or needs a key,
    a model that it doesn't serve, or a context that is too short.
    """
    names: dict[str, list[str]] = {address(url): [] for url in compute.servers}
    with client(1) as http:
        for url in names:
            try:
                there = Servers([url]).ask(lambda url: _list(http, url), patience, note)
            except Unanswered as end:
                raise CurateError(f"{url}: no answer ({end.why}). Is the server up?") from None
            # Servers don't report it for adapters.
            room = max((entry.get("max_model_len") or 0 for entry in there.values()), default=0)
            for model in models:
                name = model.name if model.name in there else model.reference
                if name not in there:
                    raise CurateError(
                        f"{url}: serves no model called {model.name}, but "
                        f"{', '.join(sorted(there))}. Write SERVED={model.reference}."
                    )
                # It can score one token less than its context, because it also generates one.
                longest = (there[name].get("max_model_len") or math.inf) - (not compute.writes)
                if longest < (compute.max_length or math.inf):
                    raise CurateError(
                        f"{url}: reads at most {longest} tokens. Use --max-length {longest} or "
                        "less, or serve the model with a larger --max-model-len."
                    )
                names[url].append(name)
                _warn(model, there[name], room, url, note)
    return names


def _list(http: httpx.Client, url: str) -> dict[str, dict[str, Any]]:
    """A server's information on its models, by their served names."""
    answer = accepted(http.get(f"{url}/models", timeout=30.0), url)
    try:
        return {str(one["id"]): dict(one) for one in answer.json()["data"]}
    except (ValueError, LookupError, TypeError):
        raise CurateError(
            f"{url}: not an OpenAI-compatible server. /models returned {answer.status_code} "
            "instead of a list of models."
        ) from None


def _warn(
    model: Model, entry: dict[str, Any], room: int, url: str, note: Callable[[str], None]
) -> None:
    """Warn if a vLLM server with this context would score a model wrongly."""
    as_adapter = entry.get("parent", "?") is not None  # for an adapter, vLLM gives its base here
    if as_adapter and (reason := why_merged(model, Engine())):
        note(f"{model.name}: {reason}, which vLLM can't score as an adapter. Serve it merged.")
    limit = short_limit(model.path)
    if limit is not None and room > limit:
        note(
            f"{model.name}: above {limit} tokens its rotary factors change (longrope), and {url}, "
            f"which reads {room}, uses those of long texts for all. Serve it with "
            f"--max-model-len {limit}."
        )
