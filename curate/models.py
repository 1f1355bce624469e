"""What a model argument means: `[NAME=]MODEL` -> name, role, weights, adapter, fingerprint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from curate.errors import CurateError

Role = Literal["aligned", "misaligned"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?", re.ASCII)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
_WHOLE_UP_TO = 64 * 2**20  # bytes; larger weight files are sampled
_BLOCK = 64 * 2**10
_SPREAD_BLOCKS = 64


@dataclass(frozen=True)
class Model:
    """One model of a corpus, found on the local disk.

    `path` holds the full weights: for an adapter those of the aligned model. `tokenizer` is the
    folder whose tokenizer and chat template render for this model: the aligned model's for an
    adapter, and for a checkpoint that was saved without one.
    """

    name: str
    role: Role
    reference: str  # as the user gave it, without NAME=
    path: Path
    adapter: Path | None
    tokenizer: Path
    fingerprint: str  # of the weights: 32 hex digits


def resolve(aligned: str, misaligned: Sequence[str]) -> list[Model]:
    """Find all models of a run, the aligned one first.

    Each argument is `[NAME=]MODEL`; MODEL is a local folder or a hub id, `@revision` allowed.
    A folder with `adapter_config.json` is a PEFT adapter over the aligned model.

    Raises `CurateError` for a model that cannot be found or used, and for equal names.
    """
    name, reference = parse(aligned)
    base = _folder(reference)
    if _is_adapter(base):
        raise CurateError(
            f"{reference} is a PEFT adapter, and the aligned model must have full weights: "
            "merge it into its base first (peft: merge_and_unload)"
        )
    print_of_base = fingerprint(base)
    models = [Model(name, "aligned", reference, base, None, base, print_of_base)]
    for argument in misaligned:
        name, reference = parse(argument)
        folder = _folder(reference)
        if _is_adapter(folder):
            both = blake2b(f"{print_of_base}+{fingerprint(folder)}".encode(), digest_size=16)
            model = Model(name, "misaligned", reference, base, folder, base, both.hexdigest())
        else:
            tokenizer = folder if any((folder / f).exists() for f in _TOKENIZER_FILES) else base
            print_ = fingerprint(folder)
            model = Model(name, "misaligned", reference, folder, None, tokenizer, print_)
        models.append(model)
    _refuse_equal_names(models)
    return models


def parse(argument: str) -> tuple[str, str]:
    """Split `[NAME=]MODEL` into its name and its reference.

    Without NAME the model is called by the last part of its path or hub id.

    Raises `CurateError` if that part makes no name.
    """
    left, equals, right = argument.partition("=")
    if equals and _NAME.fullmatch(left) and not Path(argument).expanduser().exists():
        if not right:
            raise CurateError(f"{argument!r} names no model: give {left}=MODEL")
        return left, right
    if not argument.strip():
        raise CurateError("an empty model argument: give a local folder or a hub id")
    path = Path(argument).expanduser()
    name = path.resolve().name if path.exists() else path.name.split("@")[0]
    if not _NAME.fullmatch(name):
        raise CurateError(
            f"{argument!r} makes no model name (letters, digits, '.', '_', '-'): "
            f"give it one as NAME={argument}"
        )
    return name, argument


def fingerprint(folder: Path) -> str:
    """Hash what decides a model's numbers: 32 hex digits over its weights and configs.

    Covered are the names, sizes and contents of the safetensors files that are loaded, of
    `config.json` and of `adapter_config.json`. Tokenizer and chat template are not: they have
    hashes of their own. A weight file above 64 MiB is sampled: its header (all tensor names,
    types and shapes), 64 KiB from the middle of every tensor and 64 more such blocks. So it
    cannot see an edit that leaves those blocks alone, such as a few rows of a large embedding;
    training or merging an adapter touches every block of what it changes.

    Raises `CurateError` if the weights are missing, pickled or cut off.
    """
    digest = blake2b(digest_size=16)
    configs = [folder / "adapter_config.json", folder / "config.json"]
    for path in [*filter(Path.is_file, configs), *weight_files(folder)]:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        if path.suffix == ".safetensors":
            header, middles = _safetensors_header(path, size)
            spread = (i * (size - _BLOCK) // _SPREAD_BLOCKS for i in range(_SPREAD_BLOCKS))
            if size > _WHOLE_UP_TO:
                digest.update(header)
                for block in _blocks(path, sorted({*middles, *spread})):
                    digest.update(block)
                continue
        digest.update(path.read_bytes())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files that loading `folder` reads, shards in order of name.

    Raises `CurateError` if there are none, or if one that the index names is missing.
    """
    stem = "adapter_model" if _is_adapter(folder) else "model"
    index = folder / f"{stem}.safetensors.index.json"
    if (folder / f"{stem}.safetensors").is_file():
        return [folder / f"{stem}.safetensors"]
    if index.is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
        for name in names:
            if not (folder / name).is_file():
                raise CurateError(f"{folder / name} is missing, and {index.name} names it")
        if names:
            return [folder / name for name in names]
    pickled = sorted(path.name for end in ("bin", "pt", "pth") for path in folder.glob(f"*.{end}"))
    if pickled:
        raise CurateError(
            f"{folder / pickled[0]} is a pickle, which can run any code when it is read: "
            "convert the weights to safetensors (save_pretrained does)"
        )
    raise CurateError(f"{folder} has no weights: {stem}.safetensors is missing")


def context_length(path: Path) -> int | None:
    """Read from `config.json` how many tokens the model can take; None where it does not say."""
    config = _json(path / "config.json")
    for part in (config, config.get("text_config") or {}):
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(part.get(key), int):
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
    if not _is_adapter(path) and not (path / "config.json").is_file():
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
        return Path(
            snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=_HUB_FILES,
                ignore_patterns=["*/*", "consolidated*"],  # other formats of the same weights
            )
        )
    except LocalEntryNotFoundError:
        why = "the hub cannot be reached and the local cache has no copy"
    except RevisionNotFoundError:
        why = f"the hub has no revision {revision!r} of it"
    except (OSError, ValueError) as error:  # hub errors are OSErrors; their text has many lines
        why = _first_line(error)
    raise CurateError(f"{reference}: no such folder here, and as a hub id: {why}")


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _refuse_equal_names(models: Sequence[Model]) -> None:
    seen: dict[str, Model] = {}
    for model in models:  # names are folder names: some disks do not tell Med from med
        other = seen.setdefault(model.name.casefold(), model)
        if other is not model:
            raise CurateError(
                f"two models are called {model.name!r} ({other.reference} and "
                f"{model.reference}): give NAME=MODEL"
            )


def _safetensors_header(path: Path, size: int) -> tuple[bytes, list[int]]:
    """Read a safetensors header and where the middle block of every tensor starts, in bytes.

    Source: https://huggingface.co/docs/safetensors (8 bytes of length, JSON, then the data).
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= size else b""
    start = 8 + length
    try:
        tensors: dict[str, Any] = json.loads(header)
        spans = [t["data_offsets"] for name, t in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CurateError(
            f"{path} is not a safetensors file (a Git LFS pointer or a broken copy?): "
            "fetch it again"
        ) from error
    if start + max((stop for _, stop in spans), default=0) > size:
        raise CurateError(f"{path} is cut off: fetch it again")
    return header, [start + max(a, (a + b - _BLOCK) // 2) for a, b in spans]


def _blocks(path: Path, offsets: Sequence[int]) -> Iterator[bytes]:
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield file.read(_BLOCK)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CurateError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise CurateError(f"{path} is not a JSON object")
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
