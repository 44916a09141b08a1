"""Two common linters have nothing to say about the OpenAPI document; their rules are next to this file."""

from pathlib import Path

from tests.support.node import run_node

RULES = Path(__file__).parent


def test_redocly_finds_no_problem(document_folder: Path) -> None:
    run_node("redocly", document_folder, "lint", "openapi.json", "--config", RULES / "redocly.yaml")


def test_spectral_finds_no_problem(document_folder: Path) -> None:
    rules = RULES / "spectral.yaml"
    run_node("spectral", document_folder, "lint", "openapi.json", "--ruleset", rules, "--fail-severity=warn")
