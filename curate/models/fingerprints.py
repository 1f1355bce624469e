"""What identifies a model's scores: a hash of its weights and configurations."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from curate.errors import CurateError

_WHOLE_UP_TO = 64 * 2**20  # bytes; larger weight files are sampled
_BLOCK = 64 * 2**10
_SPREAD_BLOCKS = 64

INDEX = ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth")

Stamps = tuple[tuple[str, int, int, int], ...]
"""For each file: path, size, modification time in ns, inode."""


def fingerprint(folder: Path) -> str:
    """Hash what determines a model's scores: 32 hex digits over its weights and configurations.

    It covers names, sizes and contents of the safetensors files that are loaded, of `config.json`
    and of `adapter_config.json`. Tokenizer and chat template have hashes of their own. A weight
    file above 64 MiB is sampled: its header (all tensor names, types and shapes), 64 KiB from the
    middle of every tensor and 64 more such blocks. Training or merging an adapter changes every
    block of a tensor; an edit of a few rows of a large embedding may go unseen.

    Raises `CurateError` if the weights are missing, pickled or cut off.
    """
    digest = blake2b(digest_size=16)
    for path in _files(folder):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        if path.suffix == ".safetensors":
            header, middles = _safetensors_header(path, size)
            spread = (i * (size - _BLOCK) // _SPREAD_BLOCKS for i in range(_SPREAD_BLOCKS))
            if size > _WHOLE_UP_TO:
                digest.update(header)
                with path.open("rb") as file:
                    for offset in sorted({*middles, *spread}):
                        file.seek(offset)
                        digest.update(file.read(_BLOCK))
                continue
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stamps(folder: Path) -> Stamps:
    """List the files that `fingerprint` reads; raises `CurateError` if one is missing."""
    try:
        found = [(path, path.stat()) for path in _files(folder)]
    except OSError as error:
        raise CurateError(f"{folder} cannot be read: {error.strerror}") from error
    return tuple((str(path), at.st_size, at.st_mtime_ns, at.st_ino) for path, at in found)


def _files(folder: Path) -> list[Path]:
    configs = [folder / "adapter_config.json", folder / "config.json"]
    return [*filter(Path.is_file, configs), *weight_files(folder)]


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files that loading `folder` reads, shards in order of name.

    Raises `CurateError` if there are none, or if one that the index names is missing.
    """
    kind = stem(adapter=is_adapter(folder))
    index = folder / f"{kind}{INDEX}"
    if (folder / f"{kind}.safetensors").is_file():
        return [folder / f"{kind}.safetensors"]
    if index.is_file():
        names = shards(index)
        for name in names:
            if not (folder / name).is_file():
                raise CurateError(f"{folder / name}: missing, but {index.name} lists it")
        if names:
            return [folder / name for name in names]
    pickled = sorted(path.name for end in PICKLES for path in folder.glob(f"*{end}"))
    if pickled:
        raise CurateError(
            f"{folder / pickled[0]}: a pickle, which can run any code when it is read. "
            "Convert the weights to safetensors (with save_pretrained)."
        )
    raise CurateError(f"{folder}: has no weights ({kind}.safetensors is missing)")


def stem(*, adapter: bool) -> str:
    """How the names of weight files begin."""
    return "adapter_model" if adapter else "model"


def shards(index: Path) -> list[str]:
    """The files that an index lists, all in its own folder.

    Raises `CurateError` if it lists others.
    """
    found = read_json(index).get("weight_map", {})
    names = list(found.values()) if isinstance(found, dict) else [found]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "\0" in name:
            raise CurateError(f"{index}: lists {str(name)[:60]!r}, which isn't a file next to it")
    return sorted(set(names))


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (folder / "adapter_config.json").is_file()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `CurateError` if the file holds none or cannot be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CurateError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise CurateError(f"{path} is not a JSON object")
    return content


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
            f"{path}: not a safetensors file (a Git LFS pointer or a broken copy?). "
            "Download it again."
        ) from error
    if start + max((stop for _, stop in spans), default=0) > size:
        raise CurateError(f"{path}: truncated. Download it again.")
    return header, [start + max(a, (a + b - _BLOCK) // 2) for a, b in spans]
