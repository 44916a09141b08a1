"""A pytest plugin: a run in which a test was skipped, or is expected to fail, is not a good run.

Loaded by the pytest settings in pyproject.toml. TEST_ALLOW_SKIPS=1 lets skips pass
on a machine that lacks something.
"""

import os

import pytest


def _not_run(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("TEST_ALLOW_SKIPS") == "1":
        return 0
    return sum(len(reporter.stats.get(kind, [])) for kind in ("skipped", "xfailed"))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and _not_run(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := _not_run(config):
        terminalreporter.section("skipped tests fail the run", red=True)
        terminalreporter.line(f"{count} skipped or expected to fail; TEST_ALLOW_SKIPS=1 allows it")
