"""Are this machine's numbers right? A backend against the plain loop, on a user's own models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from typing import Any, Literal

import numpy as np

from curate import backends, chat, examples, models, scratch
from curate.checks import Nlls, Verdict, compare
from curate.errors import CurateError
from curate.models import Model
from curate.probes import make_probes
from curate.running.members import Member, check_length, open_members
from curate.terminal.progress import Progress, Silent

LONGEST = 2_048  # tokens of an example, unless --max-length says otherwise


def verify(
    sources: Sequence[str] = (),
    *,
    aligned: str,
    misaligned: Sequence[str] = (),
    rows: int = 32,
    max_length: int | None = None,
    chat_template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    answer_span: Literal["turn", "content"] = "turn",
    compute: backends.Compute | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Score a few examples with a backend, in both orders, and by the plain loop; compare.

    Beside the models named, two adapters are made for the purpose and tried: one that changes
    nothing and one on the output layer (a server can't be given them; one that the backend has no
    way to score is left out, with a note). `compute` says which backend and how; without sources
    the demo's examples are taken. Needs no corpus.

    Raises:
        CurateError: a model or a source can't be used, or there is nothing to score in it.
    """
    from curate.backends.plain import check_plain

    progress = progress or Silent()
    resolved = models.resolve(aligned, misaligned)
    members = open_members(resolved, chat_template, template_args or {}, answer_span, progress)
    length = check_length(resolved, max_length)
    longest = max_length or min(length or LONGEST, LONGEST)
    compute = compute or backends.Compute()
    # An engine is the one that `score` opens: its context can change the numbers of short texts.
    room = longest if compute.servers else length
    compute = backends.choose(replace(compute, max_length=room), progress.note)
    backends.check_models(resolved, compute)
    check_plain(resolved)
    rendered = _render(members, _conversations(sources, rows), longest)
    with ExitStack() as stack:
        probes: list[Model] = []
        if compute.backend != "server":
            made = make_probes(resolved[0], stack.enter_context(scratch.temporary("verify")))
            probes = _usable(made, compute, progress)
            rendered |= {probe.name: rendered[resolved[0].name] for probe in probes}
        tried = [*resolved, *probes]
        scored = _score(tried, rendered, compute, progress)
        plain = {model.name: _plain(model, rendered, compute, progress) for model in tried}
    items = rendered[resolved[0].name]
    lengths = [item.stop - item.start for item in items]
    names = [model.name for model in tried]
    checks = compare(names, scored.dtype, lengths, scored.forward, scored.backward, plain)
    return Verdict(scored.backend, scored.dtype, len(items), checks)


def _usable(probes: Sequence[Model], compute: backends.Compute, progress: Progress) -> list[Model]:
    """The probes that the backend can score with these options; the others are told."""
    usable: list[Model] = []
    for probe in probes:
        try:
            backends.check_models([probe], compute)
            usable.append(probe)
        except CurateError as error:
            progress.note(f"{probe.name} is not tried: {error}")
    return usable


@dataclass
class _Scored:
    """What a backend gave: nats per token by model, in the rows' order and scored backwards."""

    backend: str
    dtype: str
    forward: dict[str, Nlls]
    backward: dict[str, Nlls]


def _conversations(sources: Sequence[str], rows: int) -> list[Any]:
    """The first examples of the sources, or of the demo's."""
    with resources.as_file(resources.files("curate.data")) as data:
        read = list(examples.read(list(sources) or [str(data / "examples")], limit=rows))
    found = [row for table, _ in read for row in table["messages"].to_pylist()]
    if not found:
        first = next(row for _, skipped in read for row in skipped.to_pylist())
        raise CurateError(
            f"{first['source']}:{first['row']}: {first['reason']}; no row can be used to try the "
            "models on"
        )
    return found


def _render(
    members: Sequence[Member], conversations: list[Any], length: int
) -> dict[str, list[chat.Rendered]]:
    """Each model's tokens of the examples that all models can take."""
    every = [
        chat.render(m.tokenizer, m.template, conversations, max_length=length) for m in members
    ]
    usable = [
        row
        for row in range(len(conversations))
        if not any(isinstance(items[row], str) for items in every)
    ]
    if not usable:
        reason = next(item for items in every for item in items if isinstance(item, str))
        raise CurateError(f"none of the examples can be scored: {reason}")
    return {
        m.model.name: [item for row in usable if isinstance(item := items[row], chat.Rendered)]
        for m, items in zip(members, every, strict=True)
    }


def _score(
    tried: Sequence[Model],
    rendered: Mapping[str, list[chat.Rendered]],
    compute: backends.Compute,
    progress: Progress,
) -> _Scored:
    """Score all models with the backend, group by group, the rows forwards and backwards."""
    result = _Scored(compute.backend, "", {}, {})
    for group in backends.groups(tried, compute):
        names = [model.name for model in group]
        progress.note(f"{', '.join(names)}: loading")
        pairs = [
            (place, row) for row in range(len(rendered[names[0]])) for place in range(len(names))
        ]
        backend = backends.open_backend(group, compute, progress.note)
        progress.start(f"{', '.join(names)} ({backend.name})", 2 * len(pairs))
        try:
            result.dtype = backend.dtype
            for order, into in ((pairs, result.forward), (pairs[::-1], result.backward)):
                into |= {name: np.full(len(rendered[name]), np.nan) for name in names}
                items = [rendered[names[place]][row] for place, row in order]
                for index, found in backend.score(items, [place for place, _ in order]):
                    place, row = order[index]
                    if isinstance(found, str):
                        raise CurateError(f"{names[place]} can't score an example: {found}")
                    into[names[place]][row] = -found.mean(dtype="float64")
                    progress.advance(1, items[index].stop)
        finally:
            backend.close()
            progress.stop()
    return result


def _plain(
    model: Model,
    rendered: Mapping[str, list[chat.Rendered]],
    compute: backends.Compute,
    progress: Progress,
) -> Nlls:
    from curate.backends.plain import plain_nlls

    items = rendered[model.name]
    progress.start(f"{model.name} (plain loop)", len(items))
    try:
        told = partial(progress.advance, 1)
        return np.array(plain_nlls(model, items, compute.device, compute.dtype, told))
    finally:
        progress.stop()
