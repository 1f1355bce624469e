"""Score what models lack of some examples: a whole run, or one stage of a race."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from curate import backends
from curate.backends import base
from curate.corpus.corpus import Corpus
from curate.corpus.writer import Writer
from curate.errors import CurateError
from curate.scoring.collect import ModelRun
from curate.scoring.members import Member
from curate.scoring.passes import missing, run_pass
from curate.system.progress import Progress


def score_members(
    writer: Writer,
    members: Sequence[Member],
    compute: base.Compute,
    progress: Progress,
    keep_tokens: bool,
    wanted: pa.Table | None = None,
) -> list[ModelRun]:
    """Score what each model lacks of the examples `wanted`; models of one engine share a pass.

    Raises:
        CurateError: see `run_pass`.
    """
    runs = [ModelRun(member.model.name, member.model.role) for member in members]
    view = Corpus(writer.path)  # one for all passes: opening it takes a while with many models
    counts = {run.name: missing(view, run.name, keep_tokens, wanted) for run in runs}
    if any(counts.values()) and not members[0].template.reasoning:
        _tell_of_reasoning(view, members[0].model.name, progress)
    for at, run in enumerate(runs, 1):
        bare = counts[run.name] - missing(view, run.name, False, wanted) if keep_tokens else 0
        if not counts[run.name]:
            progress.note(f"{run.name} ({at} of {len(runs)}): nothing is missing")
        elif bare:
            progress.note(f"{run.name}: {bare:,} scores have no tokens, and are computed again")
    lacking = [member.model for member in members if counts[member.model.name]]
    for models in backends.groups(lacking, compute):
        names = [model.name for model in models]
        places = [at for at, run in enumerate(runs) if run.name in names]
        numbers = ", ".join(str(at + 1) for at in places)
        try:
            run_pass(
                writer,
                view,
                [(members[at], runs[at]) for at in places],
                f"{', '.join(names)} ({numbers} of {len(runs)})",
                sum(counts[name] for name in names),
                compute,
                progress,
                keep_tokens=keep_tokens,
                wanted=wanted,
            )
        except CurateError as error:
            if not any(run.scored for run in runs):
                raise
            why = str(error).removesuffix(".")
            raise CurateError(f"{why}. Scores so far are kept; run it again to resume.") from error
    return runs


def _tell_of_reasoning(view: Corpus, aligned: str, progress: Progress) -> None:
    """A note if answers have reasoning that the chat template doesn't read."""
    thought = "select count(*) from examples where messages[-1].reasoning_content is not null"
    if count := view.sql(thought).fetchall()[0][0]:
        progress.note(
            f"{aligned}: its chat template does not read reasoning; examples that are scored "
            f"without it: {count:,}"
        )
