"""`curate.json`: which models scored a corpus, with what template, over which sources."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from curate.errors import CurateError
from curate.storage import parts

FORMAT_VERSION: Final = 2
NAME = "curate.json"
NAME_OF_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A model's name is also a folder's, and appears in SQL, tables and reports."""
TEMPLATE = "chat_template.jinja"
"""The template that was given instead of the models' own, kept so that a run can be completed."""


@dataclass(frozen=True)
class ModelEntry:
    """One model of a corpus, as its scores were made.

    `fingerprint` is the digest of the weights, `tokenizer` that of the tokenizer: models with
    equal `tokenizer` are comparable per token. `dtype` and `backend` are those of the last run.
    `commit` is that of the hub's repository which the model, or its adapter, is from.
    """

    role: Literal["aligned", "misaligned"]
    reference: str
    fingerprint: str
    tokenizer: str
    dtype: str
    backend: str
    commit: str | None = None

    @property
    def pinned(self) -> str:
        """The reference, of a model of the hub at the commit that made these scores."""
        if self.commit is None:
            return self.reference
        return f"{self.reference.partition('@')[0]}@{self.commit}"


@dataclass(frozen=True)
class Settings:
    """What has to be equal for every score of a corpus: the encoded text and its limit.

    `template` is the digest over template text, arguments and pinned date; `max_length` counts
    tokens of prompt and answer (None: no limit).
    """

    template: str
    template_args: dict[str, Any]
    max_length: int | None


@dataclass(frozen=True)
class Run:
    """A model's last run: examples, tokens of prompt and answer, seconds after loading."""

    examples: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Only:
    """Why a model has not scored all: the condition, and the misaligned models of its gaps."""

    where: str
    over: list[str]


@dataclass(frozen=True)
class Race:
    """A race as it was asked for, and what came of it.

    `top` is a share below 1, or a count; `audit` counts the sample. The numbers of a race that
    ended: the examples of the top, and the passes made of those that a full run makes.
    """

    top: float
    recall: float
    audit: int
    seed: int
    depth: int | None = None
    passes: list[int] = field(default_factory=list)


@dataclass
class Manifest:
    """All that `curate.json` holds.

    `keep_tokens`: every score gets its tokens' log-probs. `columns` are the sources' own, by name
    with their SQL types. `dropping` holds models and sources that are being taken out, and are
    half gone after a kill. `only` says of models, by name, which examples they were not asked for,
    `race` likewise of all models.
    """

    format_version: Literal[2]  # without a default: JSON that is not ours must not pass
    settings: Settings | None = None
    models: dict[str, ModelEntry] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    keep_tokens: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    dropping: dict[str, list[str]] = field(default_factory=dict)
    only: dict[str, Only] = field(default_factory=dict)
    race: Race | None = None

    def add_source(self, record: dict[str, Any]) -> None:
        """Note a source as it was asked for; asking for the same again changes nothing."""
        if record not in self.sources:
            self.sources.append(record)


def load(folder: Path, *, to_finish: bool = False) -> Manifest:
    """Read the manifest of a corpus folder.

    Raises:
        CurateError: there is none, it is broken, or another version wrote it; or something is
            being taken out of the corpus, and the caller is not `to_finish` that.
    """
    path = folder / NAME
    parts.refuse_address(folder, corpus=True)
    try:
        found = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CurateError(
            f"{folder}: no corpus here ({NAME} is missing); make one with "
            f"`curate score SOURCE --corpus {folder} --aligned ... --misaligned ...`"
        ) from None
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except ValidationError as error:
        raise CurateError(f"{path}: {_invalid(error)}") from None
    if wrong := [name for name in found.models if not NAME_OF_MODEL.fullmatch(name)]:
        why = f"{wrong[0][:40]!r} is not a valid model name"
        raise CurateError(f"{path}: not a curate manifest ({why})")
    if found.dropping and not to_finish:
        raise CurateError(
            f"{folder}: something is being taken out of it, or that was interrupted; "
            f"`curate drop -c {shlex.quote(str(folder))}` finishes it"
        )
    return found


def known_models(folder: Path) -> set[str]:
    """The names of a corpus's models; none where there is no corpus yet."""
    return set(load(folder).models) if (folder / NAME).exists() else set()


def save(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, whole or not at all."""
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False, sort_keys=True)
    parts.write_text(folder / NAME, text + "\n")


def _invalid(error: ValidationError) -> str:
    """What is wrong with a manifest, by its first error."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if where == "format_version" and first["type"] != "missing":
        return (
            f"has format {first['input']!r}, and this curate reads format {FORMAT_VERSION}; "
            "upgrade curate, or score into a new folder"
        )
    return (
        f"not a curate manifest ({where}: {first['msg']}); restore it from a backup, or score "
        "into a new folder"
    )
