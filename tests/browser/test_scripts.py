"""The scripts of the page: their types fit, and what is vendored is what the locked packages have."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.node import NODE_MODULES, run_node
from tests.support.paths import ROOT

WEB = ROOT / "src/agent_gateway/web"
VENDORED = {
    "marked": ("marked", "lib/marked.esm.js", "LICENSE"),
    "dompurify": ("dompurify", "dist/purify.es.mjs", "LICENSE"),
    "highlight": ("@highlightjs/cdn-assets", "es/highlight.min.js", "LICENSE"),
}
"""File → package, its file there, its licence there; as in dev/vendor."""
HIGHLIGHT_TYPES = """
declare const hljs: {
    getLanguage(name: string): unknown;
    highlight(text: string, options: {language: string, ignoreIllegals: boolean}): {value: string};
};
export default hljs;
"""


@pytest.mark.slow
def test_the_types_of_the_scripts_fit(tmp_path: Path) -> None:
    for path in WEB.glob("*.js"):
        shutil.copy(path, tmp_path)
    vendor = tmp_path / "vendor"
    vendor.mkdir()
    shutil.copy(NODE_MODULES / "marked/lib/marked.d.ts", vendor)
    shutil.copy(NODE_MODULES / "dompurify/dist/purify.es.d.mts", vendor / "dompurify.d.ts")
    (vendor / "highlight.d.ts").write_text(HIGHLIGHT_TYPES)
    options: dict[str, object] = {
        "strict": True,
        "noEmit": True,
        "allowJs": True,
        "checkJs": True,
        "noUnusedLocals": True,
        "useUnknownInCatchVariables": False,
        "skipLibCheck": True,
        "target": "es2023",
        "lib": ["es2023", "dom", "dom.iterable"],
        "module": "preserve",
        "types": list[str](),
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.js"]}))
    run_node("tsc", tmp_path, "--project", ".")


@pytest.mark.parametrize("name", VENDORED)
def test_what_is_vendored_is_what_the_locked_package_has(name: str) -> None:
    package, file, licence = VENDORED[name]
    source = NODE_MODULES / package
    assert (WEB / f"vendor/{name}.js").read_bytes() == (source / file).read_bytes(), "run dev/vendor"
    assert (WEB / f"vendor/{name}.LICENSE").read_bytes() == (source / licence).read_bytes()
    version = json.loads((source / "package.json").read_text("utf-8"))["version"]
    assert f"| `{name}.js` | {package} | {version} |" in (WEB / "vendor/README.md").read_text("utf-8")
    locked = json.loads((ROOT / "tests/js/package.json").read_text("utf-8"))["devDependencies"]
    assert locked[package] == version


def test_nothing_else_is_vendored() -> None:
    names = {path.name for path in (WEB / "vendor").iterdir()}
    expected = {f"{name}{ending}" for name in VENDORED for ending in (".js", ".LICENSE")}
    assert names == expected | {"README.md"}
