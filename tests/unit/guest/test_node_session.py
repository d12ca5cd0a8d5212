# ruff: noqa: E501, RUF001 - programs, and the compiler's marks
"""The session programs of JavaScript and TypeScript: results of cells, and what carries over to the next."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from session_node_harness import NoNode, Session, node_home, slowly

TYPESCRIPT_STEPS = ("console", "typescript", "libraries", "types", "check")
MIB = 1 << 20


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return node_home(tmp_path_factory.mktemp("node"))
    except NoNode as reason:
        if os.environ.get("CODEFORGE_TEST_ENGINE") == "none":
            pytest.skip(str(reason))
        pytest.fail(f"{reason}; CODEFORGE_TEST_ENGINE=none leaves these tests out")


@pytest.fixture(scope="module")
def javascript_session(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session(home, tmp_path_factory.mktemp("javascript"), preload=["console"]) as session:
        yield session


@pytest.fixture
def js(javascript_session: Session) -> Session:
    """One session for all tests. What a test declares stays for the next, so names differ where that matters."""
    return javascript_session


@pytest.fixture
def fresh_js(home: Path, tmp_path: Path) -> Iterator[Session]:
    """A session for tests that end or change it."""
    with Session(home, tmp_path, preload=["console"]) as session:
        yield session


@pytest.fixture(scope="module")
def typescript_session(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session(
        home, tmp_path_factory.mktemp("typescript"), typescript=True, preload=TYPESCRIPT_STEPS
    ) as session:
        yield session


@pytest.fixture(scope="module")
def bare_ts(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A TypeScript session without preloading."""
    with Session(home, tmp_path_factory.mktemp("bare"), typescript=True) as session:
        yield session


@pytest.fixture
def ts(typescript_session: Session) -> Session:
    """One session for all tests: the cells of each declare what they use."""
    return typescript_session


Cells = list[tuple[str, str | None]]

CARRIED: dict[str, Cells] = {
    "variables": [("let a1 = 1; const a2 = 2; var a3 = 3", None), ("a1 + a2 + a3", "6")],
    "functions and classes": [("function f1() { return new A1().x }\nclass A1 { x = 4 }", None), ("f1()", "4")],
    "a cell that is run again": [("const b = 1", None), ("const b = 2; b", "2"), ("let b = 3; b = 4; b", "4")],
    "declared in another way": [
        ("function f2() { return 1 }; f2()", "1"), ("const f2 = 2; f2", "2"), ("class f2 {}; f2", "[class f2]"),
        ("const g = 1", None), ("g", "1"), ("function g() { return 5 }\ng()", "5"), ("var g = 6; g", "6"),
        ("async function h() { return 1 }", None), ("let { a, h } = { a: 1, h: 2 }; h", "2"),
    ],
    "patterns that are declared again": [
        ("function p1() {}; var p2, p3, p4", None),
        ("const { x: [p1 = 1, ...p2], p3, ...p4 } = { x: [, 2], p3: 3, y: 4 }; [p1, p2, p3, p4]",
         "[ 1, [ 2 ], 3, { y: 4 } ]"),
    ],
    "old closures see new variables": [("let n = 1; const see = () => n", None), ("n = 2; see()", "2")],
    "await": [("const c = await Promise.resolve(5)", None), ("c", "5")],
    "promises are values": [("Promise.resolve(1)", "Promise { 1 }")],
    "require": [("const { basename } = require('path')", None), ("basename('/a/b')", "'b'")],
    "import": [
        ("import fs, { existsSync as there } from 'fs'\nimport * as path from 'node:path';\nimport 'os'", None),
        ("fs.existsSync('/') && there('/') && path.join('a', 'b')", "'a/b'"),
    ],
    "import in every form": [
        ("import all1, * as all2 from 'path'; import { default as all3, 'sep' as sep1, } from 'path'\nimport {} from 'os'", None),
        ("[all1 === all3, all2.sep, sep1]", "[ true, '/', '/' ]"),
    ],
    "import after a pattern": [
        ("const s1 = 'a`b'; if (s1) /`/.exec(s1)\nimport { sep as sep2 } from 'path'\nsep2", "'/'"),
        ("if (s1) /import x from 'y'/.test(s1)\nimport { sep as sep3 } from 'path'\n4 / 2 / sep3.length", "2"),
        ("for (const i of [1]) /`/g\nconst q1 = s1.length / 3 /1\nimport('path'); q1", "1"),
    ],
    "import of JSON": [
        ("require('fs').writeFileSync('data.json', '[7]')\nimport data from './data.json' assert { type: 'json' }\ndata[0]", "7"),
    ],
    "import()": [("(await import('path')).sep + import.meta.url.slice(0, 5)", "'/file:'")],
    "import() within": [
        ("class Loader { async import(p) { return (await import(p)).sep } }\nconst other = { import: 1 }", None),
        ("await new Loader().import('path') + other.import", "'/1'"),
    ],
    "import in text": [("const s2 = `import x from 'y' ${'import'}` // import\n;/import/.test(s2)", "true")],
    "export": [("export const d = 1\nexport default function f3() { return 2 }\nexport { d as q }\nexport * from 'no-such-module'", None), ("d + f3()", "3")],
    "default exports": [
        ("export default { a: 1 }", "{ a: 1 }"), ("const e1 = 5\nexport default e1\nexport default (6)", "6"),
        ("export default class {}\n(7)", "7"), ("export default async function () {}", None),
    ],
    "objects": [("{a: 1}", "{ a: 1 }"), ("{ let z = 1; z + 1 }", "2")],
    "the last expression": [("if (true) 5", "5"), ("undefined", None), ("null", "null"), ("'it\\'s'", '"it\'s"')],
    "comments at the end": [("1 // one", "1"), ("{ a: 1 } // one", "{ a: 1 }")],
    "lines": [("'a\\u2028b'.length", "3"), ("`a\nb`", "'a\\nb'")],
    "sloppy, and strict": [("x1 = 3; this === globalThis", "true"), ("'use strict'; (function () { return this })()", None)],
    "sloppy declarations": [("const oct = 010; with ({ w: oct }) { w }", "8")],
    "a program's pattern": [("require.main === module && require('path').basename(__filename)", "'main.js'")],
    "variables of the request": [("process.env.KEY + process.argv.length + process.execArgv.length", "'a=b10'")],
    "nothing of ours": [
        ("Object.getOwnPropertyNames(globalThis).filter((name) => /codeforge|session|acorn/i.test(name)).length + Object.keys(require.cache).filter((name) => !name.endsWith('/data.json')).length", "0"),
        ("process.env.CODEFORGE_CONTROL_FD", None), ("require('inspector').url()", None),
    ],
    "directories and timers": [
        ("const home = process.cwd(); process.chdir('/'); let ticks = 0; const timer = setInterval(() => ticks++, 2)", None),
        ("while (ticks < 3) await new Promise(setImmediate)\nclearInterval(timer); process.cwd()", "'/'"),
        ("process.chdir(home)", None),
    ],
}  # fmt: skip  # one case a line


@pytest.mark.parametrize("cells", CARRIED.values(), ids=CARRIED)
def test_javascript_carries_over(js: Session, cells: Cells) -> None:
    for code, expected in cells:
        assert js.run(code).text == expected, code


ERRORS = {
    "thrown": ("function f() {\n  throw new TypeError('no')\n}\nf()", "TypeError", "no",
               "<cell 1>:2\n  throw new TypeError('no')\n        ^\n\nTypeError: no\n    at f (<cell 1>:2:9)\n    at <cell 1>:4:1"),
    "in the first line": ("nope", "ReferenceError", "nope is not defined",
                          "<cell 1>:1\nnope\n^\n\nReferenceError: nope is not defined\n    at <cell 1>:1:1"),
    "after await": ("await 1\nthrow new Error('x')", "Error", "x", "<cell 1>:2\nthrow new Error('x')\n      ^\n\nError: x\n    at <cell 1>:2:7"),
    "syntax": ("let y = 1\n y y", "SyntaxError", "Unexpected identifier", "<cell 1>:2\n y y\n   ^\n\nSyntaxError: Unexpected identifier"),
    "no end": ("const x = (", "SyntaxError", "Unexpected end of input", "<cell 1>:1\nconst x = (\n           ^\n\nSyntaxError: Unexpected end of input"),
    "twice in one cell": ("let a; let a", "SyntaxError", "Identifier 'a' has already been declared", None),
    "null": ("throw null", "Uncaught", "null", "Uncaught null"),
    "undefined": ("throw undefined", "Uncaught", "undefined", "Uncaught undefined"),
    "text": ("throw 'text'", "Uncaught", "'text'", "Uncaught 'text'"),
    "rejected": ("await Promise.reject({ a: 1 })", "Uncaught", "{ a: 1 }", "Uncaught { a: 1 }"),
    "hostile": ("class E extends Error { get name() { throw 1 } get message() { throw 2 } toString() { throw 3 } }\nthrow new E()",
                "Error", "", None),
    "module": ("import x from 'no-such-module'", "Error", None, None),
    "syntax after import": ("import fs from 'fs'\nlet y = 1\n y y", "SyntaxError", "Unexpected identifier",
                            "<cell 1>:3\n y y\n   ^\n\nSyntaxError: Unexpected identifier"),
    "import in a function": ("function f() {\n  import x from 'y'\n}", "SyntaxError", "Cannot use import statement outside a module", None),
    "after export": ("export const one = 1;  nope", "ReferenceError", "nope is not defined",
                     "<cell 1>:1\nexport const one = 1;  nope\n                       ^\n\nReferenceError: nope is not defined\n    at <cell 1>:1:24"),
}  # fmt: skip  # one case a line


@pytest.mark.parametrize(("code", "name", "value", "traceback"), ERRORS.values(), ids=ERRORS)
def test_an_error_shows_the_cells_own_lines(
    js: Session, code: str, name: str, value: str | None, traceback: str | None
) -> None:
    done = js.run(code)
    assert done.name == name
    assert value is None or done.error["value"] == value
    assert traceback is None or done.traceback == traceback.replace("<cell 1>", f"<cell {js.cell}>")
    assert "node_session" not in done.traceback
    assert js.run("1 + 1").text == "2"


def test_an_error_in_a_function_of_another_cell_names_that_cell(js: Session) -> None:
    js.run("function fails() {\n  null.x\n}")
    assert f"<cell {js.cell}>:2\n  null.x" in js.run("\n\nfails()").traceback


VALUES = {
    "data": ("({ a: [1, 'x', null, true] })", {"text/plain": "{ a: [ 1, 'x', null, true ] }", "application/json": {"a": [1, "x", None, True]}}),
    "not data": ("({ f() {} })", {"text/plain": "{ f: [Function: f] }"}),
    "no number of JSON": ("NaN", {"text/plain": "NaN"}),
    "big integers": ("10n", {"text/plain": "10n"}),
    "symbols": ("Symbol('s')", {"text/plain": "Symbol(s)"}),
    "circular": ("const c = {}; c.c = c; c", {"text/plain": "<ref *1> { c: [Circular *1] }"}),
    "getters": ("({ get a() { throw 1 } })", {"text/plain": "{ a: [Getter] }"}),
    "proxies": ("new Proxy({}, { get() { throw 1 }, ownKeys() { throw 2 } })", {"text/plain": "{}"}),
    "no text": ("Object.defineProperty({}, require('util').inspect.custom, { value() { throw new Error('bad') } })",
                {"text/plain": "[a value that cannot be shown: Error: bad]", "application/json": {}}),
    "its own bundle": ("({ toMimeBundle: () => ({ 'text/html': '<b>', 'text/plain': 'b' }) })", {"text/html": "<b>", "text/plain": "b"}),
    "its own, later": ("({ async [Symbol.for('Jupyter.display')]() { return { 'text/plain': 'b', 'application/json': [1] } } })",
                       {"application/json": [1], "text/plain": "b"}),
}  # fmt: skip  # one case a line


@pytest.mark.parametrize(("code", "data"), VALUES.values(), ids=VALUES)
def test_a_value_is_sent_as_mime_data(js: Session, code: str, data: dict[str, Any]) -> None:
    assert js.run(code).data == data


def test_what_is_too_large_is_cut(js: Session) -> None:
    text = js.run("'a'.repeat(3e6)").text
    assert text is not None
    assert text.endswith("... 2990000 more characters")
    text = js.run("Object.fromEntries(Array.from({ length: 1e5 }, (_, i) => [`key number ${i}`, i]))").text
    assert text is not None
    assert MIB < len(text) < MIB + 100
    assert text.endswith("more characters")
    done = js.run("({ toMimeBundle: () => ({ 'image/png': 'A'.repeat(34e6) }) })")
    assert done.data == {"text/plain": "<image/png of 34000002 bytes: too much to send>"}


def test_displays_arrive_in_order_and_before_the_end(js: Session) -> None:
    done = js.run(
        "for (let i = 0; i < 50; i++) display(i)\nawait 1\ndisplay({ toMimeBundle: () => ({ 'text/html': '<i>' }) })"
    )
    assert [message["data"]["text/plain"] for message in done.displays[:50]] == [str(i) for i in range(50)]
    assert done.displays[50]["data"]["text/html"] == "<i>"
    assert {message["cell"] for message in done.displays} == {js.cell}


def test_output_is_in_the_pipe_before_the_cells_end_is_reported(js: Session) -> None:
    done = js.run(
        "console.log('out'); console.error('err'); process.stdout.write('x')\n"
        "require('child_process').execSync('echo child', { stdio: 'inherit' }); undefined"
    )
    assert (done.stdout, done.stderr) == ("out\nxchild\n", "err\n")
    with slowly(js):
        assert len(js.run("process.stdout.write('y'.repeat(3e6)); undefined").stdout) == 3_000_000


def test_output_is_not_lost_when_the_program_exits(fresh_js: Session) -> None:
    fresh_js.say({"do": "run", "cell": 1, "code": "process.stdout.write('y'.repeat(3e6)); process.exit(3)"})
    assert fresh_js.end() == 3
    assert len(fresh_js.pipes[0].take()) == 3_000_000
    assert fresh_js.pipes[1].take() == ""


def test_errors_that_no_code_waits_for_are_written_and_end_nothing(fresh_js: Session) -> None:
    done = fresh_js.run(
        "Promise.reject(new Error('late')); setTimeout(() => { throw 'timer' }, 1)\nawait new Promise((resolve) => setTimeout(resolve, 10))"
    )
    assert done.error is None
    assert "Uncaught Error: late\n    at <cell 1>:1:" in done.stderr
    assert "Uncaught 'timer'\n" in done.stderr
    own = fresh_js.run(
        "await new Promise((resolve) => {\n"
        "  process.on('uncaughtException', (error) => { console.log('own', error); setImmediate(resolve) })\n"
        "  setTimeout(() => { throw 1 })\n})"
    )
    assert (own.stdout, own.stderr) == ("own 1\n", "")


BUSY = {
    "loop": "while (true) {}",
    "await": "await new Promise(() => {})",
    "loop after await": "await 1; for (;;) {}",
    "loop of awaits": "while (true) await 1",
    "timer": "await new Promise(() => setTimeout(() => { for (;;) {} }, 5))",
    "tick": "process.nextTick(() => { for (;;) {} }); await new Promise(() => {})",
    "callback": "require('fs').readFile('/etc/passwd', () => { for (;;) {} }); await new Promise(() => {})",
    "caught": "for (;;) try { for (;;) {} } catch {} finally { for (;;) {} }",
    "text of a value": "Object.defineProperty({}, require('util').inspect.custom, { value() { for (;;) {} } })",
    "wait": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
    "child": "require('child_process').execSync('sleep 0.5')",
}


@pytest.mark.parametrize("code", BUSY.values(), ids=BUSY)
def test_an_interrupted_cell_ends_and_the_session_goes_on(js: Session, code: str) -> None:
    js.run("let kept = 1")
    done = js.run_interrupted(code)
    assert done.error == {"name": "KeyboardInterrupt", "value": "", "traceback": ["KeyboardInterrupt"]}
    after = js.run(
        "await new Promise((resolve) => setTimeout(() => setImmediate(() => process.nextTick(resolve)), 5))\n"
        "await require('fs').promises.readFile('/etc/passwd') && kept"
    )
    assert (after.text, after.stderr) == ("1", "")


def test_a_cell_that_has_begun_can_be_interrupted(js: Session) -> None:
    for _ in range(10):
        assert js.run_interrupted("await new Promise(() => {})", after_s=0).name == "KeyboardInterrupt"


def test_a_promise_that_an_interruption_left_may_be_collected(fresh_js: Session) -> None:
    """V8 reports that to the inspector as a failure, for each promise that was awaited."""
    fresh_js.run(
        "require('v8').setFlagsFromString('--expose-gc'); const collect = require('vm').runInNewContext('gc')"
    )
    fresh_js.run("setInterval(collect, 3)")
    for after_s in (0, 0.02, 0):
        assert fresh_js.run_interrupted("for (;;) {}", after_s=after_s).name == "KeyboardInterrupt"
        fresh_js.run("collect()")
    assert fresh_js.run("6 * 7").text == "42"


def test_an_interruption_while_nothing_runs_is_ignored(js: Session) -> None:
    for _ in range(20):
        js.interrupt()
        time.sleep(0.01)
        assert js.run("1").text == "1"
    assert js.process.poll() is None


HOSTILE = {
    "prototypes": "JSON.stringify = JSON.parse = null; Object.prototype.toJSON = () => 1; Array.prototype.map = Array.prototype.push = Array.prototype[Symbol.iterator] = null; Function.prototype.call = Function.prototype.apply = Function.prototype.bind = null; String.prototype.slice = String.prototype.replaceAll = null; Object.keys = Object.defineProperty = null; RegExp.prototype.exec = null",
    "globals": "for (const name of Object.getOwnPropertyNames(globalThis)) if (name !== 'globalThis' && name !== 'process') try { delete globalThis[name] } catch {}",
    "process": "process.emit = process.on = process.listeners = process.exit = process.reallyExit = null; process.stdout = 1; Object.defineProperty(process, 'stdout', { value: null }); Object.defineProperty(process, 'stderr', { value: null })",
    "listeners": "process.removeAllListeners()",
    "errors": "Error.prepareStackTrace = () => { throw 1 }; Error.stackTraceLimit = 0",
    "console": "globalThis.console = null",
    "the way to modules": "globalThis.import = 1; delete globalThis.import",
}  # fmt: skip  # one case a line


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE)
def test_a_session_survives_what_a_program_removes(fresh_js: Session, code: str) -> None:
    fresh_js.run(code)
    assert fresh_js.run("({ q: [1, 'x'] })").data == {
        "text/plain": "{ q: [ 1, 'x' ] }", "application/json": {"q": [1, "x"]},
    }  # fmt: skip  # one case a line
    assert fresh_js.run("null.x").name == "TypeError"
    assert fresh_js.run_interrupted("for (;;) {}").name == "KeyboardInterrupt"
    assert fresh_js.run("await import('path'); 3").text == "3"


ENDS = {
    "exit": ("process.on('exit', () => console.log('bye')); process.exit(3)", 3),
    "exit later": ("setTimeout(() => process.exit(5), 10); await new Promise(() => {})", 5),
    "signal": ("process.kill(process.pid, 'SIGTERM'); await new Promise(() => {})", -15),
    "the session's socket": ("require('fs').closeSync(3)", 0),
    "a file in the place of the socket": (
        "require('fs').closeSync(3); require('fs').openSync('/dev/null')",
        0,
    ),
}


@pytest.mark.parametrize(("code", "status"), ENDS.values(), ids=ENDS)
def test_what_ends_the_process_ends_the_session(fresh_js: Session, code: str, status: int) -> None:
    fresh_js.say({"do": "run", "cell": 1, "code": code})
    assert fresh_js.end() == status
    if status >= 0:
        assert fresh_js.pipes[1].take() == ""


@pytest.mark.parametrize("code", ["1", "for (;;) {}", "await new Promise(() => {})"])
def test_a_session_exits_when_init_is_gone(fresh_js: Session, code: str) -> None:
    fresh_js.say({"do": "run", "cell": 1, "code": code})
    if code != "1":
        assert fresh_js.hear()["is"] == "begun"
    start = time.monotonic()
    fresh_js.hang_up()
    assert time.monotonic() - start < 2


def test_children_do_not_inherit_the_socket_to_init(js: Session) -> None:
    listing = "require('child_process').spawnSync('ls', ['/proc/self/fd'], { encoding: 'utf8' }).stdout.split('\\n').join(' ')"
    assert js.run(listing).text == "'0 1 2 3 '"  # 3 is the directory that ls reads


def test_a_long_cell_may_arrive_in_pieces(js: Session) -> None:
    assert js.run(f"'{'é' * 200_000}'.length").text == "200000"


COMPLETIONS: dict[str, tuple[str, int, list[str]]] = {
    "properties": ("myValue.ab", 8, ["abc", "abd"]),
    "deep": ("1 + myValue.abc.de", 16, ["deep"]),
    "variables": ("myVal", 0, ["myValue"]),
    "globals": ("structuredCl", 0, ["structuredClone"]),
    "words": ("instanc", 0, ["instanceof"]),
    "text": ("'é'.leng", 4, ["length"]),
    "getters are not run": ("myValue.bad.x", 12, []),
    "calls are not made": ("run().x", 6, []),
}


@pytest.mark.parametrize(("code", "start", "matches"), COMPLETIONS.values(), ids=COMPLETIONS)
def test_completions(js: Session, code: str, start: int, matches: list[str]) -> None:
    js.run(
        "const myValue = { abc: { deep: 1 }, abd: 1, get bad() { ran = 1; return {} } }; let ran = 0; function run() { ran = 1 }"
    )
    answer = js.ask(do="complete", request=3, code=code + " ...", at=len(code))
    assert answer == {"is": "completions", "request": 3, "start": start, "end": len(code), "matches": matches}
    assert js.run("ran").text == "0"


COMPLETENESS = {
    "function f() {": ("incomplete", "  "), "if (x) {\n  foo(": ("incomplete", "    "), "1 +": ("incomplete", ""),
    "`abc": ("incomplete", ""), "/* abc": ("incomplete", ""), "x = )": ("invalid", ""), "const s = 'abc": ("invalid", ""),
    "f(`${[1,": ("incomplete", "      "), "f(`abc": ("incomplete", ""), "if (1) /`/": ("complete", ""),
    "let x = 5": ("complete", ""), "": ("complete", ""), "await 1": ("complete", ""), "import x from 'y'": ("complete", ""),
}  # fmt: skip  # one case a line


@pytest.mark.parametrize(
    ("code", "status", "indent"), [(code, *expected) for code, expected in COMPLETENESS.items()]
)
def test_whether_a_statement_is_complete(
    js: Session, ts: Session, code: str, status: str, indent: str
) -> None:
    for session in (js, ts):
        answer = session.ask(do="is_complete", request=4, code=code)
        assert answer == {"is": "completeness", "request": 4, "status": status, "indent": indent}


UNPARSED = {
    "a template that ends in a backslash": "const a = `abc\\",
    "a long string": 'const a = "' + "x" * 9_000_000 + '"',
    "many brackets": "(" * 20_000,
    "many blocks": "if (1) {" * 2000 + "}" * 2000,
    "a long chain": "const x = { f() { return this } }; x" + ".f()" * 3000,
    "a long sum": "const sum = 1" + " + 1" * 20_000,
}


@pytest.mark.parametrize("code", UNPARSED.values(), ids=UNPARSED)
def test_a_cell_that_cannot_be_parsed_does_not_end_the_session(
    js: Session, bare_ts: Session, code: str
) -> None:
    for session in (js, bare_ts):
        session.run("var kept = 5")
        answer = session.ask(do="is_complete", request=4, code=code)
        assert answer["status"] in ("complete", "incomplete", "invalid")
        session.run(code)
        assert session.run("kept").text == "5"


def test_a_cell_that_is_too_long_for_the_parser_still_runs(js: Session) -> None:
    js.run("import { sep as longSep } from 'path'\nvar long = 1" + " + 1" * 100_000)
    assert js.run("long + longSep").text == "'100001/'"


def test_a_template_that_ends_in_a_backslash_is_incomplete(js: Session, ts: Session) -> None:
    for session in (js, ts):
        assert session.ask(do="is_complete", request=4, code="`abc\\")["status"] == "incomplete"


@pytest.mark.parametrize("code", ["new (class { import(p) { return p } })()", "({ import(p) { return p } })"])
def test_methods_may_be_called_import(js: Session, ts: Session, code: str) -> None:
    for session in (js, ts):
        session.run(
            f"const importer = {code}"
            if session is js
            else f"const importer: any = {code.replace('(p)', '(p: any)')}"
        )
        assert session.run("importer.import(5)").text == "5"


def test_frames_of_the_sessions_own_files_are_not_shown(js: Session) -> None:
    cell = js.run("({ [Symbol.for('Jupyter.display')]() { throw new Error('own') } })")
    shown = json.dumps(vars(cell), default=str)
    assert "own" in shown
    assert "node_session" not in shown


# --- TypeScript

TYPED: dict[str, Cells] = {
    "variables": [("const a: number = 5", None), ("a + 1", "6"), ("const a: string = 'x'; a", "'x'")],
    "types": [
        ("interface P { x: number }\ntype Q<T extends object> = { q: T } & P\nenum C { Red, Green = 7 }", None),
        ("const p: P = { x: C.Green }; const q: Q<P> = { q: p, x: 1 }; q.q.x", "7"),
    ],
    "generic functions": [("function twice<T>(v: T): [T, T] { return [v, v] }", None), ("twice('s')[1].length", "1")],
    "classes": [("class A { constructor(private v: number) {} get() { return this.v } }", None), ("new A(3).get()", "3"),
                ("class A { z = 'new' }; new A().z", "'new'")],
    "enums start anew": [("enum C { Red }", None), ("enum C { Blue }; Object.keys(C).join()", "'0,Blue'")],
    "let may be assigned to": [("let n = 1", None), ("n = 2; n", "2")],
    "lists that are used later": [("const later = []; later.push(1)", "1"), ("for (const r of later) console.log(r); later", "[ 1 ]")],
    "null at first": [("let acc = null", None), ("acc = 5", "5"), ("acc + 1", "6")],
    "lists that grow": [("const list = []; list.push(1)", "1"), ("list.push('a'); list.length", "2")],
    "namespaces": [("namespace N { export const k = 4 }", None), ("N.k", "4")],
    "var of a loop": [("for (var i = 0; i < 3; i++) {}\ni", "3"), ("i", "3")],
    "patterns": [("const { u, v: [w] } = { u: 1, v: ['s'] }", None), ("u + w", "'1s'")],
    "imports": [
        ("import fs, { readFileSync } from 'fs'\nimport * as path from 'path'\nimport type { Stats } from 'fs'", None),
        ("readFileSync('/etc/passwd', 'utf8').length > 0 && path.join('a', 'b') + fs.existsSync('/')", "'a/btrue'"),
        ("let stats: Stats | undefined; stats", None),
    ],
    "exports": [("export const a = 1\nexport default function foo() { return 2 }", None), ("a + foo()", "3")],
    "await": [("const os = await import('os'); await Promise.resolve(typeof os.cpus)", "'function'")],
    "declared in another way": [("function f(x: number) { return x }", None), ("const f = (s: string) => s; f('q')", "'q'")],
    "old declarations keep their types": [("interface S { a: 1 }\nconst s: S = { a: 1 }", None), ("interface S { b: 2 }\ns.a", "1")],
    "templates": [("const t = `a\n  b\n\n c`\n\nt", "'a\\n  b\\n\\n c'")],
}  # fmt: skip  # one case a line


@pytest.mark.parametrize("cells", TYPED.values(), ids=TYPED)
def test_typescript_carries_over(ts: Session, cells: Cells) -> None:
    for code, expected in cells:
        assert ts.run(code).text == expected, code


def test_a_type_error_fails_the_cell_and_nothing_of_it_is_kept(ts: Session) -> None:
    ts.run("let witness = 1")
    done = ts.run("witness = 2\nconst wrong: number = 'x'")
    assert done.name == "TSError"
    place = f"<cell {ts.cell}>"
    assert (
        done.error["value"]
        == f"⨯ Unable to compile TypeScript:\n{place}(2,7): error TS2322: Type 'string' is not assignable to type 'number'."
    )
    assert (
        f"{place}:2:7 - error TS2322: Type 'string' is not assignable to type 'number'.\n\nconst wrong: number = 'x'\n      ~~~~~"
        in done.traceback
    )
    assert ts.run("witness").text == "1"
    assert "TS2304: Cannot find name 'wrong'" in ts.run("wrong").error["value"]


TYPE_ERRORS = {
    "a new type": ("const a = 1", "const a = 'x'", "const b: number = a", "TS2322"),
    "a constant": ("const a = 1", "1", "a = 2", "TS2588"),
    "an old type": ("let n = 1", "1", "n = 'x'", "TS2322"),
    "a constraint": ("type Q<T extends object> = T", "1", "let q: Q<string>", "TS2344"),
    "syntax": ("1", "2", "const x = (", "TS1109"),
}


@pytest.mark.parametrize(("first", "second", "wrong", "code"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_the_last_declaration_of_a_name_gives_its_type(
    ts: Session, first: str, second: str, wrong: str, code: str
) -> None:
    assert ts.run(first).error is None
    assert ts.run(second).error is None
    assert code in ts.run(wrong).error["value"]


def test_typescript_errors_show_the_cells_lines(ts: Session) -> None:
    done = ts.run(
        "interface Deep {\n  a: string\n}\n\nenum E { A, B }\nfunction boom(x: Deep): never {\n  throw new Error(x.a)\n}\nboom({ a: 'deep' })"
    )
    place = f"<cell {ts.cell}>"
    assert done.error["value"] == "deep"
    assert done.traceback.startswith(f"{place}:7\n  throw new Error(x.a)\n")
    assert f"at {place}:9:" in done.traceback


def test_files_that_cells_import_may_be_typescript(ts: Session) -> None:
    (ts.code / "helper.ts").write_text(
        "export const h = (x: number): number => x * 2\nexport interface H { a: 1 }\n"
    )
    assert ts.run("import { h, H } from './helper'\nconst own: H = { a: 1 }; h(4) + own.a").text == "9"
    assert "TS2345" in ts.run("h('s')").error["value"]


def test_typescript_is_interrupted_and_goes_on(ts: Session) -> None:
    ts.run("let kept: number = 5")
    assert ts.run_interrupted("while (true) {}").name == "KeyboardInterrupt"
    assert ts.run("kept").text == "5"


def test_typescript_completions_know_types(ts: Session) -> None:
    ts.run("interface P { first: number; second: string }\ndeclare const never1: P\nimport fs from 'fs'")

    def ask(code: str) -> Any:
        return ts.ask(do="complete", request=1, code=code, at=len(code))["matches"]

    assert ask("fs.readFileS") == ["readFileSync"]
    assert ask("function f(p: P) { p.") == ["first", "second"]


def test_typescript_starts_without_preloading(bare_ts: Session) -> None:
    assert bare_ts.run("const a: number = 1; a").text == "1"


def test_idle_sessions_are_small(fresh_js: Session, ts: Session) -> None:
    def private_mib(session: Session) -> int:
        assert session.process.poll() is None, session.pipes[1].take()
        lines = Path(f"/proc/{session.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) >> 10

    assert private_mib(fresh_js) < 80
    assert private_mib(ts) < 320
