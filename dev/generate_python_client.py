#!/usr/bin/env python3
"""Writes the types of the Python client, clients/python/src/agent_gateway_client/types.py.

    .venv/bin/python dev/generate_python_client.py

They are made from openapi/openapi.json. A test fails while they are behind it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "openapi/openapi.json"
TYPES: Final = ROOT / "clients/python/src/agent_gateway_client/types.py"
HEADER: Final = '''"""What the gateway takes and gives: dictionaries as in its JSON.

Made from openapi/openapi.json by dev/generate_python_client.py: do not edit.
"""
'''
OPTIONS: Final = (
    *("--input-file-type", "openapi", "--output-model-type", "typing.TypedDict"),
    *("--target-python-version", "3.11", "--use-standard-collections", "--use-union-operator"),
    *("--enum-field-as-literal", "all", "--use-type-alias", "--use-object-type", "--use-double-quotes"),
    *("--use-schema-description", "--use-field-description", "--use-inline-field-description"),
    *("--use-single-line-docstring", "--keep-model-order", "--disable-timestamp", "--formatters", "builtin"),
)


def generated(document: Path) -> str:
    """The text of types.py for an OpenAPI document."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "types.py"
        # Its warnings are about formats that a TypedDict does not tell.
        command = ["-W", "ignore", "-m", "datamodel_code_generator", "--input", str(document)]
        header = ["--custom-file-header", HEADER, "--output", str(path)]
        subprocess.run([sys.executable, *command, *OPTIONS, *header], check=True)  # noqa: S603
        ruff = [sys.executable, "-m", "ruff", "format", "--quiet", "--config", str(ROOT / "pyproject.toml")]
        subprocess.run([*ruff, str(path)], check=True)  # noqa: S603
        return path.read_text("utf-8")


def main() -> None:
    TYPES.write_text(generated(DOCUMENT), "utf-8")
    print(TYPES)


if __name__ == "__main__":
    main()
