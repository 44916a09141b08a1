"""The workflows rely on the form of the changelog and on equal versions in all files."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
"""Those of Keep a Changelog, in its order."""


def notes_of(version: str) -> subprocess.CompletedProcess[str]:
    """The notes of a release, as release.yml makes them."""
    return subprocess.run(
        [ROOT / "dev/changelog", version], capture_output=True, text=True, check=False, timeout=60
    )


def test_each_version_of_the_changelog_has_the_known_sections_in_order() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    for version in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version)
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        found = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert found == [section for section in SECTIONS if section in found]


def test_release_notes_are_the_section_of_their_version() -> None:
    notes = notes_of("Unreleased")
    assert notes.returncode == 0
    assert notes.stdout.strip() in (ROOT / "CHANGELOG.md").read_text()
    assert "### Added" in notes.stdout
    assert "\n## " not in notes.stdout


def test_a_version_missing_from_the_changelog_is_not_released() -> None:
    notes = notes_of("99.0.0")
    assert (notes.returncode, notes.stdout) == (1, "")
    assert "says nothing about 99.0.0" in notes.stderr


def test_the_typescript_client_has_the_version_of_the_gateway() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    package, lock = (
        json.loads((ROOT / "clients/typescript" / name).read_text())
        for name in ("package.json", "package-lock.json")
    )
    assert [package["version"], lock["version"], lock["packages"][""]["version"]] == [version] * 3


def test_the_workflow_tests_every_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r":: Python :: (3\.\d+)", " ".join(project["classifiers"]))
    test = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert test["strategy"]["matrix"]["python"] == named
    first, last = named[0], named[-1].split(".")[1]
    assert project["requires-python"] == f">={first},<3.{int(last) + 1}"


def test_the_workflow_tests_with_the_postgres_of_the_compose_file() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())
    image = compose["services"]["postgres"]["image"]
    test = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert f"'{image}'" in test["services"]["postgres"]["image"]


def test_the_gateway_and_its_client_have_one_version() -> None:
    gateway, client = (
        tomllib.loads((ROOT / path).read_text())["project"]
        for path in ("pyproject.toml", "clients/python/pyproject.toml")
    )
    assert gateway["version"] == client["version"]
    assert f"{client['name']}=={client['version']}" in gateway["dependencies"]
    assert python_versions(client) == python_versions(gateway)
    assert (ROOT / "clients/python/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def python_versions(project: dict[str, Any]) -> list[str]:
    """The versions of Python that a package names."""
    return re.findall(r":: Python :: (3\.\d+)", " ".join(project["classifiers"]))
