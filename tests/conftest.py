import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
WITHOUT_SERVERS = ("golden", "project", "unit")
FIXTURES = ("tests.support.databases", "tests.support.fixtures")
pytest.register_assert_rewrite(*FIXTURES)  # before anything imports them


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Loads the fixtures for the folders that use them: importing what starts servers takes seconds."""
    if isinstance(collector, pytest.Module) and folder_of(collector) not in WITHOUT_SERVERS:
        for name in FIXTURES:
            collector.config.pluginmanager.import_plugin(name)


def folder_of(module: pytest.Module) -> str:
    return module.path.relative_to(TESTS).parts[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """TEST_DATABASES=sqlite or =postgres leaves out the tests that need the other one."""
    chosen = os.environ.get("TEST_DATABASES")
    if not chosen:
        return
    others = {"sqlite", "postgres"} - {chosen}
    assert len(others) == 1, f"TEST_DATABASES is sqlite or postgres, not {chosen!r}"
    left_out = [item for item in items if others & _databases_of(item)]
    items[:] = [item for item in items if not others & _databases_of(item)]
    config.hook.pytest_deselected(items=left_out)


def _databases_of(item: pytest.Item) -> set[str]:
    assert isinstance(item, pytest.Function)
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    found = {value for value in values if isinstance(value, str)}
    if not found & {"sqlite", "postgres"} and "postgres_url" in item.fixturenames:
        found.add("postgres")
    return found
