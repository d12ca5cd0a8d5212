"""The installed environments have what the images have, as seen in a bare bubblewrap sandbox."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from codeforge.environments.maker import EnvironmentMaker
from codeforge.environments.store import Environment
from codeforge.model.languages import LANGUAGES, Language, LanguageTable

pytestmark = pytest.mark.engine("bubblewrap")

SYSTEM = ("/usr", "/bin", "/lib", "/lib64")


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda row: row.name)
def environment(request: pytest.FixtureRequest) -> tuple[Language, Environment]:
    row: Language = request.param
    store = EnvironmentMaker()
    asyncio.run(store.make(row))
    found = store.find(row)
    assert found is not None
    return row, found


def inside(environment: Environment, code: Path, *command: str) -> str:
    """The output of a command in a sandbox that sees only this machine's system folders."""
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--clearenv", "--proc", "/proc", "--dev", "/dev"]
    words += ["--tmpfs", "/tmp", "--ro-bind", str(code), "/code", "--chdir", "/code"]
    for path in map(Path, SYSTEM):
        link = path.is_symlink()
        words += (
            ["--symlink", str(path.readlink()), str(path)] if link else ["--ro-bind", str(path), str(path)]
        )
    for here, there in environment.mounts:
        words += ["--ro-bind", str(here), there]
    for name, value in environment.env.items():
        words += ["--setenv", name, value]
    done = subprocess.run([*words, "--", *command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


PROGRAMS: dict[str, list[tuple[dict[str, str], tuple[str, ...], str]]] = {
    "python": [
        (
            {"main.py": "import flask, fastapi, numpy, pandas, pydantic, requests, sys; print(sys.prefix)"},
            ("python", "main.py"),
            "/usr/local\n",
        ),
        ({"test_it.py": "def test_it(): assert 1 + 1 == 2\n"}, ("pytest", "-q"), "1 passed"),
    ],
    "javascript": [
        ({"main.js": "console.log(require('lodash').sum([1, 2]))"}, ("node", "main.js"), "3\n"),
        ({}, ("node", "--version"), "v18."),
        ({"it.test.js": "test('it', () => expect(1 + 1).toBe(2))"}, ("jest",), "1 passed"),
        ({"test/it.js": "it('adds', () => { if (1 + 1 !== 2) throw 1 })"}, ("mocha",), "1 passing"),
    ],
    "typescript": [
        ({"main.ts": "import 'fs'\nconst n: number = 3\nconsole.log(n)"}, ("ts-node", "main.ts"), "3\n"),
        ({"it.test.ts": "test('it', () => expect(1 + 1).toBe(2))"}, ("jest",), "1 passed"),
        ({}, ("tsc", "--version"), "Version 5."),
    ],
}  # fmt: skip


def test_it_has_the_programs_and_packages_of_the_image(
    environment: tuple[Language, Environment], tmp_path: Path
) -> None:
    row, found = environment
    for number, (files, command, sign) in enumerate(PROGRAMS[row.name]):
        code = tmp_path / str(number)
        for name, text in files.items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_text(text)
        code.mkdir(exist_ok=True)
        assert sign in inside(found, code, *command)


def test_it_has_no_installers(environment: tuple[Language, Environment]) -> None:
    _, found = environment
    (usr_local, _), *_ = found.mounts
    names = {path.name for path in usr_local.rglob("*")}
    assert names.isdisjoint({"pip", "npm", "npx", "corepack"})


def test_environments_of_node_share_one_node() -> None:
    found = [EnvironmentMaker().find(LanguageTable().find(name)) for name in ("javascript", "typescript")]
    nodes = {(one.path / "usr-local/bin/node").stat().st_ino for one in found if one is not None}
    assert len(nodes) == 1
