"""Calls to the Hugging Face Hub: with retries, prompt stops, and one-line errors.

`huggingface_hub` reads HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN and HF_HUB_DOWNLOAD_TIMEOUT
(seconds without a byte, 10) when it is imported: here, at the first call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from curate.errors import CurateError
from curate.system.hub_errors import Repo, brief, chain, explained
from curate.system.progress import Progress, Silent
from curate.system.stopping import apart, asked, sleep

MB = 1_000_000
ATTEMPTS = 4
LONGEST_WAIT = 300.0
"""The longest wait, in seconds, that the Hub may ask for: the window of its rate limit."""
_BUGS = (AssertionError, AttributeError, LookupError, NameError, TypeError)
_THREAD = "curate-hub"

Answer = TypeVar("Answer")


def call(
    repo: Repo, ask: Callable[[], Answer], note: Callable[[str], None] = lambda _: None
) -> Answer:
    """Run a call of a Hub library, up to `ATTEMPTS` times if the failure may be temporary.

    Temporary failures are a lost or silent connection, a truncated body, and the statuses 408, 429
    (respecting Retry-After) and 5xx. `ask` runs in its own thread, so a stop doesn't have to wait
    for it. `note` receives the reason of each retry.

    Raises:
        Unreachable: no network, HF_HUB_OFFLINE, or the Hub is down.
        CurateError: any other failure, with what to do.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _apart(ask)
        except (CurateError, *_BUGS):
            raise
        except Exception as error:
            pause = _pause(error, attempt)
            if pause is None or attempt == ATTEMPTS:
                raise explained(repo, error) from error
            note(f"{repo}: {brief(error)}; trying again in {pause:.3g} s")
            sleep(pause)
    raise AssertionError


def look_up(repo: Repo, note: Callable[[str], None] = lambda _: None) -> tuple[str, dict[str, int]]:
    """The commit that a revision means now, and the repository's files with their sizes in bytes.

    The local cache records the commit, for `cached_commit` without a network.

    Raises:
        CurateError: see `call`.
    """
    from huggingface_hub import HfApi

    def ask() -> tuple[str, dict[str, int]]:
        info = _info(repo)
        HfApi().resolve_revision(repo.id, repo_type=repo.kind, revision=repo.revision)
        return info.sha, {file.rfilename: file.size or 0 for file in info.siblings or ()}

    return call(repo, ask, note)


def blobs(repo: Repo) -> dict[str, str]:
    """The repository's files, with the hashes of their contents.

    Raises:
        CurateError: see `call`.
    """
    return {
        file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or ""
        for file in call(repo, lambda: _info(repo)).siblings or ()
    }


def _info(repo: Repo) -> Any:
    from huggingface_hub import HfApi

    return HfApi().repo_info(
        repo.id, repo_type=repo.kind, revision=repo.revision, files_metadata=True
    )


def cached_commit(repo: Repo) -> str | None:
    """The commit of a revision in the local cache, as of the last request to the Hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    try:
        found = HfApi().resolve_revision(
            repo.id, repo_type=repo.kind, revision=repo.revision, local_files_only=True
        )
    except RevisionResolutionError:
        return None
    return found.resolved


def download(
    repo: Repo,
    path: str,
    note: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Path:
    """A repository's file in the local cache, downloaded if it is missing.

    Raises:
        CurateError: see `call`.
    """
    from huggingface_hub import hf_hub_download

    asked: dict[str, Any] = {"repo_type": repo.kind, "revision": repo.revision}
    asked["tqdm_class"] = bar(progress or Silent())
    return Path(call(repo, lambda: hf_hub_download(repo.id, path, **asked), note))


def bar(progress: Progress) -> type:
    """The progress bar for `huggingface_hub`: it reports MB to `Progress` and shows nothing."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            super().__init__(disable=True)  # type: ignore[no-untyped-call]
            self.bytes = 0
            self.update(initial)

        def update(self, n: float | None = 1) -> None:
            """Count bytes written to disk; negative if a file is started again."""
            before, self.bytes = self.bytes // MB, self.bytes + int(n or 0)
            if asked() is None:  # after a stop, what still runs is silent
                progress.advance(self.bytes // MB - before)

        def update_transfer(self, n: float | None = 1) -> None:
            """Ignore bytes in transit; `update` counts them when they are written."""

    return Bar


def _apart(ask: Callable[[], Answer]) -> Answer:
    """Run it in a thread; a stop doesn't wait for it."""
    _limit_requests()
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_is_foreign)  # `note` says what its warnings say
    (found,) = apart([ask], name=_THREAD)
    return found


def _limit_requests() -> None:
    """Set a timeout for all requests of huggingface_hub; by default, many have none."""
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


def _pause(error: BaseException, attempt: int) -> float | None:
    """Seconds after which the same call may succeed; None if it will not."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    usual = 0.5 * 2.0 ** (attempt - 1)
    for each in chain(error):
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
