"""Data sets of the hub: their files, and copies of these in the local cache.

A set is looked up first, which fetches its card and the list of its files; a file is fetched when
its first row is asked for. Both stay in the hub's cache, so the same set is read without network.
"""

from __future__ import annotations

import re
import shutil
from glob import has_magic
from pathlib import Path
from typing import Any

from fsspec.utils import glob_translate

from curate.errors import CurateError
from curate.reading import configs, folders
from curate.reading.addresses import HUB, HubSet, Source
from curate.system import scratch
from curate.system.hub import Repo, Unreachable, bar, cached_commit, call, look_up
from curate.system.progress import Silent

_FILE = re.compile(rf"{HUB}datasets/(?P<repo>.+?)@(?P<commit>[0-9a-f]{{40}})/(?P<path>.+)")
SHOWN = 5  # files named in a message
_PARQUET = "@refs%2Fconvert%2Fparquet"


def find(wanted: HubSet) -> list[Source]:
    """Look a set up: one source for a split of it, or one for each file of a path.

    Raises:
        CurateError: the set, revision, config, split or path doesn't exist; several splits would
            do; curate doesn't read its files; the hub can't be asked and the cache lacks the set.
    """
    repo = Repo(wanted.repo, "dataset", wanted.revision, str(wanted))
    commit, names = _look_up(repo)
    pinned = f"{HUB}datasets/{wanted.repo}@{commit}"
    if wanted.path is None:
        files = _split(wanted, commit, names)
        return [Source(str(wanted), tuple(f"{pinned}/{file}" for file in files), commit)]
    at = f"{HUB}datasets/{wanted.at}"
    files = _below(wanted, wanted.path, names)
    return [Source(f"{at}/{file}", (f"{pinned}/{file}",), commit) for file in files]


def is_file(file: str) -> bool:
    """Whether this is a file of a set that `find` found."""
    return _FILE.fullmatch(file) is not None


def name_of(file: str) -> str:
    """Such a file without the commit, as messages name it."""
    return _FILE.sub(rf"{HUB}datasets/\g<repo>/\g<path>", file)


def local_copy(file: str) -> Path:
    """The path of such a file in the local cache, fetched if it isn't there.

    Raises:
        CurateError: it can't be fetched, tried again where that may help.
    """
    match = _FILE.fullmatch(file)
    assert match is not None, file
    return _fetch(Repo(match["repo"], "dataset", match["commit"], name_of(file)), match["path"])


def _fetch(repo: Repo, path: str) -> Path:
    from huggingface_hub import hf_hub_download

    asked: dict[str, Any] = {"repo_type": repo.kind, "revision": repo.revision}
    asked["tqdm_class"] = bar(Silent())
    return Path(call(repo, lambda: hf_hub_download(repo.id, path, **asked)))


def _look_up(repo: Repo) -> tuple[str, list[str]]:
    """A set's commit and the names of its files; from the cache if the hub can't be asked."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, RepositoryNotFoundError

    try:
        commit, _ = look_up(repo)
    except Unreachable:
        known = cached_commit(repo)
        if known is None:
            raise
        commit = known
    except CurateError as error:
        if type(error.__cause__) is RepositoryNotFoundError and _is_model(repo):
            raise CurateError(
                f"{repo}: a model, not a data set. Give it by --aligned or --misaligned."
            ) from None
        raise
    asked: dict[str, Any] = {"repo_type": "dataset", "revision": commit}
    # Of no files, this puts the list of all into the cache.
    empty: dict[str, Any] = {"allow_patterns": [], "tqdm_class": bar(Silent())}
    call(repo, lambda: snapshot_download(repo.id, **asked, **empty))
    try:
        return commit, [file.path for file in get_cached_repo_tree(repo.id, **asked)]
    except CachedRepoTreeNotFoundError:
        raise Unreachable(
            f"{repo}: the local cache lacks the list of its files. Fetch it where there is a "
            f"network: {repo.download}"
        ) from None


def _is_model(repo: Repo) -> bool:
    try:
        look_up(Repo(repo.id, "model"))
    except CurateError:
        return False
    return True


def _split(wanted: HubSet, commit: str, names: list[str]) -> list[str]:
    """The files of one split of a set."""
    script = f"{wanted.repo.rpartition('/')[2]}.py"
    if script in names:
        raise CurateError(
            f"{wanted}: {script} makes its rows, and scripts are not run. If the hub has a copy in "
            f"Parquet, give {HUB}datasets/{wanted.repo}{_PARQUET}/CONFIG/SPLIT."
        )
    repo = Repo(wanted.repo, "dataset", commit, str(wanted))
    with scratch.temporary("hub") as folder:
        for name in names:
            path = folder / name
            if ".." in path.parts or not path.is_relative_to(folder):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in configs.CARD:
                shutil.copyfile(_fetch(repo, name), path)
            else:
                path.touch()
        found = configs.files_of(folder, wanted)
    files = set(folders.data_files(found, hidden=True))
    unread = [name for name in found if name not in files]
    if not files or any(name.endswith(".zip") for name in unread):
        raise CurateError(
            f"{wanted}: {unread[0]} is not read. A file may end in {folders.ENDINGS}."
        )
    return [name for name in found if name in files]


def _below(wanted: HubSet, path: str, names: list[str]) -> list[str]:
    """The files that a path means: itself, those in the folder, or those that match the glob."""
    if path in names:
        folders.check_kind(str(wanted))
        return [path]
    if has_magic(path):
        top, match = folders.top_of(path), re.compile(glob_translate(path)).match
        found = folders.of_glob(str(wanted), path, folders.below(filter(match, names), top))
    else:
        top, inside = path, folders.below(names, path)
        if not inside:
            shown = ", ".join(folders.data_files(names)[:SHOWN])
            raise CurateError(f"{wanted}: the set has no such file. Some that it has: {shown}")
        found = folders.of_folder(str(wanted), inside)
    return [f"{top}/{name}".lstrip("/") for name in found]
