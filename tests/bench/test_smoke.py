"""The bench measures everything that its table has: a tiny run of all scenarios, in which no time counts."""

import json
import shutil
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.page import BEGIN, PAGE, write_page
from bench.results import Results
from bench.scenarios import ALL
from bench.table import table


@pytest.mark.slow
def test_a_smoke_run_measures_every_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "result.json"
    assert main(["--smoke", "--json", str(written)]) == 0
    document = json.loads(written.read_text())
    results = Results(document["machine"], document["rounds"], document["values"])

    for name, scenario in ALL.items():
        assert systems(results, name) == set(scenario.systems), name
        if not scenario.plot:
            assert set(results.values[name]) == set(scenario.metrics), name
        if "lost" in scenario.metrics:
            assert results.values[name]["lost"] == {system: [0] for system in scenario.systems}, name
    assert results.figure("storm", "streams_per_turn", "postgres") == 1

    assert capsys.readouterr().out.strip() == table(results)
    page = tmp_path / "performance.md"
    shutil.copy(PAGE, page)
    write_page(results, page)
    assert f"{BEGIN}\n\nMeasured on " in page.read_text()
    assert f"\n{table(results)}\n" in page.read_text()
    plots = sum(scenario.plot is not None for scenario in ALL.values())
    assert page.with_suffix(".svg").read_text().count("<g ") == plots

    # One scenario once more, into the same file.
    assert main(["--smoke", "--only", "turns", "--systems", "sqlite", "--json", str(written)]) == 0
    values = json.loads(written.read_text())["values"]
    assert {name: values[name] for name in ALL if name != "turns"} == {
        name: document["values"][name] for name in ALL if name != "turns"
    }
    assert set(values["turns"]["turns_per_s"]) == {"sqlite"}


def systems(results: Results, scenario: str) -> set[str]:
    """The systems of which this scenario was measured."""
    return {system for measured in results.values[scenario].values() for system in measured}
