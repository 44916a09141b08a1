"""A pytest plugin: a process that has run tests saves what coverage measured before it leaves.

A worker of pytest-xdist that takes longer than ten seconds to leave is killed, for example one that stops a
database on a busy machine. What it had measured was lost then, which is half of everything.
"""

import sys

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    # Whoever measures has imported it.
    if coverage := sys.modules.get("coverage"):
        measuring = coverage.Coverage.current()
        if measuring is not None:
            measuring.save()
