"""What servers have: the models' names at each, found before they are asked to score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from curate.backends import Compute
from curate.backends.asking import Unanswered, accepted, address, ask, client
from curate.errors import CurateError
from curate.models import Model

FIRST_PATIENCE = 5.0
"""Seconds for which a server is looked for before a run: one that is not there is a mistake."""


def check(
    models: Sequence[Model],
    compute: Compute,
    patience: float = FIRST_PATIENCE,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, list[str]]:
    """By each server's address the names under which it has the models, in the models' order.

    Raises `CurateError` for a server that is not there after `patience` seconds or wants a key, a
    model that it doesn't serve, or one whose context is too short.
    """
    for package in ("httpx", "tenacity"):
        try:
            __import__(package)
        except ImportError:
            raise CurateError(
                f"--backend server needs {package}: pip install 'curate[server]'"
            ) from None
    if compute.in_flight < 1:
        raise CurateError(f"--in-flight must be at least 1, not {compute.in_flight}")
    names: dict[str, list[str]] = {}
    urls = [address(url) for url in compute.servers]
    with client(1) as http:
        for url in urls:
            try:
                there = ask([url], lambda url: _list(http, url), patience, note)
            except Unanswered as end:
                raise CurateError(f"{url} doesn't answer ({end.why}): is the server up?") from None
            names[url] = [_name(model, there, url) for model in models]
            for name in names[url]:
                _check_length(there[name], compute.max_length, url)
    return names


def _list(http: Any, url: str) -> dict[str, int | None]:
    """The context lengths of the models that a server has, by their served names."""
    answer = accepted(http.get(f"{url}/models", timeout=30.0), url)
    try:
        found = {one["id"]: one.get("max_model_len") for one in answer.json()["data"]}
        if any(type(name) is not str for name in found):
            raise TypeError
        if any(n is not None and (type(n) is not int or n < 2) for n in found.values()):
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
