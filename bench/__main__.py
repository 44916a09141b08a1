"""`dev/bench`: measures the gateway beside nginx and a straightforward gateway. See docs/performance.md."""

import argparse
import signal
import sys
import time
from pathlib import Path

from bench.bench import Bench
from bench.machine import description
from bench.page import write_page
from bench.results import Results
from bench.scenario import SYSTEMS, Scenario
from bench.scenarios import ALL
from bench.table import table
from bench.yardsticks import nginx_program


def main(arguments: list[str] | None = None) -> int:
    """The exit status; without arguments those of the command line count."""
    options = _options(arguments)
    rounds = 1 if options.smoke else options.rounds
    systems = [name for name in options.systems if name != "nginx" or nginx_program()]
    results = Results(description(), rounds)
    if options.json and options.json.exists():
        results.continue_from(options.json)
    failed = 0
    with Bench(smoke=options.smoke) as bench:
        needed = {system for name in options.only for system in ALL[name].systems}
        bench.begin(system for system in systems if system in needed)
        for name in options.only:
            results.forget(name)
            try:
                with bench.scenario():
                    _play(bench, ALL[name], systems, min(rounds, ALL[name].most_rounds), results)
            except (RuntimeError, OSError) as error:
                # The figures of an hour are not lost for it.
                failed += 1
                print(f"{name} failed: {error}", file=sys.stderr)
    print(table(results))
    if options.json:
        results.write(options.json)
    if failed:
        print(f"{failed} scenarios failed; the documentation stays as it was", file=sys.stderr)
        return 1
    if options.write_docs:
        write_page(results)
    return 0


def _play(bench: Bench, scenario: Scenario, systems: list[str], rounds: int, results: Results) -> None:
    """Each system in turn, again and again, so that a noisy minute hits all of them."""
    for number in range(rounds):
        for system in systems:
            if system not in scenario.systems:
                continue
            bench.settle()
            began = time.monotonic()
            figures = scenario.measure(bench, system)
            results.add(scenario.name, system, figures)
            shown = ", ".join(f"{name} {value:,.5g}" for name, value in figures.items())
            print(
                f"{scenario.name} {number + 1}/{rounds} {system}: {shown} ({time.monotonic() - began:.0f} s)",
                file=sys.stderr,
                flush=True,
            )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev/bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL), metavar="SCENARIO",
                        help="only these: " + ", ".join(ALL))  # fmt: skip
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM",
                        help="only these: " + ", ".join(SYSTEMS))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s; the medians count")
    parser.add_argument(
        "--smoke", action="store_true", help="everything in tiny: proves that the bench works"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write all figures; those of other scenarios that are in it already are kept",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table and plots of docs/performance.md"
    )
    options = parser.parse_args(arguments)
    parts = options.only != list(ALL) and not (options.json and options.json.exists())
    if options.write_docs and (options.smoke or parts or options.systems != list(SYSTEMS)):
        parser.error("--write-docs needs a whole run, or the --json of one")
    return options


if __name__ == "__main__":
    # Python would end at once, and leave all its servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
