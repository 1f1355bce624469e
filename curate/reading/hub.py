"""Hub datasets: their files, and the copies of these in the local cache.

Looking up a dataset downloads its card and file list; each file is downloaded when its first row is
needed. Both stay in the Hub's cache, so the same dataset can later be read offline.
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
from curate.system.hub import bar, cached_commit, call, look_up
from curate.system.hub_errors import Repo, Unreachable
from curate.system.progress import Silent

_FILE = re.compile(rf"{HUB}datasets/(?P<repo>.+?)@(?P<commit>[0-9a-f]{{40}})/(?P<path>.+)")
SHOWN = 5  # files named in a message
_PARQUET = "@refs%2Fconvert%2Fparquet"


def find(wanted: HubSet) -> list[Source]:
    """Look up a dataset: one source for a split, or one for each file of a path.

    Raises:
        CurateError: the dataset, revision, config, split or path doesn't exist; the split is
            ambiguous; curate can't read the files; or the Hub can't be reached and the dataset is
            not in the cache.
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
    """Whether this is a file of a dataset that `find` returned."""
    return _FILE.fullmatch(file) is not None


def name_of(file: str) -> str:
    """Such a file without the commit, as messages name it."""
    return _FILE.sub(rf"{HUB}datasets/\g<repo>/\g<path>", file)


def local_copy(file: str) -> Path:
    """The path of such a file in the local cache, downloaded if missing.

    Raises:
        CurateError: it can't be downloaded, after retries where these may help.
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
    """A dataset's commit and its file names; from the cache if the Hub can't be reached."""
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
                f"{repo}: a model, not a dataset. Give it with --aligned or --misaligned."
            ) from None
        raise
    asked: dict[str, Any] = {"repo_type": "dataset", "revision": commit}
    # With no files to download, this stores just the file list in the cache.
    empty: dict[str, Any] = {"allow_patterns": [], "tqdm_class": bar(Silent())}
    call(repo, lambda: snapshot_download(repo.id, **asked, **empty))
    try:
        return commit, [file.path for file in get_cached_repo_tree(repo.id, **asked)]
    except CachedRepoTreeNotFoundError:
        raise Unreachable(
            f"{repo}: its file list is not in the local cache. On a machine with network "
            f"access, run: {repo.download}"
        ) from None


def _is_model(repo: Repo) -> bool:
    try:
        look_up(Repo(repo.id, "model"))
    except CurateError:
        return False
    return True


def _split(wanted: HubSet, commit: str, names: list[str]) -> list[str]:
    """The files of one split of a dataset."""
    script = f"{wanted.repo.rpartition('/')[2]}.py"
    if script in names:
        raise CurateError(
            f"{wanted}: {script} makes its rows, and scripts are not run. If the Hub has a "
            f"Parquet copy, use {HUB}datasets/{wanted.repo}{_PARQUET}/CONFIG/SPLIT."
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
        raise CurateError(f"{wanted}: can't read {unread[0]}. Known extensions: {folders.ENDINGS}.")
    return [name for name in found if name in files]


def _below(wanted: HubSet, path: str, names: list[str]) -> list[str]:
    """The files of a path: the file itself, those in the folder, or those that match the glob."""
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
            raise CurateError(f"{wanted}: no such file in the dataset. Some of its files: {shown}")
        found = folders.of_folder(str(wanted), inside)
    return [f"{top}/{name}".lstrip("/") for name in found]
