"""Calls to the Hugging Face hub: retried where that may help, stopped at once, errors in a line.

`huggingface_hub` reads HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN and HF_HUB_DOWNLOAD_TIMEOUT
(seconds without a byte, 10) when it is imported: here, at the first call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from curate.errors import CurateError
from curate.system.progress import Progress
from curate.system.stopping import asked, check_cancelled

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

MB = 1_000_000
ATTEMPTS = 4
LONGEST_WAIT = 300.0
"""Seconds that the hub may ask to wait: the window of its rate limit."""
_BUGS = (AssertionError, AttributeError, LookupError, NameError, TypeError)
_THREAD = "curate-hub"
_TICK = 0.2  # seconds after which a waiting thread looks whether a stop was asked for

Answer = TypeVar("Answer")


class Unreachable(CurateError):  # noqa: N818 - a state of the network
    """The hub can't be asked now; a copy in the local cache may do."""


@dataclass(frozen=True)
class Repo:
    """A repository of the hub, `OWNER/NAME`, at a branch, tag or commit (None: its main one).

    `name` is how the user wrote it: errors begin with it.
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
        """The command that fetches it."""
        return f"hf download {'--repo-type dataset ' if self.kind == 'dataset' else ''}{self.id}"

    def __str__(self) -> str:
        return self.name or self.id + (f"@{self.revision}" if self.revision else "")


def call(
    repo: Repo, ask: Callable[[], Answer], note: Callable[[str], None] = lambda _: None
) -> Answer:
    """Run a call of a hub library, up to `ATTEMPTS` times where what fails may pass.

    That is a lost or silent connection, a body cut off, and the statuses 408, 429 (Retry-After is
    kept) and 5xx. `ask` runs in a thread of its own: a stop ends the wait for it, and not it. What
    it opens stays usable in other threads. `note` hears why it is tried again.

    Raises:
        Unreachable: no network, HF_HUB_OFFLINE, or the hub can't answer now.
        CurateError: what else the hub or the network refused, and what to do.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _apart(ask)
        except (CurateError, *_BUGS):
            raise
        except Exception as error:
            pause = _pause(error, attempt)
            if pause is None or attempt == ATTEMPTS:
                raise _told(repo, error) from error
            note(f"{repo}: {_brief(error)}; trying again in {pause:.3g} s")
            _sleep(pause)
    raise AssertionError


def look_up(repo: Repo, note: Callable[[str], None] = lambda _: None) -> tuple[str, dict[str, int]]:
    """The commit that a revision means now, and the repository's files with their sizes in bytes.

    The local cache notes which commit it was, for `cached_commit` when there is no network.

    Raises:
        CurateError: see `call`.
    """
    from huggingface_hub import HfApi

    hub: Any = HfApi()
    asked = {"repo_type": repo.kind, "revision": repo.revision}

    def ask() -> tuple[str, dict[str, int]]:
        found = hub.repo_info(repo.id, **asked, files_metadata=True)
        hub.resolve_revision(repo.id, **asked)
        files = {file.rfilename: file.size or 0 for file in found.siblings or ()}
        return found.sha, files

    return call(repo, ask, note)


def cached_commit(repo: Repo) -> str | None:
    """The commit that the local cache has for a revision, as of the last request to the Hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    try:
        found = HfApi().resolve_revision(
            repo.id, repo_type=repo.kind, revision=repo.revision, local_files_only=True
        )
    except RevisionResolutionError:
        return None
    return found.resolved


def bar(progress: Progress) -> type:
    """What `huggingface_hub` shows a file's progress with: it counts MB, and shows nothing."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            super().__init__(disable=True)  # type: ignore[no-untyped-call]
            self.bytes = 0
            self.update(initial)

        def update(self, n: float | None = 1) -> None:
            """So many more bytes are on the disk, or fewer when the file is started again."""
            before, self.bytes = self.bytes // MB, self.bytes + int(n or 0)
            if asked() is None:  # after a stop, what still runs is silent
                progress.advance(self.bytes // MB - before)

        def update_transfer(self, n: float | None = 1) -> None:
            """So many more bytes are on the way, which `update` counts when they are here."""

    return Bar


def _apart(ask: Callable[[], Answer]) -> Answer:
    """Run it in a thread of its own, which no stop waits for: it ends with the process."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    _limit_requests()
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_is_foreign)  # `note` says what its warnings say
    Thread(target=run, name=_THREAD, daemon=True).start()
    while not wait([future], _TICK).done:
        check_cancelled()
    return future.result()


def _limit_requests() -> None:
    """Let no request of huggingface_hub wait for ever, which is its own default for many."""
    from huggingface_hub import constants, get_session

    def limit(request: Any) -> None:
        own = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            what: own.get(what) or constants.HF_HUB_DOWNLOAD_TIMEOUT
            for what in ("connect", "read", "write", "pool")
        }

    client = get_session()
    hooks = client.event_hooks
    if not any(hook.__module__ == __name__ for hook in hooks["request"]):
        client.event_hooks = hooks | {"request": [*hooks["request"], limit]}


def _is_foreign(record: logging.LogRecord) -> bool:
    return record.threadName != _THREAD


def _sleep(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check_cancelled()
        time.sleep(min(left, _TICK))


def _pause(error: BaseException, attempt: int) -> float | None:
    """Seconds after which the same call may succeed; None where it will not."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    usual = 0.5 * 2.0 ** (attempt - 1)
    for each in _chain(error):
        if isinstance(each, (OfflineModeIsEnabled, httpx2.ProxyError, httpx2.UnsupportedProtocol)):
            return None
        if isinstance(each, HfHubHTTPError):
            status = each.response.status_code
            if status in (408, 429) or status >= 500:
                asked = each.response.headers.get("Retry-After", "")
                seconds = float(asked) if str(asked).isdecimal() else usual
                return seconds if seconds <= LONGEST_WAIT else None
            return None
        if isinstance(each, (httpx2.TransportError, ConnectionError, TimeoutError)):
            return usual
    # huggingface_hub's error for a body that ended early.
    return usual if type(error) is OSError and error.errno is None else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it: libraries wrap what the hub said in errors of their own."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _told(repo: Repo, error: Exception) -> CurateError:
    """What went wrong, by the error's type, and what to do."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        FileMetadataError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    for each in _chain(error):
        if isinstance(each, HfHubHTTPError):
            return _refused(repo, each)
        if isinstance(each, OfflineModeIsEnabled):
            return Unreachable(
                f"{repo}: not in the local cache, and HF_HUB_OFFLINE is set. Unset it, or fetch it "
                f"before: {repo.download}"
            )
        if isinstance(each, FileMetadataError):
            return CurateError(
                f"{repo}: {constants.ENDPOINT} doesn't answer as a hub does. Check HF_ENDPOINT and "
                "the proxy."
            )
        if isinstance(each, httpx2.ProxyError):
            return Unreachable(f"{repo}: the proxy refuses ({_brief(each)}). Check HTTPS_PROXY.")
        if isinstance(each, (httpx2.TransportError, ConnectionError, TimeoutError)):
            return Unreachable(
                f"{repo}: {constants.ENDPOINT} can't be reached ({_brief(each)}). Check the "
                "network, then run it again."
            )
        if isinstance(each, OSError) and each.errno is not None:
            return CurateError(
                f"{repo}: {each.filename or constants.HF_HUB_CACHE}: {each.strerror}. Free some "
                "space or change its rights, or name another folder in HF_HOME."
            )
    if isinstance(error, LocalEntryNotFoundError):
        return Unreachable(f"{repo}: not in the local cache. Fetch it: {repo.download}")
    return CurateError(f"{repo}: {_brief(error)}")


def _refused(repo: Repo, error: HfHubHTTPError) -> CurateError:
    """What the hub answered."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    where = f"the hub has no {repo.kind} {repo.id}"
    if isinstance(error, GatedRepoError):
        why = f"gated. Accept the conditions at {repo.url}, then log in: hf auth login"
    elif isinstance(error, RevisionNotFoundError):
        why = f"no such revision. {_revisions(repo)}"
    elif isinstance(error, RemoteEntryNotFoundError):
        path = error.response.url.path.rpartition("/resolve/")[2].partition("/")[2]
        why = f"no such file: {path}. Look at {repo.url}"
    elif isinstance(error, DisabledRepoError):
        why = f"the hub has disabled it. Look at {repo.url}"
    elif status == 401 and "nvalid credentials" in (error.server_message or str(error)):
        why = "your token isn't valid. Log in again: hf auth login (or fix HF_TOKEN)"
    elif isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        why = f"{where}, or it is private. Check the spelling, or log in: hf auth login"
    elif status == 403:
        why = f"your token may not read it. Give it read access to {repo.url}"
    elif status == 429:
        return Unreachable(
            f"{repo}: the hub's rate limit is reached. Wait some minutes; after hf auth login the "
            "limit is higher."
        )
    elif status == 408 or status >= 500:
        return Unreachable(f"{repo}: the hub answers {status}. Wait a little, then run it again.")
    else:
        why = _brief(error)
    return CurateError(f"{repo}: {why}")


def _revisions(repo: Repo) -> str:
    """The branches and tags that there are, for one who named another."""
    from huggingface_hub import HfApi

    try:
        refs = _apart(lambda: HfApi().list_repo_refs(repo.id, repo_type=repo.kind))
    except Exception:  # the first error is the one to hear of
        return f"Look at {repo.url}/tree/main"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"There are: {', '.join(names[:10])}{more}"


def _brief(error: BaseException) -> str:
    """An error in a few words; the hub's have many lines."""
    from huggingface_hub.errors import HfHubHTTPError

    for each in _chain(error):
        if isinstance(each, HfHubHTTPError):
            return f"the hub answers {each.response.status_code}"
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
