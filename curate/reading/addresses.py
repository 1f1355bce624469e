"""What a typed source means: a path of this disk, a data set of the hub, or another file system's.

Pages of the hub, as people copy them from a browser, are read as the sets and files they show.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from curate.errors import CurateError

HUB = "hf://"
HOW = (
    "Write hf://OWNER/NAME[@REVISION][/CONFIG][:SPLIT], or for some of its files "
    "hf://datasets/OWNER/NAME[@REVISION]/PATH."
)
_PAGE = re.compile(r"(?:https?://)?(?:(?:www\.)?huggingface\.co|hf\.co)/")
_PART = r"[A-Za-z0-9][\w.-]*"
_REVISION = r"@(?P<revision>refs/(?:convert|pr)/[^/:@]+|[^/:@]+)"
_SET = re.compile(
    rf"(?P<repo>{_PART}(?:/{_PART})?)(?:{_REVISION})?(?:/(?P<rest>[^:]*))?(?::(?P<split>.+))?",
    re.ASCII,
)
_REVISION_LAST = re.compile(rf"(?P<config>[^@]+){_REVISION}")
_FILE = re.compile(r"[*?\[]|\.(jsonl?|ndjson|csv|tsv|parquet|arrow)(\.\w+)?$", re.IGNORECASE)
_VERBS = ("tree", "blob", "resolve", "raw", "viewer", "embed", "commit", "commits")
_OTHERS = {
    "models": "A model is given by --aligned or --misaligned. ",
    **dict.fromkeys(("spaces", "collections", "papers", "kernels", "docs", "api"), ""),
}
_SHORT = re.compile(r"(datasets/)?[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*([:@/].*)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """One source: its name in tables and messages, and the files that it is read from, in order.

    `commit` is that of a hub set's repository, whose files these are. `asked` is the argument that
    meant it.
    """

    name: str
    files: tuple[str, ...]
    commit: str | None = None
    asked: str = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class HubSet:
    """A data set of the hub: one split of it, or with `path` a file, a folder or a glob of files.

    `revision` is a branch, a tag or a commit; None is the main branch.
    """

    repo: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    path: str | None = None

    @property
    def at(self) -> str:
        """The repository with its revision, as it stands in addresses."""
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        return f"{self.repo}{revision}"

    def __str__(self) -> str:
        if self.path is not None:
            return f"{HUB}datasets/{self.at}/{self.path}".rstrip("/")
        config = f"/{self.config}" if self.config else ""
        return f"{HUB}{self.at}{config}" + (f":{self.split}" if self.split else "")


def parse(source: str) -> str | HubSet:
    """What was typed, as a data set of the hub where it is one; else a path or another address.

    Raises:
        CurateError: it is an address of the hub, but not one of a data set or its files.
    """
    own = os.environ.get("HF_ENDPOINT", "").rstrip("/") + "/"
    if page := _PAGE.match(source):
        return _page(source, source[page.end() :])
    if own != "/" and source.startswith(own):
        return _page(source, source.removeprefix(own))
    if source.startswith("hf://buckets/"):
        return source
    if source.startswith(HUB):
        return _hub(source, source.removeprefix(HUB))
    if source.startswith("file://"):
        return unquote(urlsplit(source).path)
    return source


def at_commit(source: str, commit: str) -> str:
    """What was typed, at this commit where it is a data set of the hub."""
    wanted = parse(source)
    return str(replace(wanted, revision=commit)) if isinstance(wanted, HubSet) else source


def hint(path: str) -> str:
    """For a path that isn't there: what to write if a data set of the hub was meant, else ''."""
    if not _SHORT.fullmatch(path) or _FILE.search(path) or Path(path).parent.is_dir():
        return ""
    return f" A data set of the hub is written {HUB}{path.removeprefix('datasets/')}"


def _hub(source: str, rest: str) -> HubSet:
    """An address that begins with hf://."""
    kind, _, below = rest.partition("/")
    long = kind == "datasets"
    found = _SET.fullmatch(below if long else rest)
    if found is None or kind in _OTHERS:
        raise CurateError(f"{source}: not a data set's address. {_OTHERS.get(kind, '')}{HOW}")
    repo, revision, config, split = found.group("repo", "revision", "rest", "split")
    config = (config or "").rstrip("/") or None
    if config and not revision and (last := _REVISION_LAST.fullmatch(config)):
        config, revision = last.group("config", "revision")
    # `~parquet` is how DuckDB names the hub's own Parquet copies.
    revision = revision and unquote(revision).replace("~parquet", "refs/convert/parquet")
    if config and (long or "/" in config or _FILE.search(config)):
        if split:
            raise CurateError(f"{source}: a path has no split. {HOW}")
        return HubSet(repo, revision, path=config)
    return HubSet(repo, revision, config, split)


def _page(source: str, rest: str) -> HubSet:
    """A page of the hub: of a data set, of its viewer, or of a file or folder of it."""
    kind, *parts = [unquote(part) for part in re.split(r"[?#]", rest)[0].strip("/").split("/")]
    if kind != "datasets" or not parts:
        hint = "" if kind in _OTHERS else _OTHERS["models"]
        raise CurateError(f"{source}: not a data set's page. {hint}{HOW}")
    at = next((n for n, part in enumerate(parts) if n and part in _VERBS), len(parts))
    repo, after = "/".join(parts[: min(at, 2)]), parts[at + 1 :]
    if parts[at:][:1] == ["embed"]:  # .../embed/viewer/CONFIG/SPLIT
        at, after = at + 1, after[1:]
    if parts[at:][:1] == ["viewer"]:
        config, split = [*after, None, None][:2]
        return HubSet(repo, None, config, split)
    length = 3 if after[:2] in (["refs", "convert"], ["refs", "pr"]) else 1
    revision, path = "/".join(after[:length]), "/".join(after[length:])
    return HubSet(repo, None if revision in ("", "main") else revision, path=path or None)
