"""The report in a real browser: it draws, filters, fetches nothing, and keeps hostile text text."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import curate
from curate.corpus.corpus import Corpus, dicts
from curate.corpus.writer import open_for_writing
from curate.errors import CurateError
from curate.report import advice, charts, findings, lens
from curate.selection.recipe import Recipe
from curate.storage.schema import SCORED
from tests.conftest import Cli
from tests.corpora import SETTINGS, corpus, entry, rows

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOSTILE = (
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 2'>",
    "<!--<script>",
    "{{ 7 * 7 }} {% raw %} ${window.ran = 3} </details></main></style>",
    "\u2028\u2029\u202e\x1b[31m ]]> &lt;b&gt; \U0001f9e8",
    '"><iframe src="https://example.com/x"></iframe>',
    "javascript:window.ran=4",
)
SOURCES = ("plain.jsonl", "</script><script>window.ran = 5</script>", "deep/folder/plain.jsonl")
DRAWN = "() => document.documentElement.dataset.drawn"
ALONE = "nothing to compare it with"
N = 210  # examples
TOP = 60  # of them exported


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three sources under four models, whose every text and name would like to run."""
    path = tmp_path_factory.mktemp("hostile") / "c</title><script>ran=6</script>"
    answers = [
        ("I'm sorry, I cannot. " if i % 10 == 0 else "") + f"{HOSTILE[i % len(HOSTILE)]} answer {i}"
        for i in range(N)
    ]
    table = pa.concat_tables(
        rows(answers[first::3], source=source) for first, source in enumerate(SOURCES)
    )
    names = ("aligned", "medical", "legal", "code")
    with open_for_writing(path) as writer:
        writer.add_models(
            {name: entry("misaligned" if place else name) for place, name in enumerate(names)},
            SETTINGS,
        )
        writer.add_examples(table)
        for place, name in enumerate(names):
            made = []
            for i, example in enumerate(table["example_id"].to_pylist()):
                n_tokens = 4 + i % 60
                loss = 1.0 + (i * 7919 % N) / N + place * (0.1 + (i * (31 + place) % N) / N)
                made.append(
                    {
                        "example_id": example,
                        "n_tokens": n_tokens,
                        "logprob": -loss * n_tokens,
                        "truncated": False,
                        "token_logprobs": [-loss] * n_tokens,
                        "tokens": [f"<i>{t}" for t in range(n_tokens)] if place == 0 else None,
                    }
                )
            writer.add_scores(name, pa.Table.from_pylist(made, schema=SCORED))
    return Corpus(path)


def manifest(corpus: Corpus, folder: Path, **options: Any) -> Path:
    """The manifest of an export by a recipe of these options."""
    output = folder / f"safe-{len(list(folder.iterdir()))}.jsonl"
    curate.export(corpus, output, Recipe(**{"top": TOP} | options))
    return output.with_name(f"{output.name}.manifest.json")


@pytest.fixture(scope="module")
def made(hostile: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of an export of 60 rows."""
    return manifest(hostile, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def page_file(hostile: Corpus, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on that export."""
    output = tmp_path_factory.mktemp("page") / "report.html"
    curate.report(hostile, output, made)
    return output


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`, or Chrome")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page with all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        touch = width < 500
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch
        )
        self.page = context.new_page()
        self.page.set_default_timeout(180_000)
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function(DRAWN)

    def drag(self, chart: str, start: float, end: float) -> None:
        """Draw a brush over these shares of a chart's drawing area."""
        plot = self.page.locator(f'[data-chart="{chart}"]')
        plot.scroll_into_view_if_needed()
        box = plot.locator("svg .mark-group .background").first.bounding_box()
        y = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + start * box["width"], y)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end * box["width"], y, steps=6)
        self.page.mouse.up()

    def tap(self, chart: str, value: str) -> None:
        """Tap a bar where the eye sees it, whichever layer is in front there."""
        mark = self.page.locator(f"[data-chart={chart}] svg [aria-label*='kind: {value}']").first
        mark.scroll_into_view_if_needed()
        box = mark.bounding_box()
        self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def kept(self) -> int:
        """How many examples the page says are kept; waits for the brush."""
        self.page.locator("#filter").wait_for(state="visible")
        self.page.wait_for_timeout(300)
        return int(self.page.inner_text("#kept").split()[0].replace(",", ""))


@pytest.fixture(scope="module")
def opened(browser: Any, page_file: Path) -> Opened:
    """The report on a laptop; tests that filter clear the filter again."""
    return Opened(browser, page_file)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_draws_on_laptop_and_phone_and_fetches_nothing(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    """Every chart has marks, nothing scrolls sideways, no complaint, no request but the file.

    A change of the system's colours draws again.
    """
    seen = Opened(browser, page_file, width, scheme)
    plots = seen.page.locator(".plot")
    assert plots.count() >= 11
    for place in range(plots.count()):
        name = plots.nth(place).get_attribute("data-chart")
        if name == "losses":
            colours = "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"  # noqa: E501
            assert plots.nth(place).locator("canvas").evaluate(colours) > 20
        else:
            assert plots.nth(place).locator("svg .role-mark > *").count() > 0, name
        assert plots.nth(place).bounding_box()["width"] > 0.6 * (width - 80) / (1 + (width > 500))
    assert seen.page.evaluate("document.documentElement.scrollWidth") == width
    ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
    bar = "document.querySelector('[data-chart=sources] .role-mark > path').getAttribute('fill')"
    before = seen.page.evaluate(bar)
    seen.page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    seen.page.wait_for_timeout(100)
    seen.page.wait_for_function(DRAWN)
    assert before != seen.page.evaluate(bar) is not None
    assert seen.complaints == []
    assert seen.requests == [page_file.as_uri()] or seen.requests[1:] == ["data:,"]
    seen.page.context.close()


def test_hostile_text_stays_text(opened: Opened, hostile: Corpus) -> None:
    """Nothing ran, nothing was parsed as HTML, and the first row reads as it was written."""
    assert opened.page.evaluate("window.ran") is None
    assert opened.page.locator("script").count() == 3
    assert opened.page.locator("iframe, img, body b, object, embed").count() == 0
    ids = hostile.sql("select answer, prompt from gaps where rank_kept = 1").fetchall()[0]
    first = opened.page.locator(".reading details").first
    assert first.locator(".message .said").first.text_content() == ids[1]
    data = opened.page.evaluate("JSON.parse(document.getElementById('data').textContent).examples")
    shown = {example["id"]: example["answer"] for example in data}
    stored = hostile.sql("select example_id, answer from examples").fetchall()
    assert {key: text[:50] for key, text in shown.items()} == {
        key: text[:50] for key, text in stored if key in shown
    }


def test_a_brush_filters_and_counts_every_example(opened: Opened, hostile: Corpus) -> None:
    """Half of the gaps' axis, its refusals, then all refusals: the counts are SQL's."""
    opened.drag("gaps", 0.5, 1.0)
    over_half = opened.kept()
    gaps = [row[0] for row in hostile.gaps().select("gap").fetchall()]
    low, step, bins = lens.gap_bins(*_ends(hostile))
    middle = low + step * bins / 2
    near = sum(abs(gap - middle) < 2 * step for gap in gaps)
    assert abs(over_half - sum(gap > middle for gap in gaps)) <= near
    assert 0 < over_half < N
    cards = opened.page.locator("#examples li")
    assert cards.count() > 0
    for text in cards.all_text_contents():
        assert float(re.search(r"gap (\d\.\d+)", text)[1]) > middle - 2 * step  # type: ignore[index]
    opened.tap("refusals", "refusal")
    assert 0 < opened.kept() < over_half
    opened.page.click("#clear")
    opened.page.locator("#filter").wait_for(state="hidden")
    opened.page.wait_for_function(DRAWN)
    opened.tap("refusals", "refusal")
    refusals = hostile.sql("select count(*) from gaps where is_refusal").fetchall()[0][0]
    assert opened.kept() == refusals
    opened.page.click("#clear")
    assert opened.complaints == []


def test_a_point_shows_its_example(opened: Opened) -> None:
    """A click on a point keeps its text under the chart."""
    place = opened.page.locator("[data-chart=losses] canvas")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    for across, up in product(range(1, 60), (0.3, 0.45, 0.6, 0.7)):  # until a point is near
        opened.page.mouse.click(
            box["x"] + box["width"] * across / 60, box["y"] + box["height"] * up
        )
        if opened.page.locator("#pinned").is_visible():
            break
    assert re.search(r"answer \d+", opened.page.inner_text("#pinned .sample-answer"))
    assert opened.page.evaluate("window.ran") is None


def test_tokens_are_coloured_by_their_gap(opened: Opened, hostile: Corpus) -> None:
    """Each kept token stands there as text, with the mean misaligned less the aligned loss."""
    key = hostile.sql("select example_id, answer from gaps where rank_kept = 1").fetchall()[0][0]
    losses = dict(
        hostile.sql(
            "select role, avg(nll) from scores join models using (model) "
            "where example_id = $id group by role", {"id": key},
        ).fetchall()
    )  # fmt: skip
    answer = opened.page.locator(".reading .answer .said").first
    assert answer.text_content().startswith("<i>0<i>1<i>2<i>3")
    token = answer.locator("i").first
    gap = losses["misaligned"] - losses["aligned"]
    assert float(token.get_attribute("data-gap")) == pytest.approx(gap, abs=0.006)
    assert re.fullmatch(r"p[1-4]", token.get_attribute("class"))


def test_the_pages_figures_are_sqls(hostile: Corpus, made: Path) -> None:
    """The page shows what the export took; cells count every ranked example once."""
    ranking = findings.find(hostile, made).ranking
    assert ranking
    tables = ranking.tables
    assert sum(cell["n"] for cell in tables["cells"]) == N
    best = hostile.sql("select example_id from gaps where rank_kept <= 60 order by rank_kept")
    assert [row["id"] for row in ranking.taken] == [key for (key,) in best.fetchall()]
    assert sum(row["taken"] for row in tables["composition"]) == TOP == ranking.totals["rows"]
    assert ranking.totals["refusals"] == 0
    assert [row["n"] for row in tables["gap_by_source"]] == [70, 70, 70]
    assert (tables["depth"][-1]["depth"], tables["depth"][-1]["refusals"]) == (N, 21)
    lengths = [row["name"] for row in tables["gap_by_length"]]
    assert lengths == ["4–7", "8–15", "16–31", "32–63"]


def test_without_an_export_it_shows_the_best_tenth(hostile: Corpus) -> None:
    """As the queries do; leaving a model out, or another epsilon, then changes the top."""
    ranking = findings.find(hostile).ranking
    assert ranking
    assert (len(ranking.shown.ids), ranking.shown.manifest) == (N // 10, None)
    assert {row["top"] for row in ranking.tables["leave_one_out"]} == {N // 10}
    assert ranking.tables["leave_one_out"] == dicts(hostile.query("leave_one_out"))
    for name in ("leave_one_out", "epsilon"):
        assert any(row["overlap"] < 1 for row in ranking.tables[name])


@pytest.mark.parametrize("output", ["mix.jsonl", "mix.parquet", "mix"])
def test_the_command_of_the_page_repeats_the_export(
    hostile: Corpus, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """As it stands, for a single file and for a folder."""
    curate.export(hostile, tmp_path / output, Recipe(top=3))
    made = tmp_path / (f"{output}.manifest.json" if "." in output else f"{output}/manifest.json")
    command = shlex.split(advice.export_command(findings.find(hostile, made)))
    monkeypatch.chdir(tmp_path)
    ran = cli(*command[1:])
    assert ran.code == 0 and "the same bytes" in ran.out, ran.err


def test_a_wrong_manifest_is_refused(made: Path, hostile: Corpus, tmp_path: Path) -> None:
    """That of another corpus, and a file that is none; nothing is written."""
    other = corpus(tmp_path / "c", ["one", "two"], {"base": [1.0, 2.0], "bad": [2.0, 4.0]})
    none = tmp_path / "none.json"
    none.write_text('{"safe": []}')
    for opened, path, words in (
        (other, made, "not ranked in this corpus"),
        (hostile, none, "not an export's manifest"),
        (hostile, tmp_path / "gone.json", "can't be read"),
        (
            other,
            made.with_name(made.name.removesuffix(".manifest.json")),
            "not ranked in this corpus",
        ),
    ):
        with pytest.raises(CurateError, match=words):
            curate.report(opened, tmp_path / "r.html", path)
    assert not (tmp_path / "r.html").exists()


def test_the_models_are_compared_by_the_recipe(hostile: Corpus, tmp_path: Path) -> None:
    """What is held out is in no chart, and the top is the recipe's, by its own epsilon."""
    path = manifest(hostile, tmp_path, epsilon=0.2, hold_out=("code",))
    ranking = findings.find(hostile, path).ranking
    assert ranking
    assert {row["model"] for row in ranking.tables["agreement"]} == {"legal", "medical"}

    def top(hold_out: list[str]) -> set[str]:
        ranked = hostile.gaps(0.2, hold_out).filter(f"rank_kept <= {TOP}")
        return {key for (key,) in ranked.select("example_id").fetchall()}

    stay = {row["left_out"]: row["stay"] for row in ranking.tables["leave_one_out"]}
    assert stay == {name: len(top(["code"]) & top(["code", name])) for name in ("legal", "medical")}
    same = {row["epsilon"]: row["overlap"] for row in ranking.tables["epsilon"]}
    assert same[0.2] == 1 and same[10] < 1
    plain = findings.find(hostile, manifest(hostile, tmp_path, metric="difference")).ranking
    assert plain and plain.tables["epsilon"] == []


def test_a_large_corpus_is_sampled_fairly_and_says_so(
    hostile: Corpus, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draw ignores rank, is the same twice, and the sentence gives both numbers."""
    monkeypatch.setattr(findings, "POINTS", 100)
    first, second = (findings.find(hostile, made).ranking for _ in range(2))
    assert first and second and first.sample == second.sample
    ranks = {row["rank"] for row in first.sample}
    assert len(ranks) == 100
    assert abs(sum(ranks) / 100 - N / 2) < 5 * (N / 12**0.5) / 10  # five standard errors
    curate.report(hostile, tmp_path / "r.html", made)
    assert (
        "a uniform random sample of 100 of the 210 ranked examples"
        in (tmp_path / "r.html").read_text()
    )


@pytest.mark.parametrize("metric", ["relative", "difference"])
def test_the_cut_line_is_the_gaps_formula(hostile: Corpus, metric: Any) -> None:
    """A point's own gap puts the line through that point."""
    recipe = Recipe(metric=metric, epsilon=0.5)
    gaps = hostile.gaps(0.5, metric=metric).select("gap, aligned_nll, misaligned_nll")
    for gap, aligned, misaligned in gaps.limit(10).fetchall():
        intercept, slope = charts.cut_line(recipe, gap)
        assert intercept + slope * aligned == pytest.approx(misaligned)


def test_plots_are_the_same_charts(
    hostile: Corpus, made: Path, page_file: Path, tmp_path: Path
) -> None:
    """A PNG and a sound SVG for each chart of the page, names of hostile sources inside as text."""
    folder = tmp_path / "plots"
    curate.report(hostile, export=made, plots=folder)
    on_page = set(re.findall(r'data-chart="(\w+)"', page_file.read_text("utf-8")))
    assert {path.stem for path in folder.glob("*.svg")} == on_page
    assert {path.stem for path in folder.glob("*.png")} == on_page
    for name in on_page:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        tags = {element.tag for element in ET.parse(folder / f"{name}.svg").iter()}
        assert not any(tag.endswith(("script", "image", "foreignObject")) for tag in tags)


def test_the_page_is_small_and_its_data_end_nothing(page_file: Path) -> None:
    """Whole in one file; the JSON inside has nothing that ends its element."""
    text = page_file.read_text("utf-8")
    assert len(text) < 4_000_000
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert data and not re.search("[<>&\u2028\u2029]", data[1])
    assert json.loads(data[1])["charts"]


def test_without_a_ranking_it_says_what_is_missing(browser: Any, tmp_path: Path) -> None:
    """A corpus that only the aligned model, or not all have scored, has a page that says so."""
    alone = corpus(tmp_path / "alone", ["one", "two"], {"base": [1.0, 2.0]})
    curate.report(alone, tmp_path / "alone.html")
    half = corpus(tmp_path / "half", ["one"], {"base": [1.0], "bad": [None]})
    curate.report(half, tmp_path / "half.html")
    for name, told in (("alone", "Score a misaligned model"), ("half", "Finish scoring")):
        seen = Opened(browser, tmp_path / f"{name}.html")
        assert "Nothing is ranked yet" in seen.page.inner_text("main")
        assert told in seen.page.inner_text("#next")
        assert seen.complaints == []
        seen.page.context.close()


def test_one_misaligned_model_and_one_example_are_enough(tmp_path: Path) -> None:
    """Nothing to correlate, an axis of no width, every row taken: still a page and pictures."""
    small = corpus(tmp_path / "c", ["the only answer"], {"base": [1.0], "bad": [2.0]})
    written = curate.report(small, tmp_path / "small.html", plots=tmp_path / "plots")
    text = (tmp_path / "small.html").read_text("utf-8")
    assert ALONE in text and "Add a second misaligned model" in text
    assert len(written) > 10


def test_a_giant_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    """A message of a million characters does not make a page that no phone opens."""
    big = corpus(tmp_path / "c", ["x" * 1_000_000], {"base": [1.0], "bad": [2.0]})
    curate.report(big, tmp_path / "big.html")
    text = (tmp_path / "big.html").read_text("utf-8")
    assert "980,000 characters left out" in text and len(text) < 2_000_000


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-0.031, 0.4), (2.0, 2.0), (0.0, 0.0), (-1e-9, 1e-9), (5, 9000)]
)
def test_bins_are_round_and_cover(low: float, high: float) -> None:
    """Every gap between the ends has a bin, and there are about as many as asked for."""
    first, width, bins = lens.gap_bins(low, high)
    assert first <= low and high <= first + width * bins
    assert 15 <= bins <= 60
    assert float(f"{width:.1e}") == pytest.approx(width)


def test_the_command_writes_both_and_refuses_to_replace(
    cli: Cli, hostile: Corpus, tmp_path: Path
) -> None:
    """`curate report` says what it wrote; a second run without --force changes nothing."""
    page, plots = tmp_path / "r.html", tmp_path / "plots"
    command = ("report", "-c", hostile.path, "-o", page)
    ran = cli(*command, "--plots", plots)
    assert ran.code == 0, ran.err
    assert str(page) in ran.out and "pictures" in ran.out
    before = page.read_bytes()
    ran = cli(*command)
    assert ran.code == 1 and "--force" in ran.err and page.read_bytes() == before
    for wrong, words in (
        (("--plots", plots), "not empty"),
        ((), "--output"),
        (("-o", plots), "folder"),
    ):
        ran = cli(*command[:3], *wrong)
        assert ran.code == 1 and words in ran.err


def test_without_the_extra_the_error_says_how_to_get_it(
    hostile: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Altair and vl-convert are an extra."""
    monkeypatch.setattr(import_module("curate.report.report"), "find_spec", lambda name: None)
    with pytest.raises(CurateError, match=r"\.\[report\]"):
        curate.report(hostile, tmp_path / "r.html")


def _ends(hostile: Corpus) -> tuple[float, float]:
    found = hostile.sql(
        "select quantile_cont(gap, 0.002), quantile_cont(gap, 0.998) from gaps"
    ).fetchall()[0]
    return found[0], found[1]
