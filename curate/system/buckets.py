"""Object storage: one client for S3, Google Cloud and Azure, stopped at once, errors in a line.

obstore, of the extra `remote`, reads credentials, regions and endpoints from the environment. Its
retries are bounded in all three alike, and it writes on conditions, which Arrow's file systems and
fsspec's can't.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from curate.errors import CurateError
from curate.system.stopping import apart

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from obstore.store import ObjectStore

KINDS = ("s3", "gs", "az", "abfs", "abfss")
QUICK, PATIENT = 15, 60
"""Seconds for one request: to look something up, and to send or fetch up to 5 MiB."""
BLOCK = 4 << 20
"""Bytes of a file that are asked for at a time."""
_ADDRESS = re.compile(rf"({'|'.join(KINDS)}):/+(.+)")
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure export-credentials --format "
    "env` prints them), or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_NO_KEYS = re.compile(r"/latest/(?:api|meta-data)/|token request|must be specified|Missing \w+Key")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_SERVER = re.compile(r"https?://[^\s/?]+")

Answer = TypeVar("Answer")


def address_of(path: str | Path) -> str | None:
    """The address in a bucket, if this is one; a Path keeps only one slash of two."""
    found = _ADDRESS.fullmatch(str(path))
    return f"{found[1]}://{found[2].rstrip('/')}" if found else None


def call(address: str, ask: Callable[[ObjectStore], Answer], seconds: int = QUICK) -> Answer:
    """Run `ask` with the bucket's folder at this address; no request takes longer than `seconds`.

    Raises:
        CurateError: the extra isn't installed, or what went wrong and what to do.
    """
    (found,) = call_all(address, [ask], seconds)
    return found


def call_all(
    address: str,
    asks: Iterable[Callable[[ObjectStore], Answer]],
    seconds: int = PATIENT,
    at_once: int = 1,
) -> Iterator[Answer]:
    """Run several, some of them at once, and give their answers in order; see `call`."""
    exceptions = _library(address).exceptions
    try:
        yield from _ask(address, asks, seconds, at_once)
    except (FileNotFoundError, ValueError, exceptions.BaseError) as error:
        raise CurateError(f"{address}: {reason(address, error)}") from None


def _ask(
    address: str,
    asks: Iterable[Callable[[ObjectStore], Answer]],
    seconds: int = QUICK,
    at_once: int = 1,
) -> Iterator[Answer]:
    """Run in threads, for which no stop waits: obstore's calls can't be interrupted.

    Its asynchronous calls can, but now and then abort a process that ends right after them.
    """
    store = _library(address).store.from_url(address, **_options(address, seconds))
    return apart([partial(ask, store) for ask in asks], at_once)


def upload(address: str, files: Mapping[str, Path | bytes]) -> None:
    """Put files into a bucket's folder, in this order: the last one says that all are there.

    If the last one exists already, it is removed first, so that it never stands beside other files.

    Raises:
        CurateError: see `call`.
    """
    *others, last = files

    def run(store: ObjectStore) -> None:
        with suppress(FileNotFoundError):
            if others and store.head(last):
                store.delete(last)
        for name, content in files.items():
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            store.put(name, content, attributes={"Content-Type": kind})

    call(address, run, PATIENT)


def exists(address: str, *, folder: bool = False) -> bool:
    """Whether there is an object at an address, or anything below it.

    Raises:
        CurateError: see `call`.
    """

    def look(store: ObjectStore) -> bool:
        if folder:
            return any(store.list(chunk_size=1))
        with suppress(FileNotFoundError):
            return bool(store.head(name))
        return False

    top, _, name = address.rpartition("/")
    return call(address if folder else top, look)


def file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """The address's file system as fsspec has them, and its path there.

    Raises:
        CurateError: the extra isn't installed, or the address holds a key.
    """
    from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

    _library(address)
    kind = address.partition(":")[0]

    def ask(path: str, what: Callable[[ObjectStore, str], Answer]) -> Answer:
        bucket, _, key = path.strip("/").partition("/")
        (found,) = _ask(f"{kind}://{bucket}", [lambda store: what(store, key)])
        return found

    class Bucket(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
        protocol = kind

        def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
            found = ask(path, lambda store, key: store.list_with_delimiter(key))
            top = path.strip("/").partition("/")[0]
            rows = [
                *({"name": f"{top}/{each['path']}", "type": "file"} for each in found["objects"]),
                *(
                    {"name": f"{top}/{each}", "type": "directory"}
                    for each in found["common_prefixes"]
                ),
            ]
            if not rows:
                raise FileNotFoundError(path)
            return rows if detail else [row["name"] for row in rows]

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            if "/" in path.strip("/"):  # S3 answers for a bucket as if it were an object
                with suppress(FileNotFoundError):
                    size = ask(path, lambda store, key: store.head(key))["size"]
                    return {"name": path, "size": size, "type": "file"}
            self.ls(path)
            return {"name": path, "size": 0, "type": "directory"}

        def cat_file(self, path: str, start: int = 0, end: int = 0, **_: Any) -> bytes:
            return ask(path, lambda store, key: bytes(store.get_range(key, start=start, end=end)))

        def _open(self, path: str, *_: Any, **__: Any) -> Any:
            return AbstractBufferedFile(self, path, block_size=BLOCK, cache_type="readahead")

    return Bucket(), Bucket._strip_protocol(address)


def reason(address: str, error: Exception) -> str:
    """What went wrong and what to do, without what may be a key."""
    text = str(error).partition("\n\nDebug source")[0]
    kind = address.partition(":")[0]
    keys = _KEYS.get(kind, _KEYS["az"])
    code = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code: (\d+)", text)
    server = _SERVER.search(text)
    if _NO_KEYS.search(text):
        return f"no credentials were found. Set {keys}"
    if _NO_BUCKET.search(text):
        return "there is no such bucket. Check its name"
    if re.search(r"status code: 40[13]", text):
        return f"refused ({code and code[1]}). Check the rights of your credentials, or set {keys}"
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder"
    if server and "error sending request" in text:
        return f"{server[0]} doesn't answer. Check the network, the region and the endpoint"
    if "redirect" in text:
        return "the bucket is in another region. Set AWS_REGION"
    if server and code:
        return f"{server[0]} answers {code[1]}"
    return " ".join(re.sub(r"https?://\S+", "", text).split())[:200]


def _library(address: str) -> Any:
    """Import obstore; a user and a password in an address are refused, and not repeated."""
    if re.search(r"://[^/]*:[^/]*@", address):
        raise CurateError(
            f"{address.partition(':')[0]}://...: contains a key, which would be stored with it. "
            "Set keys in the environment (docs/buckets.md)."
        )
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise CurateError(
            f"{address}: needs the extra `remote`. Install it from a clone: pip install '.[remote]'"
        ) from None
    return obstore


def _options(address: str, seconds: int) -> dict[str, Any]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    patient = seconds > QUICK
    return {
        "client_options": {
            "connect_timeout": "4s",
            "timeout": f"{seconds}s",
            "allow_http": address.startswith("s3:") and endpoint.startswith("http:"),
        },
        "retry_config": {
            "max_retries": 8 if patient else 3,
            "retry_timeout": timedelta(seconds=2 * seconds if patient else 10),
        },
    }
