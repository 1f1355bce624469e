"""A corpus to a bucket and back: parts first, whose names carry digests, then `head.json`.

The head lists the parts of a corpus. It is written only if nobody has written it since it was read.
Parts that no head lists were left by an interrupted push; they only take space.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from curate.corpus.corpus import Corpus, write_database
from curate.errors import CurateError
from curate.storage import documents, manifest, parts
from curate.storage.locking import PULLING, locked
from curate.storage.manifest import NAME_OF_MODEL, TEMPLATE, Manifest
from curate.system import buckets
from curate.system.hub import MB
from curate.system.progress import Progress, Silent

if TYPE_CHECKING:
    from obstore.store import ObjectStore

HEAD: Final = "head.json"
KNOWN: Final = ".remote.json"
"""In a corpus: by address, which version of the head it was last pushed as or pulled from."""
AT_ONCE = 4
_PART = re.compile(
    rf"(?:examples|skipped|proxy|scores/{NAME_OF_MODEL.pattern})/part-\d{{6,}}-[0-9a-f]{{16}}\.parquet"
)

Version = dict[str, str]
"""What a bucket calls the state of an object: its `e_tag`, and on Google Cloud its `version`."""


@dataclass(frozen=True)
class Head:
    """A corpus as it was pushed: its manifest and template, and its parts with their bytes."""

    head_version: Literal[1]
    manifest: Manifest
    template: str | None
    parts: dict[str, int]


@dataclass(frozen=True)
class Moved:
    """What a push or pull did: it copied `moved` of the `parts` of the corpus, `bytes` in total."""

    corpus: str
    address: str
    parts: int
    moved: int
    bytes: int


def push(path: Path, address: str, progress: Progress | None = None) -> Moved:
    """Copy what a bucket lacks of a corpus there, and make it the corpus at this address.

    Raises:
        CurateError: the address has something that is not in this corpus; a part is damaged; the
            corpus is being written; or as in `buckets.call`. A failed push is not seen by a pull,
            and the next one continues it.
    """
    progress, address = progress or Silent(), _checked(address)
    manifest.load(path)
    with locked(path, command="push"):
        files = _files(path)
        template = path / TEMPLATE
        text = template.read_text("utf-8") if template.exists() else None
        sizes = {name: file.stat().st_size for name, file in files.items()}
        head = Head(1, manifest.load(path), text, sizes)
        if wrong := next((name for name in files if not _PART.fullmatch(name)), None):
            raise CurateError(f"{files[wrong]}: not a part that curate wrote. Remove it.")
        found, there = buckets.call(address, lambda store: _look(store, address))
        foreign = found[0].parts.keys() - sizes.keys() if found else ()
        if found and found[1] != _known(path).get(address) and foreign:
            raise CurateError(
                f"{address}: another run pushed parts that {path} lacks ({len(foreign):,}). Pull "
                "them into a new folder, or push to another address."
            )
        missing = [name for name in files if there.get(name) != sizes[name]]

        def send(name: str, store: ObjectStore) -> None:
            data = files[name].read_bytes()
            if parts.digest_of(data) != _digest(name):
                raise CurateError(f"{files[name]}: is damaged. Run `curate status --verify`.")
            store.put(name, data)

        _copy_all(address, "pushing", {name: sizes[name] for name in missing}, send, progress)
        before = found and found[1]
        write = partial(_write, address=address, head=head, before=before)
        version = buckets.call(address, write, buckets.PATIENT)
        _remember(path, address, version)
    moved = sum(sizes[name] for name in missing)
    return Moved(str(path), address, len(files), len(missing), moved)


def pull(address: str, path: Path, progress: Progress | None = None) -> Moved:
    """Copy the corpus at an address here, or what a corpus pulled before lacks of it.

    Raises:
        CurateError: nothing was pushed there, an object is damaged, the folder holds what the
            address lacks, or as in `buckets.call`. Parts that have arrived wait in the hidden
            folder `PULLING` for the next pull; none is seen before all are here.
    """
    progress, address = progress or Silent(), _checked(address)
    parts.refuse_address(path, corpus=True)
    with locked(path, command="pull"):
        found, _ = buckets.call(address, lambda store: _look(store, address))
        if found is None:
            raise CurateError(
                f"{address}: no corpus was pushed here ({HEAD} is missing). Check the address."
            )
        head, version = found
        here = _files(path)
        if foreign := here.keys() - head.parts.keys():
            raise CurateError(
                f"{path}: holds parts that {address} lacks ({len(foreign):,}). Pull into a new "
                "folder."
            )
        staged = path / PULLING
        missing = [name for name in head.parts if name not in here]
        wanted = [name for name in missing if not (staged / name).exists()]

        def fetch(name: str, store: ObjectStore) -> None:
            data = _part(store, address, name, head.parts[name])
            with parts.atomic(staged / name) as temporary:
                temporary.write_bytes(data)

        _copy_all(address, "pulling", {name: head.parts[name] for name in wanted}, fetch, progress)
        _install(path, head, missing)
        _remember(path, address, version)
    return Moved(
        str(path), address, len(head.parts), len(wanted), sum(head.parts[n] for n in wanted)
    )


def _checked(address: str) -> str:
    found = buckets.address_of(address)
    if found is None:
        raise CurateError(
            f"{address}: not in a bucket. Give s3://BUCKET/PATH, gs://... or abfs://...; between "
            "folders, use rsync."
        )
    return found


def _files(path: Path) -> dict[str, Path]:
    """A corpus's parts by their names in a bucket: those of examples first."""
    found = [part for folder in parts.folders_of(path) for part in parts.list_parts(folder)]
    return {part.relative_to(path).as_posix(): part for part in found}


def _digest(name: str) -> str:
    return name.rpartition("-")[2].removesuffix(".parquet")


def _look(store: ObjectStore, address: str) -> tuple[tuple[Head, Version] | None, dict[str, int]]:
    """The head at an address, if there is one, and all that lies there with its bytes."""
    found = _head(store, address)
    listed = [each for chunk in store.list() for each in chunk]
    return found, {each["path"]: each["size"] for each in listed}


def _head(store: ObjectStore, address: str) -> tuple[Head, Version] | None:
    try:
        answer = store.get(HEAD)
    except FileNotFoundError:
        return None
    meta = answer.meta
    try:
        head = TypeAdapter(Head).validate_json(bytes(answer.bytes()))
        wrong = [name for name in head.parts if not _PART.fullmatch(name)]
        wrong += [name for name in head.manifest.models if not NAME_OF_MODEL.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0][:80]!r} is no name of a part or a model")
    except (ValidationError, ValueError) as error:
        why = " ".join(str(error).splitlines()[:3])
        raise CurateError(
            f"{address}/{HEAD}: not what this version of curate pushes ({why}). Update curate, or "
            "push to another address."
        ) from None
    return head, _version(meta)


def _version(about: Mapping[str, Any]) -> Version:
    return {key: about[key] for key in ("e_tag", "version") if about[key]}


def _part(store: ObjectStore, address: str, name: str, size: int) -> bytes:
    """Fetch one part, and check that it is what was pushed."""
    try:
        answer = store.get(name)
        whole = answer.meta["size"] == size
        data = bytes(answer.bytes()) if whole else b""
    except FileNotFoundError:
        data, whole = b"", False
    if not whole or parts.digest_of(data) != _digest(name):
        raise CurateError(
            f"{address}/{name}: is damaged or missing. Delete it, then run `curate push` with a "
            "corpus that has it."
        )
    return data


def _write(store: ObjectStore, address: str, head: Head, before: Version | None) -> Version:
    """Write the head if it is still what it was `before`."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    text = orjson.dumps(asdict(head), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    condition: Any = before or "create"
    try:
        return _version(store.put(HEAD, text, mode=condition))
    except BaseError as error:
        now = _head(store, address)
        if now and now[0] == head:  # this write came through, but its reply was lost
            return now[1]
        if not isinstance(error, AlreadyExistsError | PreconditionError):
            raise
        raise CurateError(
            f"{address}: another run pushed meanwhile, so this push was not taken. Run it again to "
            "see what is there."
        ) from None


def _copy_all(
    address: str,
    label: str,
    sizes: Mapping[str, int],
    copy: Callable[[str, ObjectStore], None],
    progress: Progress,
) -> None:
    """Copy these parts, a few at a time; the first error ends all."""
    done = 0
    jobs = [partial(copy, name) for name in sizes]
    progress.start(label, sum(sizes.values()) // MB, "MB")
    try:
        copied = buckets.call_all(address, jobs, at_once=AT_ONCE)
        for size, _ in zip(sizes.values(), copied, strict=True):
            before, done = done, done + size
            progress.advance(done // MB - before // MB)
    finally:
        progress.stop()


def _install(path: Path, head: Head, names: Iterable[str]) -> None:
    """Move parts to their places once all are here, then write what makes them a corpus."""
    staged = path / PULLING
    for name in names:
        parts.move(staged / name, path / name)
    if head.template is not None:
        parts.write_text(path / TEMPLATE, head.template)
    manifest.save(head.manifest, path)
    shutil.rmtree(staged, ignore_errors=True)
    write_database(Corpus(path))


def _known(path: Path) -> dict[str, Version]:
    try:
        found: dict[str, Version] = documents.load(path / KNOWN)
        return found
    except (OSError, ValueError):
        return {}


def _remember(path: Path, address: str, version: Version) -> None:
    parts.write_text(path / KNOWN, orjson.dumps(_known(path) | {address: version}).decode())
