"""TypeScript generated from the OpenAPI document compiles and has the promised types.

Each generator's code is compiled together with ../js/generated/<generator>.ts, which uses it, and with
stream-events.ts, to which all generators' events must look the same.
"""

import shutil
from pathlib import Path

import pytest

from tests.support.node import NODE_MODULES, run_node

pytestmark = pytest.mark.slow

PROGRAMS = NODE_MODULES.parent / "generated"
GENERATORS = {
    # The option leaves what has a default optional, as it is in a request.
    "openapi-typescript": [
        *("openapi-typescript", "openapi.json", "--output", "api.ts"),
        "--default-non-nullable=false",
    ],
    "hey-api": ["openapi-ts", "--input", "openapi.json", "--output", "api"],
    "orval": ["orval", "--input", "openapi.json", "--output", "api.ts", "--client", "fetch"],
    "swagger-typescript-api": [
        *("swagger-typescript-api", "generate", "--path", "openapi.json"),
        *("--output", ".", "--name", "api.ts"),
    ],
}


@pytest.mark.parametrize("generator", GENERATORS)
def test_generated_code_compiles_and_distinguishes_the_events(generator: str, document_folder: Path) -> None:
    program, *arguments = GENERATORS[generator]
    run_node(program, document_folder, *arguments)
    if generator == "swagger-typescript-api":
        # It switches the type checker off in its own file, which would hide any mistake in it.
        made = document_folder / "api.ts"
        text = made.read_text("utf-8")
        assert "// @ts-nocheck\n" in text
        made.write_text(text.replace("// @ts-nocheck\n", ""), "utf-8")
    shutil.copy(PROGRAMS / f"{generator}.ts", document_folder / "client.ts")
    shutil.copy(PROGRAMS / "stream-events.ts", document_folder)
    (document_folder / "tsconfig.json").write_text(TSCONFIG)
    run_node("tsc", document_folder, "--project", ".")


TSCONFIG = """{
  "compilerOptions": {
    "strict": true,
    "noEmit": true,
    "skipLibCheck": true,
    "target": "es2022",
    "lib": ["es2022", "dom", "dom.iterable"],
    "module": "preserve",
    "types": []
  }
}"""
