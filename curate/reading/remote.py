"""Files of buckets (`s3://`, `gs://`, `abfs://`), the web, and what else `fsspec` knows."""

from __future__ import annotations

import io
import re
from glob import has_magic
from typing import Any

import fsspec

from curate.errors import CurateError
from curate.reading import folders
from curate.reading.addresses import Source
from curate.system import buckets

TRIES = 3  # at reading a piece of a file
SILENCE = 10.0  # seconds without a byte, or a connection, after which the web doesn't answer
_WEB = ("http://", "https://")
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#][^\s'\"]*")


def find(address: str) -> list[Source]:
    """The data files that an address means: a file, a folder or a glob; of the web a file.

    Raises:
        CurateError: nothing is there that curate reads, or the library for it isn't installed.
    """
    name = name_of(address)
    try:
        system, path = _file_system(address)
        if has_magic(path) and not address.startswith(_WEB) and not system.isfile(path):
            top = folders.top_of(path)
            names = folders.foreign(name, folders.below(system.glob(path), top), system, top)
            found = folders.of_glob(name, path, names)
            files = [system.unstrip_protocol(f"{top}/{each}") for each in found]
        elif "html" in ((about := system.info(path)).get("mimetype") or ""):
            raise CurateError(f"{name}: a page. Give the address of the file itself.")
        elif about["type"] == "directory":
            top = path.rstrip("/")
            found = system.find(path)
            names = folders.foreign(name, folders.below(found, path), system, top)
            names = folders.of_folder(name, names)
            files = [system.unstrip_protocol(f"{top}/{each}") for each in names]
            if f"{top}/{folders.ANSWERS}" in found:
                return [Source(address, tuple(files))]
        else:
            files = [address]
    except CurateError:
        raise
    except ImportError as error:
        raise CurateError(f"{name}: needs a library. {error}.") from error
    except Exception as error:  # each file system has errors of its own
        raise CurateError(f"{name}: can't be read: {_brief(address, error)}.") from error
    for file in files:
        folders.check_kind(name_of(file))
    return [Source(name_of(file), (file,)) for file in files]


def name_of(file: str) -> str:
    """A file as tables and messages name it: of the web without its query, which may be a key."""
    return file.partition("?")[0].partition("#")[0] if file.startswith(_WEB) else file


def open_file(address: str) -> tuple[io.BufferedReader, int]:
    """Open a file for reading, and tell its size in bytes (0: not known).

    Raises:
        OSError: it can't be opened.
    """
    try:
        system, path = _file_system(address)
        file = system.open(path, "rb")
    except Exception as error:
        raise OSError(_brief(address, error)) from error
    return io.BufferedReader(_Steady(address, file)), getattr(file, "size", None) or 0


def _file_system(address: str) -> tuple[Any, str]:
    if buckets.address_of(address):
        return buckets.file_system(address)
    options = {}
    if address.startswith(_WEB):
        import aiohttp

        # Its own limit, five minutes in all, would end the reading of a large file.
        silence = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        options = {"client_kwargs": {"timeout": silence}}
    found: tuple[Any, str] = fsspec.url_to_fs(address, **options)
    return found


class _Steady(io.RawIOBase):
    """A remote file that is read again where it fails, and then fails with an OSError."""

    def __init__(self, address: str, file: Any) -> None:
        self._address, self._file = address, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for left in reversed(range(TRIES)):
            try:
                at = self._file.tell()
                count: int = self._file.readinto(buffer)
                return count
            except Exception as error:
                if not left or self._file.tell() != at:
                    raise OSError(_brief(self._address, error)) from error
        raise AssertionError

    def close(self) -> None:
        self._file.close()
        super().close()


def _brief(address: str, error: Exception) -> str:
    """An error in a line; of the web what is behind it, without what may be a key."""
    if buckets.address_of(address):
        return buckets.reason(address, error)
    if isinstance(error, FileNotFoundError) and error.__cause__ is None:
        return "there is no such file or folder"
    text = " ".join(str(error.__cause__ or error).split())
    return _QUERY.sub(r"\1", text)[:200].rstrip(".") or type(error).__name__
