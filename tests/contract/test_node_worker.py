"""A program in a preloaded Node worker behaves byte for byte as in a plain process.

``tests/node_harness.cjs`` plays init inside the image, with the guest files of this tree.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from codeforge.model.languages import GUEST_DIR, JAVASCRIPT, TYPESCRIPT, Language

TESTS = Path(__file__).parents[1]
GUEST = TESTS.parent / "src" / "codeforge" / "guest"
GUEST_FILES = [
    *(GUEST / "node" / name for name in ("node_worker.cjs", "node_preload.cjs")),
    *(GUEST / "typescript" / name for name in ("typescript_preload.cjs", "typescript_sample.ts")),
]
SAMPLE = (GUEST / "typescript" / "typescript_sample.ts").read_text()

RUN_UID = 10001
TIMEOUT_S = 120
PSS_LIMIT_MIB = {"javascript": 45, "typescript": 200}
LEAST_GAIN = 3
"""A plain ts-node takes at least this many times the CPU time of a run; eight times was measured."""
LEAST_STEP_CPU_MS = 50
"""The CPU time that each step takes at least; 180 was the least measured."""

PRELOAD = {
    "javascript": ("console",),
    "typescript": ("console", "typescript", "libraries", "types", "check"),
}

LOOK_AROUND = """// @ts-nocheck
const show = (name, value) => console.log(name, value)
show('argv', process.argv)
show('execArgv', process.execArgv)
show('env', process.env)
show('cwd', process.cwd())
show('title', process.title)
show('cache', Object.keys(require.cache))
show('parents', Object.values(require.cache).map((module) => module.parent && module.parent.id))
show('children', Object.values(require.cache).map((module) => module.children.map((child) => child.id)))
show('loaded', Object.values(require.cache).map((module) => [module.loaded, Object.keys(module)]))
show('main', [require.main === module, process.mainModule === module, module.id, module.paths])
show('process', Object.keys(process))
show('globals', Object.getOwnPropertyNames(globalThis))
show('events', process.eventNames().map((name) => [name, process.listenerCount(name)]))
show('handles', process._getActiveHandles().length)
show('requests', process._getActiveRequests().length)
show('extensions', Object.keys(require.extensions))
show('resolver', require('module')._resolveFilename.toString())
show('prepare', String(Error.prepareStackTrace))
show('descriptors', require('fs').readdirSync('/proc/self/fd').length)
show('code', require('fs').readdirSync('/code'))
show('async', [require('async_hooks').executionAsyncId(), require('async_hooks').triggerAsyncId()])
"""

ES_MODULE = """
import fs from 'fs'
import { basename } from 'path'
console.log(import.meta.url, fs.readdirSync('/code'), basename('/a/b'), typeof require)
console.log(await Promise.resolve(process.argv))
throw new Error('deep')
"""

WHOLE_STACK = """
Error.stackTraceLimit = 100
function fail(): never {
  throw new RangeError('deep')
}
fail()
"""

MANY_ERRORS = """
import * as http from 'http'
import * as fs from 'fs'
type Shape = { kind: 'b'; side: number } | { kind: 'a'; radius: number } | 'x' | 3 | null
const shape: Shape = { kind: 'c' }
const server: http.Server = fs.createReadStream('x')
const text: string = [1, 'two', null].map((x) => x)
const wrong: Promise<string> = fs.promises.readFile('x')
let values: Array<string | number | boolean> = new Map([[1, 2]])
Buffer.from(1, 2, 3)
process.nope()
missing('name')
console.log(server.nothing, shape, text, wrong, values)
"""


@dataclass(frozen=True)
class Case:
    """A program and its files, arguments and input."""

    id: str
    code: str
    files: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    flags: Sequence[str] = ()
    plain_files: Mapping[str, str] = field(default_factory=dict)


BOTH = [
    Case("hello", "console.log('hello')"),
    Case("looks around", LOOK_AROUND, args=["a b", "--flag", ""], env={"KEY": "a=b", "TZ": "Asia/Tokyo"}),
    Case("nothing", ""),
    Case("runtime error", "console.log(1)\n\nfunction f() { throw new Error('no') }\nf()"),
    Case("uncaught rejection", "Promise.reject(new TypeError('no'))"),
    Case("exit code", "process.on('exit', (code) => console.log(code))\nprocess.exit(7)"),
    Case("stdin", "process.stdin.on('data', (data) => console.log(String(data)))", stdin="some\ntext"),
]

JAVASCRIPT_CASES = [
    *BOTH,
    Case("syntax error", "const x = (\n"),
    Case("rejection of no error", "Promise.reject({ a: 1 })"),
    Case("exitCode", "process.exitCode = 3\nconsole.error('bye')"),
    Case("signal", "process.kill(process.pid, 'SIGTERM')\nsetTimeout(() => 0, 5000)"),
    Case("date", "console.log(new Date(0).getHours())", env={"TZ": "Asia/Tokyo"}),
    Case(
        "child",
        "require('child_process').spawnSync('sh', ['-c', 'echo $KEY; ls -l /proc/self/fd | wc -l'],"
        " { stdio: 'inherit' })",
        env={"KEY": "value"},
    ),
    Case("handler", "process.on('uncaughtException', (e) => console.log(e.stack))\nthrow new Error('x')"),
    Case("whole stack", "Error.stackTraceLimit = 100\nthrow new Error('deep')"),
    Case("ES module", ES_MODULE, plain_files={"package.json": '{"type": "module"}\n'}),
    Case("own package.json", "import fs from 'fs'\n", files={"package.json": '{"name": "mine"}'}),
    Case(
        "large environment", "console.log(process.env.A.length)", env={"A": "x" * 60_000, "B": "y" * 60_000}
    ),
    Case(
        "helper",
        "console.log(require('./lib/helper'), require('left'))",
        files={
            "lib/helper.js": "module.exports = module.parent.id",
            "node_modules/left/index.js": "exports.x = 1",
        },
    ),
    Case(
        "flags of stdout",
        "console.log(/flags:.*/.exec(require('fs').readFileSync('/proc/self/fdinfo/1', 'latin1'))[0])",
    ),
]

TYPESCRIPT_CASES = [
    *BOTH,
    *(replace(case, id=f"unchecked {case.id}", flags=["--transpile-only"]) for case in BOTH[:4]),
    Case("type error", "const x: number = 'text'\nconsole.log(x)"),
    Case("many type errors", MANY_ERRORS),
    Case("whole stack", WHOLE_STACK),
    Case("the sample itself", SAMPLE),
    Case("the sample with an error", SAMPLE.replace("named.length", "named.size")),
    Case(
        "the sample's imports, another program",
        "\n".join(SAMPLE.split("\n")[:8]) + "\nhttp.nope(path.join(1))",
    ),
    Case(
        "helpers",
        "import { twice } from './lib/twice'\nimport data from './data.json'\nconsole.log(twice(data.n))",
        files={"lib/twice.ts": "export const twice = (n: number): number => n * 2", "data.json": '{"n": 21}'},
    ),
    Case(
        "error in a helper",
        "import { twice } from './twice'\nconsole.log(twice(1))",
        files={"twice.ts": "export const twice = (n: number): string => n * 2"},
    ),
    Case(
        "package of its own",
        "import left from 'left'\nimport { x } from 'untyped'\nleft('a', 1)\nx()",
        files={
            "node_modules/left/index.js": "module.exports = (a, b) => console.log(a, b)",
            "node_modules/left/index.d.ts": "declare function left(a: string, b: string): 1\nexport = left",
            "node_modules/untyped/index.js": "exports.x = () => 0",
        },
    ),
    Case(
        "package in place of a module of node",
        "import { nothing } from 'os'\nconsole.log(nothing)",
        files={"node_modules/os/index.d.ts": "export const nothing: number", "node_modules/os/index.js": ""},
    ),
    Case(
        "types of its own",
        "/// <reference path='./own.d.ts' />\nconst x: Own = { a: 1 }\nexport {}",
        files={"own.d.ts": "interface Own { a: string }"},
    ),
    Case(
        "own tsconfig",
        "function f(x) { return x.y }\nconst n: number = null\nconsole.log(f({ y: n }), [...new Set([1])])",
        files={"tsconfig.json": '{"compilerOptions": {"strict": false, "target": "es5", "types": ["node"]}}'},
    ),
    Case(
        "own tsconfig that extends the image's",
        "const n: number = null\nlet unused: string\nconsole.log(n)",
        files={"tsconfig.json": '{"extends": "/tsconfig.json", "compilerOptions": {"noUnusedLocals": true}}'},
    ),
    Case(
        "broken tsconfig",
        "console.log(1)",
        files={"tsconfig.json": '{"compilerOptions": {"target": "es99"}}'},
    ),
    Case("own package.json", "console.log(require('fs').F_OK)", files={"package.json": '{"name": "mine"}'}),
    Case("ES module", "console.log(import.meta.url)", files={"package.json": '{"type": "module"}'}),
    Case("top-level await", "const x = await Promise.resolve(1)\nconsole.log(x)\nexport {}"),
    Case(
        "uses the compiler",
        "import ts from 'typescript'\n"
        "const host = ts.createCompilerHost({})\n"
        "const service = ts.createLanguageService({\n"
        "  ...host, getCompilationSettings: () => ({ noLib: true }),\n"
        "  getScriptFileNames: () => ['/code/x.ts'], getScriptVersion: () => '1',\n"
        "  getScriptSnapshot: () => ts.ScriptSnapshot.fromString('let x: number = true') })\n"
        "console.log(service.getSemanticDiagnostics('/code/x.ts').map((d) => d.messageText))\n"
        "console.log(Object.keys(ts).length, ts.createLanguageService.name, ts.transpile('let x: any'))",
    ),
]


def run_twice(
    language: Language, case: Case, *, preload: Sequence[str], go: bool = True, plain: bool = True
) -> dict[str, Any]:
    """The outcomes of the plain process and of the worker."""
    program = f"/code/{language.file}"
    spec = {
        # Without "node --require THIS" in front, and without what makes it wait.
        "plain": [*(language.command[3:] or ("node",)), *case.flags, program] if plain else None,
        "worker": [*language.command, *case.flags, program],
        "preload": preload,
        "go": go,
        "files": {language.file: case.code, **case.files},
        "plainFiles": case.plain_files,
        "args": case.args,
        "env": case.env,
        "stdin": case.stdin,
    }
    tmpfs = f"rw,noexec,nosuid,nodev,size=64m,uid={RUN_UID},gid={RUN_UID}"
    mounts = [f"--volume={path}:{GUEST_DIR}/{path.name}:ro" for path in GUEST_FILES]
    done = subprocess.run(
        [
            *(
                "docker",
                "run",
                "--rm",
                "--interactive",
                "--network=none",
                "--hostname=sandbox",
                "--read-only",
            ),
            "--memory=512m",
            *(f"--tmpfs=/code:{tmpfs}", f"--tmpfs=/tmp:{tmpfs}", f"--user={RUN_UID}:{RUN_UID}"),
            *(f"--volume={TESTS / 'node_harness.cjs'}:/harness.cjs:ro", *mounts),
            *("--env=NODE_OPTIONS=--max-old-space-size=384", language.image, "node", "/harness.cjs"),
        ],
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, Any] = json.loads(done.stdout)
    return outcomes


def without_pid(text: str) -> str:
    """The text of a warning without the process id in it."""
    return re.sub(r"^\(node:\d+\)", "(node)", text, flags=re.MULTILINE)


def assert_same(outcomes: dict[str, Any]) -> None:
    """Output and end are the same to the byte."""
    plain, worker = outcomes["plain"], outcomes["worker"]
    assert without_pid(worker["stderr"]) == without_pid(plain["stderr"])
    assert worker["stdout"] == plain["stdout"]
    assert (worker["status"], worker["signal"]) == (plain["status"], plain["signal"])


@pytest.mark.engine("docker")
@pytest.mark.parametrize("case", JAVASCRIPT_CASES, ids=lambda case: case.id)
def test_a_javascript_worker_behaves_like_a_plain_process(case: Case) -> None:
    outcomes = run_twice(JAVASCRIPT, case, preload=PRELOAD["javascript"])
    assert_same(outcomes)
    assert outcomes["worker"]["pssMib"] <= PSS_LIMIT_MIB["javascript"]


@pytest.mark.engine("docker")
@pytest.mark.parametrize("case", TYPESCRIPT_CASES, ids=lambda case: case.id)
def test_a_typescript_worker_behaves_like_a_plain_process(case: Case) -> None:
    outcomes = run_twice(TYPESCRIPT, case, preload=PRELOAD["typescript"])
    assert_same(outcomes)
    assert outcomes["worker"]["pssMib"] <= PSS_LIMIT_MIB["typescript"]


@pytest.mark.engine("docker")
def test_each_step_saves_time_of_a_checked_run() -> None:
    used = "const { user, system } = process.cpuUsage(); console.log(user + system)"
    tell = f"process.on('exit', () => {{ {used} }})"
    outcomes = run_twice(TYPESCRIPT, Case("", f"{SAMPLE}\n{tell}"), preload=PRELOAD["typescript"])
    plain, worker = (int(outcomes[way]["stdout"].split()[-1]) / 1000 for way in ("plain", "worker"))
    assert (worker - outcomes["worker"]["cpuMs"]) * LEAST_GAIN < plain
    # One that fails is passed over, and costs next to nothing.
    steps = outcomes["worker"]["stepCpuMs"]
    assert min(steps[step] for step in PRELOAD["typescript"][1:]) >= LEAST_STEP_CPU_MS, steps


ANY_STEPS = Case("", LOOK_AROUND + "export const x = 1\nthrow new Error('no')")


@pytest.fixture(scope="module")
def plain_run() -> dict[str, Any]:
    """The outcome of ``ANY_STEPS`` as a plain process; the same for all steps."""
    outcome: dict[str, Any] = run_twice(TYPESCRIPT, ANY_STEPS, preload=())["plain"]
    return outcome


@pytest.mark.engine("docker")
@pytest.mark.parametrize(
    "preload",
    [
        (),
        ("typescript",),
        ("typescript", "libraries"),
        ("libraries", "check"),
        ("unknown", "../../etc/passwd", "toString", "check", "types", "typescript"),
    ],
    ids=" ".join,
)
def test_any_steps_in_any_order_change_nothing(preload: Sequence[str], plain_run: dict[str, Any]) -> None:
    worker = run_twice(TYPESCRIPT, ANY_STEPS, preload=preload, plain=False)["worker"]
    assert_same({"plain": plain_run, "worker": worker})


@pytest.mark.engine("docker")
def test_steps_of_another_language_change_nothing() -> None:
    case = Case("", LOOK_AROUND)
    assert_same(run_twice(JAVASCRIPT, case, preload=PRELOAD["typescript"]))


@pytest.mark.engine("docker")
@pytest.mark.parametrize("language", [JAVASCRIPT, TYPESCRIPT], ids=lambda language: language.name)
def test_a_worker_ends_with_its_init(language: Language) -> None:
    outcomes = run_twice(language, Case("", "console.log(1)"), preload=["console"], go=False, plain=False)
    worker = outcomes["worker"]
    assert (worker["status"], worker["signal"], worker["stdout"], worker["stderr"]) == (0, None, "", "")
