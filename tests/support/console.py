"""Console blocks of a page, run as printed: `$ ` lines are typed into one shell, `…` stands for anything."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

MARK = "<<<next command>>>"
PRINTED = "http://127.0.0.1:8000"
"""The address of the gateway, as pages print it."""
PATIENCE = r"""
timeout() {
    shift; command "$@" & local reader=$!
    until grep -qs '^id: ' part.txt; do command sleep 0.05; done
    kill $reader; wait $reader 2> /dev/null
}
sleep() {
    local begun
    until begun=$(sed -n 's/^x-task-id: //p' headers.txt) && [ "$begun" ] && [[ $begun != $TASK* ]]; do
        command sleep 0.05
    done
}
"""
"""A page gives a turn one second to begin. On a busy machine it takes longer: here the shell waits for it."""


def check_session(page: Path, url: str, folder: Path, at_least: int) -> None:
    """Type all commands of the page's console blocks, with `url` in place of the printed address, and
    compare what they print. The page's programs are there as well.
    """
    write_programs(page, folder, url)
    steps = commands(page.read_text("utf-8"))
    assert len(steps) >= at_least
    assert check_steps(steps, folder, {PRINTED: url}, PATIENCE) == ""


def check_steps(
    steps: list[tuple[str, str]],
    folder: Path,
    addresses: Mapping[str, str],
    before: str = "",
    environ: Mapping[str, str] | None = None,
) -> str:
    """Type these commands into one shell, and compare what each prints; returns what went to standard error.

    `addresses` are printed ones, and what is there instead; the shell does what is in `before` first.
    """
    script = f"\necho; echo '{MARK}'\n".join(command for command, _ in steps)
    for printed, real in addresses.items():
        script = script.replace(printed, real)
    ran = subprocess.run(
        ["bash", "-c", before + script],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    outputs = ran.stdout.split(f"\n{MARK}\n")
    assert len(outputs) == len(steps), ran.stdout + ran.stderr
    for (command, expected), shown in zip(steps, outputs, strict=True):
        assert pattern(expected).fullmatch(shown.strip()), f"$ {command}\n{shown}"
    return ran.stderr


def write_programs(page: Path, folder: Path, url: str = PRINTED) -> list[Path]:
    """Each block of JavaScript or Python that begins with the name of a file in a comment, as that file."""
    written: list[Path] = []
    blocks = re.findall(r"```(?:js\n//|python\n#) (\S+)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for name, code in blocks:
        (folder / name).write_text(code.replace(PRINTED, url), "utf-8")
        written.append(folder / name)
    return written


def commands(text: str) -> list[tuple[str, str]]:
    """Each command of the console blocks, with the output printed below it."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            steps.append((command, output))
    return steps


def pattern(output: str) -> re.Pattern[str]:
    return re.compile(".*?".join(map(re.escape, output.strip().split("…"))), re.DOTALL)
