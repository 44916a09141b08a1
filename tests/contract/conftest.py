"""The OpenAPI document, as the code makes it and as a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.app import create_app
from agent_gateway.settings import Settings


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return create_app(Settings.model_construct()).openapi()


@pytest.fixture
def document_folder(document: dict[str, Any], tmp_path: Path) -> Path:
    """A folder with the document in it as openapi.json."""
    (tmp_path / "openapi.json").write_text(json.dumps(document, indent=1))
    return tmp_path
