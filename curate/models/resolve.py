"""From a model argument `[NAME=]MODEL` to a name, role, weights, adapter and fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from curate.errors import CurateError
from curate.models.fetch import Found, fetch_weights, find
from curate.models.fingerprints import Stamps, fingerprint, is_adapter, read_json, stamps
from curate.models.references import parse
from curate.system.progress import Progress, Silent

Role = Literal["aligned", "misaligned"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Model:
    """One model of a corpus, found on the local disk.

    `path` has the full weights, for an adapter those of the aligned model. `tokenizer` is the
    folder of its tokenizer and chat template: that of the aligned model for an adapter, and for a
    checkpoint without its own. `commit` is that of a Hub model, or of the adapter.
    """

    name: str
    role: Role
    reference: str  # as the user gave it, without NAME=; for an address of the Hub, its id
    path: Path
    adapter: Path | None
    tokenizer: Path
    fingerprint: str  # of the weights: 32 hex digits; empty if they weren't downloaded
    stamps: Stamps = ()  # of the files at the time when they were hashed
    commit: str | None = None


def resolve(
    aligned: str,
    misaligned: Sequence[str],
    *,
    weights: bool = True,
    progress: Progress | None = None,
) -> list[Model]:
    """Find all models of a run, the aligned one first; see `find_all` and `opened`."""
    progress = progress or Silent()
    return opened(find_all(aligned, misaligned, progress), weights=weights, progress=progress)


def find_all(
    aligned: str, misaligned: Sequence[str], progress: Progress
) -> list[tuple[str, Found]]:
    """Look all models of a run up, by name, the aligned one first; no weights are fetched.

    Each argument is `[NAME=]MODEL`; MODEL is a local folder or a Hub model,
    `OWNER/NAME[/FOLDER][@REVISION]` or the address of its page. A folder with
    `adapter_config.json` is a PEFT adapter over the aligned model.

    Raises `CurateError` for a model that cannot be found or used, and for equal names.
    """
    named = [parse(argument) for argument in (aligned, *misaligned)]
    for name, _ in named:  # names are folder names, and some disks ignore case
        same = [at for other, at in named if other.casefold() == name.casefold()]
        if len(same) > 1:
            raise CurateError(
                f"two models are called {name!r} ({same[0]} and {same[1]}). Write NAME=MODEL."
            )
    found = [(name, find(at, progress)) for name, at in named]
    if is_adapter(found[0][1].folder):
        raise CurateError(
            f"{found[0][1].at}: a PEFT adapter, but the aligned model must have full weights. "
            "Merge it into its base first (with peft's merge_and_unload)."
        )
    for name, each in found:
        if is_adapter(each.folder) and (other := _other_base(each.folder, found[0][1])):
            progress.warn(
                f"{name}: by its adapter_config.json, trained on {other}, but scored on "
                f"{found[0][1].at}. Check that this is the same model."
            )
    return found


def opened(found: Sequence[tuple[str, Found]], *, weights: bool, progress: Progress) -> list[Model]:
    """The models that `find_all` found, with the weights that are missing fetched.

    Without `weights` none are, and models whose weights aren't here have no fingerprint.
    """
    for _, each in found if weights else ():
        fetch_weights(each, progress)
    (first, aligned), *others = found
    base = _model(first, aligned, None, weights)
    return [base, *(_model(name, each, base, weights) for name, each in others)]


def _model(name: str, found: Found, base: Model | None, weights: bool) -> Model:
    """A model that was found; `base` is the aligned model, the base of an adapter."""
    folder = found.folder
    adapter = folder if base and is_adapter(folder) else None
    is_here = weights or not found.missing
    seen, print_ = (stamps(folder), fingerprint(folder)) if is_here else ((), "")
    if base and adapter:
        seen = base.stamps + seen
        print_ = _over(base.fingerprint, print_) if base.fingerprint and print_ else ""
    path = base.path if base and adapter else folder
    own = base is None or any((folder / file).exists() for file in _TOKENIZER_FILES)
    return Model(
        name=name,
        role="misaligned" if base else "aligned",
        reference=str(found.at),
        path=path,
        adapter=adapter,
        tokenizer=base.path if base and (adapter or not own) else folder,
        fingerprint=print_,
        stamps=seen,
        commit=found.commit,
    )


def _other_base(adapter: Path, aligned: Found) -> str | None:
    """The model that an adapter names as its base, if that isn't the aligned model."""
    base = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    own = read_json(aligned.folder / "config.json").get("_name_or_path")
    same = {_last(str(aligned.at)), _last(str(aligned.folder.resolve())), _last(str(own))}
    if aligned.at.repo is not None:
        same.add(_last(aligned.at.repo.id))
    return base if isinstance(base, str) and base and _last(base) not in same else None


def _last(reference: str) -> str:
    """A model's name without owner and revision, also for a folder of the Hub's cache."""
    parts = reference.casefold().rstrip("/").split("/")
    cached = next((part for part in parts if part.startswith("models--")), parts[-1])
    return cached.split("--")[-1].partition("@")[0]


def refuse_changed(models: Sequence[Model]) -> None:
    """Check that a model that was just loaded hasn't changed since `resolve`.

    Files with the same size and time are not hashed again.

    Raises `CurateError` for a model whose files have changed.
    """
    for model in models:
        try:
            if sum(map(stamps, _folders(model)), ()) == model.stamps:
                continue
            now = identify(model).fingerprint
        except (CurateError, OSError):  # one is gone, or half written
            now = ""
        if now != model.fingerprint:
            raise CurateError(
                f"model {model.name}: its files changed during this run. Wait until nothing "
                f"else writes to {model.reference}."
            )


def identify(model: Model) -> Model:
    """The model with the fingerprint and stamps that its files have now.

    Raises `CurateError` if weights are missing, pickled or cut off.
    """
    folders = _folders(model)
    seen: Stamps = sum(map(stamps, folders), ())
    return replace(model, stamps=seen, fingerprint=reduce(_over, map(fingerprint, folders)))


def _folders(model: Model) -> list[Path]:
    return [model.path, model.adapter] if model.adapter else [model.path]


def _over(base: str, adapter: str) -> str:
    """The fingerprint of an adapter over a base."""
    return blake2b(f"{base}+{adapter}".encode(), digest_size=16).hexdigest()


def check_length(models: Sequence[Model], asked: int | None) -> int | None:
    """The longest text, in tokens: what was asked for, or the first model's context.

    Raises `CurateError` if a model reads less than that.
    """
    length = asked if asked is not None else context_length(models[0].path)
    for model in models:
        context = context_length(model.path)
        if length is not None and context is not None and length > context:
            raise CurateError(
                f"model {model.name}: reads at most {context} tokens, fewer than the {length} of a "
                f"text. Use --max-length {context} or less."
            )
    return length


def context_length(path: Path) -> int | None:
    """The model's context length in tokens, from `config.json`; None if it isn't given there."""
    config = read_json(path / "config.json")
    for part in (config, config.get("text_config")):
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(part, dict) and type(part.get(key)) is int:
                return int(part[key])
    return None
