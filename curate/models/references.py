"""What a MODEL argument names: a local folder, or a folder of a Hub repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from curate.errors import CurateError
from curate.storage.manifest import NAME_OF_MODEL
from curate.system.hub_errors import Repo

_HOW = "Write OWNER/NAME[/FOLDER][@REVISION] for a Hub model, or give a local folder."
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*(@[\w./%-]+)?", re.ASCII)
_WITH_COLON = re.compile(r"(?P<at>(hf://)?[\w.-]+/[\w./-]+):(?P<revision>[\w.-]+)", re.ASCII)
_ADDRESS = re.compile(r"([a-z0-9]+:/|huggingface\.co|hf\.co)/", re.IGNORECASE)
_FILE = re.compile(r"\.(json|safetensors|bin|pt|pth|gguf|md|txt|jinja|model)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """The location of a model: `folder` is a local path or, with `repo`, one in the repository."""

    folder: str
    repo: Repo | None = None

    def __str__(self) -> str:
        """How the user may write it: a page's address becomes OWNER/NAME[/FOLDER][@REVISION]."""
        if self.repo is None:
            return self.folder
        below = f"/{self.folder}" if self.folder else ""
        revision = self.repo.revision
        if revision and not (below or revision.startswith("refs/")):
            revision = quote(revision, safe="")
        return self.repo.id + below + (f"@{revision}" if revision else "")

    @property
    def prefix(self) -> str:
        """What the paths of its files begin with in the repository."""
        return f"{self.folder}/" if self.folder else ""

    @property
    def name(self) -> str:
        """The last part, which is the model's default name."""
        if self.repo is not None:
            return (self.folder or self.repo.id).rpartition("/")[2]
        path = Path(self.folder).expanduser()
        return path.resolve().name if path.exists() else path.name.split("@")[0]


def parse(argument: str) -> tuple[str, Place]:
    """Split `[NAME=]MODEL` into a name and a location; nothing is looked up.

    The default NAME is the last part of the path or Hub id.

    Raises:
        CurateError: there is no model, or no valid name.
    """
    left, equals, right = argument.partition("=")
    if equals and NAME_OF_MODEL.fullmatch(left) and not Path(argument).expanduser().exists():
        if not right:
            raise CurateError(f"{argument!r}: no model is given. Write {left}=MODEL.")
        return left, place(right)
    if not argument.strip():
        raise CurateError("an empty model argument. Give a local folder or a Hub id.")
    found = place(argument)
    if not NAME_OF_MODEL.fullmatch(found.name):
        raise CurateError(
            f"{argument!r}: can't be a model's name (at most 100 letters, digits, '.', '_', '-'). "
            f"Write NAME={argument}."
        )
    return found.name, found


def place(reference: str) -> Place:
    """The location of MODEL: a local folder takes precedence over the Hub.

    Raises:
        CurateError: it is neither a folder nor an id or address of the Hub.
    """
    path = Path(reference).expanduser()
    if path.exists():
        return Place(reference)
    if found := _WITH_COLON.fullmatch(reference):
        raise CurateError(
            f"{reference}: write the revision after @: {found['at']}@{found['revision']}"
        )
    if _ADDRESS.match(reference):
        return _address(reference, reference.replace("/commit/", "/tree/"))
    hub_id = reference.rstrip("/")
    misspelled = path.parent.is_dir() and path.parent != Path()  # a path, and no Hub id
    if misspelled or not _ID.fullmatch(hub_id):
        return Place(reference)
    repository, at, revision = hub_id.partition("@")
    owner, *rest = repository.split("/")
    if not rest:
        return _of(owner, revision or None, "")
    if len(rest) > 1 and at:  # OWNER/NAME/FOLDER@REVISION
        return _of(f"{owner}/{rest[0]}", unquote(revision), "/".join(rest[1:]))
    return _address(reference, f"hf://models/{hub_id}")


def _address(reference: str, address: str) -> Place:
    """The location that an address of the Hub stands for."""
    from huggingface_hub import constants, parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        found = parse_hf_uri(address, constants.ENDPOINT)
    except HfUriError:
        if not reference.startswith(("hf", "http")):
            raise CurateError(
                f"{reference}: models are read from this disk and the Hub. Copy it here first, and "
                "give its folder."
            ) from None
        raise CurateError(f"{reference}: not the address of a model. {_HOW}") from None
    if found.type != "model":
        raise CurateError(f"{reference}: a Hub {found.type}, not a model. {_HOW}")
    folder = found.path_in_repo.rstrip("/")
    if _FILE.fullmatch(Path(folder).suffix):
        folder = str(Path(folder).parent) if "/" in folder else ""
    return _of(found.id, found.revision, folder)


def _of(name: str, revision: str | None, folder: str) -> Place:
    found = Place(folder, Repo(name, "model", revision))
    return Place(folder, Repo(name, "model", revision, str(found)))
