import os

import pytest

pytest_plugins = ["tests.support.databases", "tests.support.fixtures"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
