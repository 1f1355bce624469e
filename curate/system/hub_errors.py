"""A repository of the Hub, and what is said when a call for it fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from curate.errors import CurateError
from curate.system.stopping import apart

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


class Unreachable(CurateError):  # noqa: N818 - a state of the network
    """The Hub can't be reached now; a copy in the local cache may do."""


@dataclass(frozen=True)
class Repo:
    """A repository of the Hub, `OWNER/NAME`, at a branch, tag or commit (None: the main branch).

    `name` is what the user wrote: errors start with it.
    """

    id: str
    kind: Literal["model", "dataset"] = "model"
    revision: str | None = None
    name: str = ""

    @property
    def url(self) -> str:
        """Its page."""
        from huggingface_hub import constants

        folder = "datasets/" if self.kind == "dataset" else ""
        return f"{constants.ENDPOINT}/{folder}{self.id}"

    @property
    def download(self) -> str:
        """The command that downloads it."""
        return f"hf download {'--repo-type dataset ' if self.kind == 'dataset' else ''}{self.id}"

    def __str__(self) -> str:
        return self.name or self.id + (f"@{self.revision}" if self.revision else "")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: libraries wrap the Hub's errors in their own."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def explained(repo: Repo, error: Exception) -> CurateError:
    """What went wrong, by the error's type, and what to do."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    for each in chain(error):
        if isinstance(each, HfHubHTTPError):
            return _refused(repo, each)
        if isinstance(each, OfflineModeIsEnabled):
            return Unreachable(
                f"{repo}: not in the local cache, and HF_HUB_OFFLINE is set. Unset it, or "
                f"download it first: {repo.download}"
            )
        if isinstance(each, httpx2.ProxyError):
            return Unreachable(f"{repo}: the proxy refuses ({brief(each)}). Check HTTPS_PROXY.")
        cut = type(each) is OSError and each.errno is None  # the error for a body that ended early
        if cut or isinstance(each, (httpx2.TransportError, ConnectionError, TimeoutError)):
            broken = cut or isinstance(each, httpx2.RemoteProtocolError)
            what = "ended its answer too early" if broken else "can't be reached"
            return Unreachable(
                f"{repo}: {constants.ENDPOINT} {what} ({brief(each)}). Check the network, then "
                "run it again."
            )
        if isinstance(each, OSError) and each.errno is not None:
            return CurateError(
                f"{repo}: {each.filename or constants.HF_HUB_CACHE}: {each.strerror}. Free some "
                "space, change its permissions, or set HF_HOME to another folder."
            )
    if isinstance(error, LocalEntryNotFoundError):
        return Unreachable(f"{repo}: not in the local cache. Download it: {repo.download}")
    return CurateError(f"{repo}: {brief(error)}")


def _refused(repo: Repo, error: HfHubHTTPError) -> CurateError:
    """An error for a status that the Hub returned."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    where = f"the Hub has no {repo.kind} {repo.id}"
    if isinstance(error, GatedRepoError):
        why = f"gated. Accept the terms at {repo.url}, then log in: hf auth login"
        if status == 403:
            why = (
                f"gated, and your token's account has no access. Accept the terms at {repo.url} "
                "with it; some owners then grant access by hand"
            )
    elif isinstance(error, RevisionNotFoundError):
        why = f"no such revision. {_revisions(repo)}"
    elif isinstance(error, RemoteEntryNotFoundError):
        path = error.response.url.path.rpartition("/resolve/")[2].partition("/")[2]
        why = f"no such file: {path}. Look at {repo.url}"
    elif status == 401 and "nvalid credentials" in (error.server_message or str(error)):
        why = "your token isn't valid. Log in again: hf auth login (or fix HF_TOKEN)"
    elif isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        why = f"{where}, or it is private. Check the spelling, or log in: hf auth login"
    elif status == 403:
        why = f"your token may not read it. Give it read access to {repo.url}"
    elif status == 429:
        return Unreachable(
            f"{repo}: the Hub's rate limit is reached. Wait a few minutes, or run hf auth login "
            "for a higher limit."
        )
    elif status == 408 or status >= 500:
        return Unreachable(f"{repo}: the Hub returned {status}. Wait a little, then run it again.")
    else:
        why = brief(error)
    return CurateError(f"{repo}: {why}")


def _revisions(repo: Repo) -> str:
    """The existing branches and tags, for a message."""
    from huggingface_hub import HfApi

    try:
        (refs,) = apart([lambda: HfApi().list_repo_refs(repo.id, repo_type=repo.kind)])
    except Exception:  # the first error matters more
        return f"Look at {repo.url}/tree/main"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"There are: {', '.join(names[:10])}{more}"


def brief(error: BaseException) -> str:
    """An error in a few words; the Hub's have many lines."""
    from huggingface_hub.errors import HfHubHTTPError

    for each in chain(error):
        if isinstance(each, HfHubHTTPError):
            return f"the Hub returned {each.response.status_code}"
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
