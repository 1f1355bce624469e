"""What a model argument means: `[NAME=]MODEL` -> name, role, weights, adapter, fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

    `path` holds the full weights: for an adapter those of the aligned model. `tokenizer` is the
    folder whose tokenizer and chat template encode for this model: the aligned model's for an
    adapter, and for a checkpoint that was saved without one. `commit` is that of a model of the
    hub, or of the adapter.
    """

    name: str
    role: Role
    reference: str  # as the user gave it, without NAME=; an address of the hub as its id
    path: Path
    adapter: Path | None
    tokenizer: Path
    fingerprint: str  # of the weights: 32 hex digits; empty if they weren't fetched
    stamps: Stamps = ()  # of the files that were hashed for it, when they were
    commit: str | None = None


def resolve(
    aligned: str,
    misaligned: Sequence[str],
    *,
    weights: bool = True,
    progress: Progress | None = None,
) -> list[Model]:
    """Find all models of a run, the aligned one first.

    Each argument is `[NAME=]MODEL`; MODEL is a local folder or a model of the hub,
    `OWNER/NAME[/FOLDER][@REVISION]` or its page's address. A folder with `adapter_config.json` is
    a PEFT adapter over the aligned model. Every model is looked up before the weights of any are
    fetched; without `weights` none are, and models whose weights aren't here have no fingerprint.

    Raises `CurateError` for a model that cannot be found or used, and for equal names.
    """
    progress = progress or Silent()
    named = [parse(argument) for argument in (aligned, *misaligned)]
    for name, _ in named:  # names are folder names: some disks do not tell Med from med
        same = [at for other, at in named if other.casefold() == name.casefold()]
        if len(same) > 1:
            raise CurateError(
                f"two models are called {name!r} ({same[0]} and {same[1]}): give NAME=MODEL"
            )
    found = [find(at, progress) for _, at in named]
    if is_adapter(found[0].folder):
        raise CurateError(
            f"{found[0].at} is a PEFT adapter, and the aligned model must have full weights: "
            "merge it into its base first (peft: merge_and_unload)"
        )
    for (name, _), each in zip(named, found, strict=True):
        if is_adapter(each.folder) and (other := _other_base(each.folder, found[0])):
            progress.note(
                f"{name}: was trained over {other} by its adapter_config.json, and is scored over "
                f"{found[0].at}: check that this is the same model"
            )
    for each in found if weights else ():
        fetch_weights(each, progress)
    base = _model(named[0][0], found[0], None, weights)
    rest = zip(named[1:], found[1:], strict=True)
    return [base, *(_model(name, each, base, weights) for (name, _), each in rest)]


def _model(name: str, found: Found, base: Model | None, weights: bool) -> Model:
    """A model that was found; `base` is the aligned one, which an adapter stands on."""
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
    """The model that an adapter names as its base, if that is another one than the aligned."""
    base = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    own = read_json(aligned.folder / "config.json").get("_name_or_path")
    same = {_last(str(aligned.at)), _last(str(aligned.folder.resolve())), _last(str(own))}
    if aligned.at.repo is not None:
        same.add(_last(aligned.at.repo.id))
    return base if isinstance(base, str) and base and _last(base) not in same else None


def _last(reference: str) -> str:
    """A model's name without its owner and revision; also of a folder in the hub's cache."""
    parts = reference.casefold().rstrip("/").split("/")
    cached = next((part for part in parts if part.startswith("models--")), parts[-1])
    return cached.split("--")[-1].partition("@")[0]


def refuse_changed(models: Sequence[Model]) -> None:
    """Check that what was just loaded is what `resolve` found, perhaps hours ago.

    Files that look as they did are not hashed again.

    Raises `CurateError` for a model whose files are others now.
    """
    for model in models:
        folders = [model.path, model.adapter] if model.adapter else [model.path]
        try:
            if sum(map(stamps, folders), ()) == model.stamps:
                continue
            now = reduce(_over, map(fingerprint, folders))
        except (CurateError, OSError):  # one is gone, or half written
            now = ""
        if now != model.fingerprint:
            raise CurateError(
                f"model {model.name}: its files changed since this run began; wait until nothing "
                f"writes to {model.reference} any more"
            )


def _over(base: str, adapter: str) -> str:
    """The fingerprint of an adapter over a base."""
    return blake2b(f"{base}+{adapter}".encode(), digest_size=16).hexdigest()


def context_length(path: Path) -> int | None:
    """Read from `config.json` how many tokens the model can take; None where it does not say."""
    config = read_json(path / "config.json")
    for part in (config, config.get("text_config")):
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(part, dict) and type(part.get(key)) is int:
                return int(part[key])
    return None
