"""Hub datasets: their files, and the copies of these in the local cache.

Looking up a dataset downloads its card and file list; each file is downloaded when its first row is
needed. Both stay in the Hub's cache, so the same dataset can later be read offline.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from glob import has_magic
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from fsspec.utils import glob_translate

from curate.errors import CurateError
from curate.reading import folders
from curate.reading.addresses import HUB, HubSet, Source
from curate.system import scratch
from curate.system.hub import bar, cached_commit, call, download, look_up
from curate.system.hub_errors import Repo, Unreachable
from curate.system.progress import Silent

_FILE = re.compile(rf"{HUB}datasets/(?P<repo>.+?)@(?P<commit>[0-9a-f]{{40}})/(?P<path>.+)")
SHOWN = 5  # files named in a message
_CARD = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""The files whose text is needed; for the others, the names are enough."""
_HARMLESS = {
    *("data_files", "data_dir", "default", "version", "description"),
    *("features", "columns", "chunksize", "batch_size", "drop_labels"),
}
"""Settings of a config that don't affect the rows."""
_CHOICES = 8  # configs or splits named in a message
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
    return download(Repo(match["repo"], "dataset", match["commit"], name_of(file)), match["path"])


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
            if name in _CARD:
                shutil.copyfile(download(repo, name), path)
            else:
                path.touch()
        found = _files_of(folder, wanted)
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


def _files_of(folder: Path, wanted: HubSet) -> list[str]:
    """The files of one split, as `datasets` finds them in a folder.

    They come from the card's `configs`, its patterns, or the names of files and folders. Without a
    config, the default or the only one is used; without a split, `train` or the only one.
    """
    folder = folder.resolve()
    try:
        configs, default, settings = _configs(folder)
        config = _one(wanted, "config", default, list(configs))
        if odd := ", ".join(sorted(settings.get(config, {}).keys() - _HARMLESS)):
            raise CurateError(
                f"{wanted}: its card sets {odd} for these files, which curate ignores. Download "
                "them (hf download), convert them, and use the new files."
            )
        found = _splits(folder, configs[config])
    except CurateError:
        raise
    except BadZipFile:
        raise CurateError(
            f"{wanted}: its files are in an archive. Download and unpack it: hf download "
            f"--repo-type dataset {wanted.repo}"
        ) from None
    except Exception as error:  # YAML's errors and those of `datasets` share no type
        why = " ".join(str(error).partition(" with any supported ")[0].split())
        why = why.replace(f"{folder}/", "").replace(str(folder), "the set")[:200].rstrip(".")
        raise CurateError(
            f"{wanted}: can't tell which files to read ({why or type(error).__name__}). Name them: "
            f"{HUB}datasets/{wanted.at}/PATH"
        ) from error
    return found[_one(wanted, "split", "train", list(found))]


def _configs(folder: Path) -> tuple[dict[str, Any], str | None, dict[str, dict[str, Any]]]:
    """The configs of a folder, the default one, and the card's settings for them."""
    import datasets
    from datasets.load import LocalDatasetModuleFactory

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()  # it warns of settings that no reader has
    found = LocalDatasetModuleFactory(str(folder)).get_module().builder_configs_parameters
    configs = {config.name: config for config in found.builder_configs or ()}
    known = {
        name: {key: value for key, value in settings.items() if hasattr(configs[name], key)}
        for name, settings in (found.metadata_configs or {}).items()
    }
    return configs, found.default_config_name, known


def _splits(folder: Path, config: Any) -> dict[str, list[str]]:
    """The splits of a config and their files.

    Raises:
        ValueError: the card names files outside the folder.
    """
    from datasets.data_files import DataFilesPatternsDict

    files = config.data_files
    if isinstance(files, DataFilesPatternsDict):
        files = files.resolve(str(folder / (config.data_dir or "")))
    found: dict[str, list[str]] = {}
    for split, paths in files.items():
        if odd := [path for path in paths if not Path(path).is_relative_to(folder)]:
            raise ValueError(f"its card names {odd[0]}, which is not in it")
        found[str(split)] = [Path(path).relative_to(folder).as_posix() for path in paths]
    return found


def _one(wanted: HubSet, what: str, usual: str | None, names: list[str]) -> str:
    """The requested config or split, the default one, or the only one."""
    asked = getattr(wanted, what)
    if asked in names:
        return str(asked)
    if asked is None and usual in names:
        return str(usual)
    if len(names) == 1 and asked in (None, usual):
        return names[0]
    shown = ", ".join(str(replace(wanted, **{what: name})) for name in names[:_CHOICES])
    more = f" and {len(names) - _CHOICES} more" if len(names) > _CHOICES else ""
    problem = f"which {what}?" if asked is None else f"no {what} {asked!r}."
    revision = replace(wanted, split=None, revision=asked)
    hint = f" A revision is written {revision}." if what == "split" and asked else ""
    raise CurateError(f"{wanted}: {problem} There are {shown}{more}.{hint}")
