"""The pages hold together: the index has them all, links lead somewhere, tables are those of the code."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from agent_gateway import metrics
from agent_gateway.backend.fold.reasons import failure_of
from agent_gateway.routes.http.errors import STATUSES
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("clients/*/README.md"),
        *(ROOT / "deploy").rglob("*.md"),
        *DOCS.rglob("*.md"),
    ]
)
PROSE = [*PAGES, ROOT / "tests" / "README.md"]
WIDTH = 110
"""Characters of a line of prose. Rows of tables and code may be longer."""
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def text_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The names by which links find the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def rows_of(page: str, title: str) -> list[list[str]]:
    """The cells of the table under the header cell with this title."""
    table = re.split(rf"^\| {re.escape(title)} \|.*\n\|[-| ]+\n", text_of(DOCS / page), flags=re.MULTILINE)[1]
    lines = table.split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def words_of(cell: str) -> list[str]:
    """The words that a cell has in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_has_a_target(page: Path) -> None:
    for path, anchor in LINK.findall(text_of(page)):
        if path.startswith(("http:", "https:")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} does not exist"
        if anchor:
            assert anchor in anchors_of(target), f"{path} has no heading #{anchor}"


@pytest.mark.parametrize("page", PROSE, ids=[str(page.relative_to(ROOT)) for page in PROSE])
def test_prose_is_wrapped_at_one_width(page: Path) -> None:
    prose = [line for line in text_of(page).splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in prose if len(line) > WIDTH] == []


def test_every_path_in_contributing_exists() -> None:
    """A name next to a path must exist in that file."""
    text = text_of(ROOT / "CONTRIBUTING.md")
    paths = [word for word in words_of(text) if re.fullmatch(r"[\w.]+/[\w./-]*", word) and "NNNN" not in word]
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []
    named = re.findall(r"`([\w./]+\.py)` \(`(\w+)`\)", text)
    assert named
    for path, name in named:
        assert re.search(rf"\b(def|class) {name}\b", (ROOT / path).read_text("utf-8")), (
            f"{path} has no {name}"
        )


def test_the_index_links_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / path).resolve() for path, _ in LINK.findall(text_of(index))}
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in linked and page != index] == []


@pytest.mark.parametrize("page", sorted((DOCS / "design").glob("*.md")), ids=lambda page: page.name)
def test_json_examples_are_valid(page: Path) -> None:
    for block in re.findall(r"^```json\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        rest = block.strip()
        while rest:
            _, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].strip()


def test_the_error_codes_of_the_page_equal_the_code() -> None:
    rows = rows_of("design/service-api.md", "status | codes")
    assert {code: int(status) for status, codes in rows for code in words_of(codes)} == dict(STATUSES)


def test_each_reason_of_the_run_protocol_has_the_documented_code() -> None:
    rows = rows_of("design/run-protocol.md", "`error_type` or `reason` | the client's error")
    assert len(rows) == 16
    for reasons, error in rows:
        [code] = words_of(error)
        assert STATUSES[code] == int(error.split()[0])
        for reason in words_of(reasons) or ["Unheard"]:
            assert failure_of(reason, None, "").code == failure_of(None, reason, "").code == code


def test_the_page_of_metrics_has_each_with_its_labels() -> None:
    shown = {words_of(name)[0]: words_of(labels) for name, labels, _ in rows_of("metrics.md", "metric")}
    made = {}
    for value in vars(metrics).values():
        metric = value._metric if isinstance(value, metrics.Labelled) else value
        if isinstance(metric, Counter | Gauge | Histogram):
            suffix = "_total" if isinstance(metric, Counter) else ""
            made[f"{metric._name.removeprefix('agent_gateway_')}{suffix}"] = list(metric._labelnames)
    assert shown == made


def test_the_traps_of_the_run_protocol_were_recorded() -> None:
    rows = rows_of("design/run-protocol.md", "what happens | recorded in | what the gateway does")
    names = [name for _, recorded, _ in rows for name in words_of(recorded)]
    assert len(names) >= 5
    for name in names:
        assert list((ROOT / "tests" / "recorded").glob(name)), f"{name} was not recorded"
