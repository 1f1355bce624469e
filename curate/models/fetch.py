"""Hub models, through the local cache: small files first, the weights later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.errors import CurateError
from curate.models.fingerprints import INDEX, PICKLES, is_adapter, shards, stem
from curate.models.references import Place, place
from curate.system.hub import MB, blobs, cached_commit, download, look_up
from curate.system.hub_errors import Repo, Unreachable
from curate.system.progress import Progress, Silent

_CONFIGS = ("adapter_config.json", "config.json")
_SMALL = (".json", ".jinja", ".model", ".txt", ".tiktoken")


@dataclass(frozen=True)
class Found:
    """A model whose configuration and tokenizer are here: its folder and, on the Hub, its commit.

    `missing` are weight files that have to be downloaded: their paths in the repository and their
    sizes in bytes.
    """

    at: Place
    folder: Path
    commit: str | None
    missing: Mapping[str, int]


def find(at: Place, progress: Progress) -> Found:
    """Look up a model, and download the small files of a Hub model.

    If the Hub can't be reached, the copy in the local cache is used, with a note to `progress`.

    Raises:
        CurateError: the model doesn't exist, or curate can't read it.
    """
    if at.repo is None:
        return Found(at, _local(at.folder), None, {})
    try:
        commit, files = look_up(at.repo, progress.note)
    except CurateError as error:
        found = _cached(at, at.repo) if isinstance(error, Unreachable) else None
        if found is None:
            raise type(error)(f"{error}{_nor_here(error)}") from error.__cause__
        progress.note(
            f"{at}: the Hub can't be reached; using the copy in the local cache, commit "
            f"{found.commit}"
        )
        return found
    inside = [path for path in files if path.rpartition("/")[0] == at.folder]
    _check(at, files, inside)
    small = [path for path in inside if path.endswith(_SMALL)]
    repo = Repo(at.repo.id, "model", commit, str(at))
    folder = {download(repo, path, progress.note).parent for path in small}.pop()
    weights = _weights(at, folder, inside)
    missing = {path: files[path] for path in weights if not _is_cached(repo, path)}
    return Found(at, folder, commit, missing)


def fetch_weights(found: Found, progress: Progress) -> None:
    """Download missing weights, with a note and progress.

    Raises:
        CurateError: see `curate.system.hub.call`.
    """
    if not found.missing or found.at.repo is None:
        return
    repo = Repo(found.at.repo.id, "model", found.commit, str(found.at))
    total = sum(found.missing.values())
    files = "1 file" if len(found.missing) == 1 else f"{len(found.missing)} files"
    progress.note(f"{repo}: fetching {total / MB:,.1f} MB in {files}")
    progress.start(f"fetching {repo}", round(total / MB), unit="MB")
    try:
        for path in found.missing:
            download(repo, path, progress.note, progress)
    finally:
        progress.stop()


def weights_differ(found: Found, reference: str, commit: str) -> bool:
    """Whether the weights on the Hub differ from those of a corpus's model.

    False if the Hub can't tell, for instance because a commit is gone.
    """
    known = at_commit(reference, commit)
    if known.repo is None or found.at.repo is None or not found.missing:
        return False
    try:
        old = blobs(known.repo)
        new = blobs(Repo(found.at.repo.id, "model", found.commit, str(found.at)))
    except CurateError:
        return False
    places = {path: f"{known.prefix}{path.rpartition('/')[2]}" for path in found.missing}
    return any(new[path] != old.get(place) for path, place in places.items())


def tokenizer_folder(reference: str, commit: str | None) -> Path:
    """The folder with the tokenizer of a corpus's model: as given, or at its commit.

    Raises:
        CurateError: it isn't here and can't be downloaded.
    """
    found = at_commit(reference, commit)
    here = found.repo and _snapshot(found.repo, found.repo.revision or "", found.folder)
    return here or find(found, Silent()).folder


def at_commit(reference: str, commit: str | None) -> Place:
    """The location of a corpus's model; for a Hub model, at the commit that was scored."""
    found = place(reference) if commit else Place(reference)
    if found.repo is None:
        return found
    return Place(found.folder, Repo(found.repo.id, "model", commit, reference))


def _nor_here(error: CurateError) -> str:
    """What to add if an id may be a misspelled path."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    cause = error.__cause__
    missing = isinstance(cause, RepositoryNotFoundError) and not isinstance(cause, GatedRepoError)
    if not missing and not isinstance(error, Unreachable):
        return ""
    return f"{'' if str(error).endswith('.') else '.'} No such local folder either."


def _local(reference: str) -> Path:
    path = Path(reference).expanduser()
    if path.is_file():
        raise CurateError(f"{reference}: a file. Give the folder of the model.")
    if not path.exists():
        raise CurateError(f"{reference}: no such folder. Check the path.")
    if any((path / name).is_file() for name in _CONFIGS):
        return path
    if (path / "snapshots").is_dir() and path.name.startswith("models--"):
        name = path.name.removeprefix("models--").replace("--", "/")
        raise CurateError(f"{reference}: a folder of the Hub's cache. Give {name} instead.")
    below = [each.parent.name for name in _CONFIGS for each in sorted(path.glob(f"*/{name}"))]
    raise CurateError(f"{reference} {_no_model(below)}")


def _no_model(folders: Iterable[str]) -> str:
    below = list(dict.fromkeys(folders))
    more = f". Give one of its folders: {', '.join(below[:10])}" if below else ""
    return (
        "holds no model: neither config.json (a checkpoint) nor adapter_config.json (a PEFT "
        f"adapter) is there{more}"
    )


def _check(at: Place, files: Iterable[str], inside: list[str]) -> None:
    """Reject what isn't a model, by the files' names alone."""
    names = {path.rpartition("/")[2] for path in inside}
    if not names & set(_CONFIGS):
        holders = [path.rpartition("/") for path in files if path.startswith(at.prefix)]
        below = [folder for folder, _, name in holders if name in _CONFIGS]
        raise CurateError(f"{at} {_no_model(below)}")
    kind = stem(adapter="adapter_config.json" in names)
    pickled = sorted(name for name in names if name.endswith(PICKLES))
    if names & {f"{kind}.safetensors", f"{kind}{INDEX}"}:
        return
    if pickled:
        raise CurateError(
            f"{at}: only has pickled weights ({pickled[0]}), which can run any code when "
            "they are read. Convert them to safetensors (with save_pretrained)."
        )
    raise CurateError(f"{at}: has no weights ({kind}.safetensors is missing)")


def _weights(at: Place, folder: Path, inside: list[str]) -> list[str]:
    """The paths of the weight files that loading reads; the small files are here."""
    kind = stem(adapter=is_adapter(folder))
    whole = f"{at.prefix}{kind}.safetensors"
    if whole in inside:
        return [whole]
    named = [f"{at.prefix}{name}" for name in shards(folder / f"{kind}{INDEX}")]
    for path in named:
        if path not in inside:
            raise CurateError(f"{at}: {path} is missing, but {kind}{INDEX} lists it")
    return named


def _cached(at: Place, repo: Repo) -> Found | None:
    """A model in the local cache, as of the last request to the Hub."""
    commit = cached_commit(repo)
    folder = commit and _snapshot(repo, commit, at.folder)
    if not folder:
        return None
    inside = [f"{at.folder}/{path.name}".lstrip("/") for path in folder.iterdir()]
    try:
        _check(at, inside, inside)
        _weights(at, folder, inside)
    except CurateError:  # incomplete: from a dry run or an interrupted download
        return None
    return Found(at, folder, commit, {})


def _snapshot(repo: Repo, commit: str, folder: str) -> Path | None:
    """The folder of a model in the local cache, if it has the model's configuration."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        root = snapshot_download(repo.id, revision=commit, local_files_only=True, allow_patterns=[])
    except LocalEntryNotFoundError:
        return None
    path = Path(root) / folder
    return path if any((path / name).is_file() for name in _CONFIGS) else None


def _is_cached(repo: Repo, path: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo.id, path, revision=repo.revision), str)
