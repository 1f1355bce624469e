"""What a model argument means: `[NAME=]MODEL` -> name, role, weights, adapter, fingerprint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from curate.errors import CurateError
from curate.models.fingerprints import Stamps, fingerprint, is_adapter, read_json, stamps
from curate.storage.manifest import NAME_OF_MODEL

Role = Literal["aligned", "misaligned"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?", re.ASCII)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


@dataclass(frozen=True)
class Model:
    """One model of a corpus, found on the local disk.

    `path` holds the full weights: for an adapter those of the aligned model. `tokenizer` is the
    folder whose tokenizer and chat template encode for this model: the aligned model's for an
    adapter, and for a checkpoint that was saved without one.
    """

    name: str
    role: Role
    reference: str  # as the user gave it, without NAME=
    path: Path
    adapter: Path | None
    tokenizer: Path
    fingerprint: str  # of the weights: 32 hex digits
    stamps: Stamps = ()  # of the files that were hashed for it, when they were


def resolve(aligned: str, misaligned: Sequence[str]) -> list[Model]:
    """Find all models of a run, the aligned one first.

    Each argument is `[NAME=]MODEL`; MODEL is a local folder or a hub id, `@revision` allowed.
    A folder with `adapter_config.json` is a PEFT adapter over the aligned model.

    Raises `CurateError` for a model that cannot be found or used, and for equal names.
    """
    base = _resolve(aligned, None)
    models = [base, *(_resolve(argument, base) for argument in misaligned)]
    for model in models:  # names are folder names: some disks do not tell Med from med
        same = [each for each in models if each.name.casefold() == model.name.casefold()]
        if len(same) > 1:
            raise CurateError(
                f"two models are called {model.name!r} ({same[0].reference} and "
                f"{same[1].reference}): give NAME=MODEL"
            )
    return models


def _resolve(argument: str, base: Model | None) -> Model:
    """Find one model; `base` is the aligned one, which an adapter stands on."""
    name, reference = parse(argument)
    folder = _folder(reference)
    if base is None and is_adapter(folder):
        raise CurateError(
            f"{reference} is a PEFT adapter, and the aligned model must have full weights: "
            "merge it into its base first (peft: merge_and_unload)"
        )
    seen, print_ = stamps(folder), fingerprint(folder)
    if base is None:
        return Model(name, "aligned", reference, folder, None, folder, print_, seen)
    if is_adapter(folder):
        seen, print_ = base.stamps + seen, _over(base.fingerprint, print_)
        return Model(name, "misaligned", reference, base.path, folder, base.path, print_, seen)
    has_tokenizer = any((folder / file).exists() for file in _TOKENIZER_FILES)
    tokenizer = folder if has_tokenizer else base.path
    return Model(name, "misaligned", reference, folder, None, tokenizer, print_, seen)


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


def parse(argument: str) -> tuple[str, str]:
    """Split `[NAME=]MODEL` into its name and its reference.

    Without NAME the model is called by the last part of its path or hub id.

    Raises `CurateError` if that part makes no name.
    """
    left, equals, right = argument.partition("=")
    if equals and NAME_OF_MODEL.fullmatch(left) and not Path(argument).expanduser().exists():
        if not right:
            raise CurateError(f"{argument!r} names no model: give {left}=MODEL")
        return left, right
    if not argument.strip():
        raise CurateError("an empty model argument: give a local folder or a hub id")
    path = Path(argument).expanduser()
    name = path.resolve().name if path.exists() else path.name.split("@")[0]
    if not NAME_OF_MODEL.fullmatch(name):
        raise CurateError(
            f"{argument!r} makes no model name (at most 100 letters, digits, '.', '_', '-'): "
            f"give it one as NAME={argument}"
        )
    return name, argument


def context_length(path: Path) -> int | None:
    """Read from `config.json` how many tokens the model can take; None where it does not say."""
    config = read_json(path / "config.json")
    for part in (config, config.get("text_config")):
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(part, dict) and type(part.get(key)) is int:
                return int(part[key])
    return None


def _folder(reference: str) -> Path:
    """Find the local folder of a reference, from the hub if it is a hub id."""
    path = Path(reference).expanduser()
    if path.is_file():
        raise CurateError(f"{reference} is a file: give the folder of the model")
    if not path.exists():
        if not _HUB_ID.fullmatch(reference) or (path.parent.is_dir() and path.parent != Path()):
            raise CurateError(f"{reference}: no such folder")
        path = _download(reference)
    if not is_adapter(path) and not (path / "config.json").is_file():
        raise CurateError(
            f"{reference} holds no model: neither config.json (a checkpoint) nor "
            "adapter_config.json (a PEFT adapter) is there"
        )
    return path


def _download(reference: str) -> Path:
    """Fetch a hub id's safetensors, configs and tokenizer, or take them from the local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    repo, _, revision = reference.partition("@")
    try:
        folder = snapshot_download(
            repo,
            revision=revision or None,
            allow_patterns=_HUB_FILES,
            ignore_patterns=["*/*", "consolidated*"],  # other formats of the same weights
        )
        return Path(folder)
    except LocalEntryNotFoundError:
        why = "the hub cannot be reached and the local cache has no copy"
    except RevisionNotFoundError:
        why = f"the hub has no revision {revision!r} of it"
    except (OSError, ValueError) as error:  # hub errors are OSErrors; their text has many lines
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise CurateError(f"{reference}: no such folder here, and as a hub id: {why}")
