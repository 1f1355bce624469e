"""Checks a backend's numbers against the reference loop, with a user's own models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curate import backends
from curate.backends import base
from curate.backends.ray.cluster import leaving
from curate.chat.encode import Encoded, encode
from curate.errors import CurateError
from curate.models.resolve import Model, check_length, resolve
from curate.reading import examples
from curate.reading.sources import resolve as locate
from curate.scoring.members import Member, open_members
from curate.system import scratch
from curate.system.progress import Progress, Silent

LONGEST = 2_048  # tokens of an example, unless --max-length says otherwise


@leaving
def verify(
    sources: Sequence[str] = (),
    *,
    aligned: str,
    misaligned: Sequence[str] = (),
    rows: int = 32,
    max_length: int | None = None,
    chat_template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    compute: base.Compute | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Score a few examples with a backend, in both orders, and with the reference loop; compare.

    Besides the given models, two adapters are made and checked: one that changes nothing, and one
    on the output layer (not on a server; an adapter that the backend can't score is left out, with
    a note). `compute` describes the backend. Without sources, the demo's examples are used. Needs
    no corpus.

    Raises:
        CurateError: a model or a source can't be used, or there is nothing to score in it.
    """
    from curate.backends.weights import check

    progress = progress or Silent()
    resolved = resolve(aligned, misaligned, progress=progress)
    members = open_members(resolved, chat_template, template_args or {}, progress)
    length = check_length(resolved, max_length)
    longest = max_length or min(length or LONGEST, LONGEST)
    # Open the engine as `score` would: its context can change the numbers of short texts.
    room = longest if compute and compute.servers else length
    compute = backends.choose(base.settled(compute, room), progress.note)
    backends.check_models(resolved, compute)
    for model in resolved:  # the plain loop must load them too, whatever the backend does
        check(model, merged=False)
    encoded = _encode(members, _conversations(sources, rows), longest)
    tried = backends.on_site(_try, resolved, compute, progress, encoded)
    if len(tried) > 1:
        progress.note(f"tried on {len(tried)} machines; the worst numbers count")
    lengths = [item.stop - item.start for item in encoded[resolved[0].name]]
    each = [compare(at.names, at.dtype, lengths, *at.nlls) for at in tried]
    # Every machine made the same checks; the worst result of each counts.
    checks = [min(same, key=lambda c: (c.passed, -c.off)) for same in zip(*each, strict=True)]
    return Verdict(compute.backend, tried[0].dtype, len(lengths), checks)


class _Tried(NamedTuple):
    """One machine's results: the models' names, and NLLs in order, in reversed order, and plain."""

    names: list[str]
    dtype: str
    nlls: tuple[dict[str, Nlls], dict[str, Nlls], dict[str, Nlls]]


def _try(
    models: Sequence[Model],
    compute: base.Compute,
    progress: Progress,
    encoded: Mapping[str, list[Encoded]],
) -> _Tried:
    """Score the examples with models and probes, by the backend and by the plain loop."""
    tried, own = list(models), dict(encoded)
    with ExitStack() as stack:
        if compute.backend != "server":
            folder = stack.enter_context(scratch.temporary("verify"))
            tried += _usable(make_probes(models[0], folder), compute, progress)
        for probe in tried[len(models) :]:
            own[probe.name] = own[models[0].name]
        dtype, forward, backward = _score(tried, own, compute, progress)
        plain = {model.name: _plain(model, own[model.name], compute, progress) for model in tried}
    return _Tried([model.name for model in tried], dtype, (forward, backward, plain))


def _usable(probes: Sequence[Model], compute: base.Compute, progress: Progress) -> list[Model]:
    """The probes that the backend can score with these options; a note names the others."""
    usable: list[Model] = []
    for probe in probes:
        try:
            backends.check_models([probe], compute)
            usable.append(probe)
        except CurateError as error:
            progress.note(f"{probe.name} is not tried: {error}")
    return usable


def _conversations(sources: Sequence[str], rows: int) -> list[Any]:
    """Examples from the beginnings of all sources, or of the demo's."""
    with resources.as_file(resources.files("curate.data")) as data:
        files = locate(list(sources) or [str(data / "examples")])
        # Each file counts as an argument of its own, so that the limit applies to each.
        each = [replace(file, asked=file.name) for file in files]
        read = list(examples.read(each, limit=rows))
    found = [row for table, _ in read for row in table["messages"].to_pylist()]
    if not found:
        first = next(row for _, skipped in read for row in skipped.to_pylist())
        raise CurateError(
            f"{first['source']}:{first['row']}: {first['reason']}; no row can be used to try the "
            "models on"
        )
    return found[:: max(1, len(found) // rows)][:rows]


def _encode(
    members: Sequence[Member], conversations: list[Any], length: int
) -> dict[str, list[Encoded]]:
    """Each model's tokens of the examples that all models can take."""
    every = [encode(m.tokenizer, m.template, conversations, max_length=length) for m in members]
    usable = [
        items for items in zip(*every, strict=True) if all(isinstance(i, Encoded) for i in items)
    ]
    if not usable:
        reason = next(item for items in every for item in items if isinstance(item, str))
        raise CurateError(f"none of the examples can be scored: {reason}")
    return {member.model.name: [row[at] for row in usable] for at, member in enumerate(members)}


def _score(
    tried: Sequence[Model],
    encoded: Mapping[str, list[Encoded]],
    compute: base.Compute,
    progress: Progress,
) -> tuple[str, dict[str, Nlls], dict[str, Nlls]]:
    """The backend's dtype and NLLs by model, of the rows in order and in reversed order."""
    dtype, forward, backward = "", dict[str, Nlls](), dict[str, Nlls]()
    for group in backends.groups(tried, compute):
        names = [model.name for model in group]
        progress.note(f"{', '.join(names)}: loading")
        rows = range(len(encoded[names[0]]))
        pairs = [(place, row) for row in rows for place in range(len(names))]
        backend = backends.open_backend(group, compute, progress.note)
        progress.start(f"{', '.join(names)} ({backend.name})", 2 * len(pairs))
        try:
            dtype = backend.dtype
            for order, into in ((pairs, forward), (pairs[::-1], backward)):
                into |= {name: np.full(len(rows), np.nan) for name in names}
                items = [encoded[names[place]][row] for place, row in order]
                for index, found in backend.score(items, [place for place, _ in order]):
                    place, row = order[index]
                    if isinstance(found, str):
                        raise CurateError(f"{names[place]} can't score an example: {found}")
                    into[names[place]][row] = -found.mean(dtype="float64")
                    progress.advance(1, items[index].stop)
        finally:
            backend.close()
            progress.stop()
    return dtype, forward, backward


def _plain(model: Model, items: list[Encoded], compute: base.Compute, progress: Progress) -> Nlls:
    from curate.backends.plain import plain_nlls

    progress.start(f"{model.name} (reference loop)", len(items))
    try:
        advance = partial(progress.advance, 1)
        return np.array(plain_nlls(model, items, compute.device, compute.dtype, advance))
    finally:
        progress.stop()


LIMITS = {"float32": 1e-4}
"""Nats per answer token that an NLL may be off, by dtype; others have `COARSE_LIMIT`."""
COARSE_LIMIT = 2e-2
COARSE_TOKENS = 16
"""In half precision, one token can be off by more than the limit. The limit of a shorter answer
is therefore that of the total over this many tokens."""
RANK_LIMIT = 1e-3
"""1 minus the rank correlation, in half precision."""
RANK_ROWS = 200
"""Ranks of fewer examples are not compared: of 32, three swaps of neighbors, which rounding causes,
exceed the limit."""

Nlls = npt.NDArray[np.float64]
"""Nats per answer token of each example."""


@dataclass(frozen=True)
class Check:
    """One thing tried with one model: the largest distance in nats per token, and its limit."""

    model: str
    what: str
    off: float
    limit: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """What was tried on how many examples, with which backend, and whether all of it held."""

    backend: str
    dtype: str
    rows: int
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether the numbers can be relied on."""
        return all(check.passed for check in self.checks)


def compare(
    names: Sequence[str],
    dtype: str,
    lengths: Sequence[int],
    forward: Mapping[str, Nlls],
    backward: Mapping[str, Nlls],
    plain: Mapping[str, Nlls],
) -> list[Check]:
    """All checks, model by model; the first of `names` is the aligned one.

    `lengths`: answer tokens of each example. `forward` and `backward`: the backend's NLLs with
    the examples in order and in reversed order; `plain`: the reference loop's.
    """
    limit = LIMITS.get(dtype, COARSE_LIMIT)
    coarse = limit == COARSE_LIMIT
    share = np.minimum(lengths, COARSE_TOKENS) / COARSE_TOKENS if coarse else np.ones(len(lengths))
    aligned, checks = forward[names[0]], []

    def near(what: str, wanted: Nlls) -> None:  # NaN never is
        off = float((np.abs(found - wanted) * share).max())
        checks.append(Check(name, what, off, limit, off <= limit))

    for name in names:
        found = forward[name]
        near("equals the reference loop", plain[name])
        if coarse and len(found) >= RANK_ROWS:
            off = 1 - _rank_correlation(found, plain[name])
            checks.append(
                Check(name, "ranks like the reference loop", off, RANK_LIMIT, off <= RANK_LIMIT)
            )
        near("same in reversed order", backward[name])
        if name == NOTHING:
            near("zeros change nothing", aligned)
        elif name != names[0]:  # further apart than noise somewhere: the weights are in use
            off = float(np.abs(found - aligned).max())
            checks.append(Check(name, "differs from aligned", off, limit, off > limit))
    return checks


def _rank_correlation(found: Nlls, wanted: Nlls) -> float:
    """Spearman's."""
    a, b = (np.argsort(np.argsort(nlls, kind="stable")) for nlls in (found, wanted))
    return float(np.corrcoef(a, b)[0, 1])


RANK = 8
NOTHING, HEAD = "curate-nothing", "curate-head"


def make_probes(aligned: Model, folder: Path) -> list[Model]:
    """Write both adapters over the aligned model into a folder; its weights are not read.

    The first has factors of zeros over all inner linear layers, the second random ones over the
    output layer alone.
    """
    from curate.backends import weights

    net = weights.skeleton(aligned)
    head = net.get_output_embeddings()
    name = next(name for name, module in net.named_modules() if module is head)
    _write(net, "all-linear", 0.0, folder / NOTHING)
    _write(weights.skeleton(aligned), [name], 0.1, folder / HEAD)
    return resolve(str(aligned.path), [str(folder / NOTHING), str(folder / HEAD)])[1:]


def _write(net: Any, target: Any, size: float, folder: Path) -> None:
    """Save an adapter whose second factors have this standard deviation."""
    import peft
    import torch
    from safetensors.torch import save_file

    from curate.backends.weights import quiet

    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=target, task_type="CAUSAL_LM")
    generator = torch.Generator().manual_seed(0)
    with quiet():
        wrapped = peft.get_peft_model(net, config)
        shapes = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    tensors = {}
    for key, meta in sorted(shapes.items()):
        scale = size if "lora_B" in key else meta.shape[-1] ** -0.5
        tensors[key] = torch.randn(meta.shape, generator=generator) * scale
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    saved = wrapped.peft_config["default"]
    saved.inference_mode = True
    saved.save_pretrained(str(folder))
