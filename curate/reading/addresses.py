"""What a source argument means: a local path, a Hub dataset, or an address of another file system.

Web pages of the Hub, as copied from a browser, stand for the datasets and files that they show.
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
_VERBS = ("tree", "blob", "resolve", "raw", "viewer", "commit", "commits")
_OTHERS = {
    "models": "Give models with --aligned or --misaligned. ",
    **dict.fromkeys(("spaces", "collections", "papers", "kernels", "docs", "api"), ""),
}
_SHORT = re.compile(r"(datasets/)?[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*([:@/].*)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """One source: its name in tables and messages, and the files that it is read from, in order.

    `commit` is that of a Hub dataset's repository; `asked` is the user's argument.
    """

    name: str
    files: tuple[str, ...]
    commit: str | None = None
    asked: str = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class HubSet:
    """A Hub dataset: one split of it, or with `path`, a file, a folder or a glob of files.

    `revision` is a branch, a tag or a commit; None is the main branch.
    """

    repo: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    path: str | None = None

    @property
    def at(self) -> str:
        """The repository with its revision, as written in addresses."""
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        return f"{self.repo}{revision}"

    def __str__(self) -> str:
        if self.path is not None:
            return f"{HUB}datasets/{self.at}/{self.path}".rstrip("/")
        config = f"/{self.config}" if self.config else ""
        return f"{HUB}{self.at}{config}" + (f":{self.split}" if self.split else "")


def parse(source: str) -> str | HubSet:
    """An argument as a Hub dataset, if it is one; otherwise unchanged (a path or another address).

    Raises:
        CurateError: it is an address of the Hub, but not of a dataset or its files.
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
    """The argument, at this commit if it is a Hub dataset."""
    wanted = parse(source)
    return str(replace(wanted, revision=commit)) if isinstance(wanted, HubSet) else source


def hint(path: str) -> str:
    """For a missing path: what to write if a Hub dataset was meant, else ''."""
    if not _SHORT.fullmatch(path) or _FILE.search(path) or Path(path).parent.is_dir():
        return ""
    return f" For a Hub dataset, write {HUB}{path.removeprefix('datasets/')}"


def _hub(source: str, rest: str) -> HubSet:
    kind, _, below = rest.partition("/")
    long = kind == "datasets"
    found = _SET.fullmatch(below if long else rest)
    if found is None or kind in _OTHERS:
        raise CurateError(f"{source}: not the address of a dataset. {_OTHERS.get(kind, '')}{HOW}")
    repo, revision, config, split = found.group("repo", "revision", "rest", "split")
    config = (config or "").rstrip("/") or None
    if config and not revision and (last := _REVISION_LAST.fullmatch(config)):
        config, revision = last.group("config", "revision")
    # `~parquet` is DuckDB's name for the Hub's own Parquet copies.
    revision = revision and unquote(revision).replace("~parquet", "refs/convert/parquet")
    if config and (long or "/" in config or _FILE.search(config)):
        if split:
            raise CurateError(f"{source}: a path can't have a split. {HOW}")
        return HubSet(repo, revision, path=config)
    return HubSet(repo, revision, config, split)


def _page(source: str, rest: str) -> HubSet:
    """A web page of the Hub: of a dataset, its viewer, or one of its files or folders."""
    kind, *parts = [unquote(part) for part in re.split(r"[?#]", rest)[0].strip("/").split("/")]
    if kind != "datasets" or not parts:
        hint = "" if kind in _OTHERS else _OTHERS["models"]
        raise CurateError(f"{source}: not the page of a dataset. {hint}{HOW}")
    at = next((n for n, part in enumerate(parts) if n and part in _VERBS), len(parts))
    repo, after = "/".join(parts[: min(at, 2)]), parts[at + 1 :]
    if parts[at:][:1] == ["viewer"]:
        config, split = [*after, None, None][:2]
        return HubSet(repo, None, config, split)
    length = 3 if after[:2] in (["refs", "convert"], ["refs", "pr"]) else 1
    revision, path = "/".join(after[:length]), "/".join(after[length:])
    return HubSet(repo, None if revision in ("", "main") else revision, path=path or None)
