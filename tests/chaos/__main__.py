"""The suite by hand: `dev/chaos --seeds 100 --seconds 20`."""

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

from tests.chaos.faults import ALL_FAULTS
from tests.chaos.guarantees import write_matrix
from tests.chaos.postgres import ChaosPostgres
from tests.chaos.report import Report
from tests.chaos.run import run_seed
from tests.chaos.summary import summary
from tests.chaos.world import Config


def main() -> int:
    options = _options()
    # The scripted backend's server logs a traceback for every request that was cut.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    faults = (frozenset(options.faults.split(",")) if options.faults else ALL_FAULTS) - frozenset(
        ["none", *options.without.split(",")]
    )
    if unknown := faults - ALL_FAULTS:
        _say(f"unknown faults {sorted(unknown)}; there are {sorted(ALL_FAULTS)}")
        return 2
    base = Config(
        seed=0,
        seconds=options.seconds,
        processes=options.processes,
        agents=options.agents,
        talks=options.talks,
        faults=faults,
        queue=not options.no_queue,
    )
    total: Report | None = None
    with ChaosPostgres() as postgres:
        for seed in range(options.seed, options.seed + options.seeds):
            report = run_seed(replace(base, seed=seed), postgres)
            _tell(report, options.logs)
            if total is None:
                total = report
            else:
                total.add(report)
    assert total is not None
    _say(summary(total))
    if options.report:
        options.report.write_text(json.dumps(total.as_json(), indent=1) + "\n")
    if options.write_guarantees:
        write_matrix(total)
    return 1 if total.violations else 0


def _tell(report: Report, logs: Path | None) -> None:
    counts = report.counts
    _say(
        f"seed {report.seeds[0]}: {counts['turns']} turns, {counts['faults']} faults, "
        f"{counts['adoptions']} adoptions, {len(report.violations)} violations"
    )
    if report.violations:
        _say(report.failure())
        if logs:
            logs.mkdir(parents=True, exist_ok=True)
            for number, log in enumerate(report.logs):
                (logs / f"seed-{report.seeds[0]}-process-{number}.log").write_text(log)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev/chaos", description="Breaks a fleet of gateways and checks its promises."
    )
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each is broken (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--processes", type=int, default=3, help="gateway processes (default 3)")
    parser.add_argument(
        "--agents",
        type=int,
        default=0,
        help="processes of the embedded agent in place of the scripted backend (default 0)",
    )
    parser.add_argument("--talks", type=int, default=20, help="conversations at the same time (default 20)")
    parser.add_argument("--faults", default="", help="only these kinds, separated by commas; `none` for none")
    parser.add_argument("--without", default="none", help="all but these kinds")
    parser.add_argument("--no-queue", action="store_true", help="no client sends while a turn runs")
    parser.add_argument("--report", type=Path, help="write all numbers to this JSON file")
    parser.add_argument("--logs", type=Path, help="keep the logs of processes of bad seeds in this folder")
    parser.add_argument(
        "--write-guarantees", action="store_true", help="write the measured table into docs/guarantees.md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
