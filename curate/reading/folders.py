"""Which files of a folder are data, by their names, and which only describe it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from glob import has_magic
from itertools import takewhile
from os.path import commonprefix
from pathlib import PurePosixPath
from typing import Any

from curate.errors import CurateError
from curate.storage.manifest import NAME as CORPUS

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2"}
ENDINGS = f"{' '.join(KINDS)}, each also with {' '.join(COMPRESSIONS)}"
DESCRIBING = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Written by `datasets` next to its files; the first is also LLaMA-Factory's list of datasets."""
MANIFEST = ".manifest.json"
"""The ending of the manifest that an export writes next to its file."""
ANSWERS = f"answers{MANIFEST}"
"""The manifest in a folder of `curate answer`, whose parts are one source."""
_SIGNS = {CORPUS: b"", "head.json": b'"head_version"', "manifest.json": b'"curate"'}
"""Files of corpora, of pushed ones and of exports in folders, and what these files begin with."""
_MADE = re.compile(r"cache-\w+\.arrow")  # what `datasets` keeps of a map or a filter
_SPLIT = re.compile(
    r"(?:^|[-._ 0-9/])(?:(?P<train>train(?:ing)?)|(?P<validation>validation|valid|val|dev)"
    r"|(?P<test>test(?:ing)?|eval(?:uation)?))[-._ 0-9/]"
)


def kind_of(name: str) -> tuple[str, str | None]:
    """Return a file's kind ('' if unknown) and its compression, from its endings."""
    path = PurePosixPath(name.lower())
    compression = COMPRESSIONS.get(path.suffix)
    kind = PurePosixPath(path.stem).suffix if compression else path.suffix
    return (kind if kind in KINDS else ""), compression


def data_files(names: Iterable[str], *, hidden: bool = False) -> list[str]:
    """The files that hold rows, sorted. Names are relative to the folder in the argument."""

    def holds_rows(name: str) -> bool:
        *_, last = parts = name.split("/")
        if not kind_of(last)[0] or last in DESCRIBING or last.endswith(MANIFEST):
            return False
        if _MADE.fullmatch(last):
            return False
        return hidden or not any(part.startswith(".") for part in parts)

    return sorted(filter(holds_rows, names))


def foreign(source: str, names: Iterable[str], system: Any, top: str) -> list[str]:
    """The files that curate didn't write, without corpora, exports and manifests.

    Otherwise, the next run would read a corpus that is stored next to its sources. `names` are
    relative to the folder `top` of a file system of fsspec; folders above it are not checked.

    Raises:
        CurateError: curate wrote all that holds rows.
    """
    names = list(names)

    @cache
    def inside(folder: str) -> set[str]:
        paths = system.ls(f"{top}/{folder}".rstrip("/"), detail=False)
        return {path.rpartition("/")[2] for path in paths}

    @cache
    def is_ours(folder: str) -> bool:
        for name in _SIGNS.keys() & inside(folder):
            path = "/".join(filter(None, (top, folder, name)))
            with suppress(OSError):
                if _SIGNS[name] in system.cat_file(path, start=0, end=4096):
                    return True
        return bool(folder) and is_ours(folder.rpartition("/")[0])

    def is_foreign(name: str) -> bool:
        folder, _, last = name.rpartition("/")
        if last.endswith((MANIFEST, ".left-out.csv")) or f"{last}{MANIFEST}" in inside(folder):
            return False
        return not is_ours(folder)

    found = list(filter(is_foreign, names))
    if data_files(names) and not data_files(found):
        raise CurateError(f"{source}: has only files that curate wrote. Give the files themselves.")
    return found


def of_folder(source: str, names: Iterable[str]) -> list[str]:
    """The data files of a folder with these files.

    Raises:
        CurateError: there are none, or their names belong to several splits.
    """
    names = list(names)
    found = data_files(names)
    if not found:
        raise CurateError(f"{source}: no file in this folder ends in {ENDINGS}.")
    saved = "dataset_dict.json" in names  # by DatasetDict.save_to_disk: a folder for each split
    splits: dict[str, list[str]] = {}
    for name in found:
        if saved and "/" in name:
            splits.setdefault(name.split("/")[0], []).append(name)
        elif match := _SPLIT.search(name):
            splits.setdefault(match.lastgroup or "", []).append(name)
    if len(splits) < 2:
        return found
    at = source.rstrip("/")
    ways = " or ".join(f"'{at}/{_glob(files, found)}'" for files in splits.values())
    raise CurateError(f"{source}: which split? Give {ways}; '{at}/**' for all of them.")


def of_glob(source: str, pattern: str, names: Iterable[str]) -> list[str]:
    """The data files among those that a glob matches, by their names below `top_of` it.

    Raises:
        CurateError: there are none.
    """
    asked = pattern.removeprefix(top_of(pattern)).split("/")
    found = data_files(names, hidden=any(part.startswith(".") for part in asked))
    if not found:
        raise CurateError(f"{source}: matches no file that ends in {ENDINGS}.")
    return found


def check_kind(name: str) -> None:
    """Reject a file with an unknown extension."""
    if not kind_of(name)[0]:
        raise CurateError(f"{name}: unknown extension. Known are {ENDINGS}.")


def below(names: Iterable[str], folder: str) -> list[str]:
    """The names of the files in a folder, relative to it."""
    start = f"{folder.strip('/')}/" if folder.strip("/") else ""
    relative = (name.lstrip("/") for name in names)
    return [name.removeprefix(start) for name in relative if name.startswith(start)]


def top_of(pattern: str) -> str:
    """The folder in which a glob searches."""
    return "/".join(takewhile(lambda part: not has_magic(part), pattern.split("/")))


def _glob(files: list[str], all_files: list[str]) -> str:
    """A path or glob that matches exactly these files of a folder."""
    start = commonprefix(files)  # noqa: RUF071 - of the names, not of their parts
    folder = start.rpartition("/")[0]
    if len(files) == 1:
        return start
    for pattern, prefix in ((folder, f"{folder}/"), (f"{start}*", start)):
        if pattern and [name for name in all_files if name.startswith(prefix)] == files:
            return pattern
    return files[0]
