"""A pytest plugin: a test that takes too long (`timeout` in pyproject.toml) prints what its tasks wait for.

The stacks of threads alone say nothing of what an event loop waits for.
"""

import asyncio
import gc
import io
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and "from pytest-timeout" in str(call.excinfo.value):
        for task in gc.get_objects():
            if isinstance(task, asyncio.Task) and not task.done():
                stack = io.StringIO()
                task.print_stack(file=stack)
                report.sections.append(("Pending task", f"{task!r}\n{stack.getvalue()}"))
        # The loop that it leaves behind would make others fail.
        item.session.shouldfail = "a test took too long"
    return report
