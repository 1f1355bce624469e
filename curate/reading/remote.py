"""Files of other file systems that `fsspec` knows: `s3://`, `gs://`, `abfs://`, `https://`, ..."""

from __future__ import annotations

import io
import re
from glob import has_magic
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.registry import known_implementations

from curate.errors import CurateError
from curate.reading import folders
from curate.reading.addresses import Source

TRIES = 3  # at reading a piece of a file
_WEB = ("http://", "https://")
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#][^\s'\"]*")


def find(address: str) -> list[Source]:
    """The data files that an address means: a file, a folder or a glob; of the web a file.

    Raises:
        CurateError: nothing is there that curate reads, or the library for it isn't installed.
    """
    name = name_of(address)
    try:
        system, path = fsspec.url_to_fs(address)
        if address.startswith(_WEB):
            about = system.info(path)
            if "html" in (about.get("mimetype") or ""):
                raise CurateError(f"{name}: a page. Give the address of the file itself.")
            files = [address]
        elif system.isfile(path):
            files = [address]
        elif has_magic(path):
            top = folders.top_of(path)
            found = folders.of_glob(name, path, folders.below(system.glob(path), top))
            files = [system.unstrip_protocol(f"{top}/{each}") for each in found]
        elif system.isdir(path):
            found = folders.of_folder(name, folders.below(system.find(path), path))
            files = [system.unstrip_protocol(f"{path.rstrip('/')}/{each}") for each in found]
        else:
            raise FileNotFoundError("there is no such file or folder")
    except CurateError:
        raise
    except ImportError as error:
        raise CurateError(f"{name}: needs a library. {_install(address, error)}") from error
    except Exception as error:  # each file system has errors of its own
        raise CurateError(f"{name}: can't be read ({_brief(error)}).") from error
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
        system, path = fsspec.url_to_fs(address)
        file = system.open(path, "rb")
    except Exception as error:
        raise OSError(_brief(error)) from error
    return io.BufferedReader(_Steady(file)), getattr(file, "size", None) or 0


class _Steady(io.RawIOBase):
    """A remote file that is read again where it fails, and then fails with an OSError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer.

        Raises:
            OSError: it failed `TRIES` times.
        """
        for left in reversed(range(TRIES)):
            try:
                at = self._file.tell()
                count: int = self._file.readinto(buffer)
                return count
            except Exception as error:
                if not left or self._file.tell() != at:
                    raise OSError(_brief(error)) from error
        raise AssertionError

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


def _install(address: str, error: ImportError) -> str:
    """The command that installs what reads such addresses."""
    protocol = urlsplit(address).scheme
    module = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
    return f"Install it: pip install {module}" if module != "fsspec" else f"{error}."


def _brief(error: Exception) -> str:
    """An error in a line; of the web what is behind it, without what may be a key."""
    text = " ".join(str(error.__cause__ or error).split())
    return _QUERY.sub(r"\1", text)[:200].rstrip(".") or type(error).__name__
