"""``codeforge batch``: each line gets one record, whatever it contains and however the process ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.support import eventually, sandboxes
from observer import OBSERVER

BATCH = [sys.executable, "-m", "codeforge", "batch"]
NO_ENGINE = "unix:///nonexistent"
GONE_WITHIN_S = 5.0
STARTED_WITHIN_S = 60.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def _leaves_nothing_behind() -> Iterator[None]:
    before = sandboxes()
    yield
    assert eventually(lambda: sandboxes() <= before, GONE_WITHIN_S), OBSERVER.describe()


def batch(
    *arguments: str | Path, stdin: str = "", cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [*BATCH, *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}, timeout=240
    )


def write(path: Path, *programs: Any) -> None:
    path.write_text("".join(json.dumps(program) + "\n" for program in programs))


def records(path: Path) -> list[dict[str, Any]]:
    """The whole records in the file; the last line may be incomplete."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def by_line(path: Path) -> dict[int, dict[str, Any]]:
    found = records(path)
    assert len({record["line"] for record in found}) == len(found)
    return {record["line"]: record for record in found}


def test_help_has_examples_and_exit_codes() -> None:
    shown = batch("--help").stdout
    assert "Examples:" in shown
    assert "--resume" in shown
    assert "143" in shown
    assert "\x1b" not in shown


@pytest.mark.engine
def test_programs_of_every_language_and_fate_get_a_record(source: Path, out: Path) -> None:
    write(
        source,
        {"id": "py", "code": "import sys; print(input(), sys.argv[1:])", "stdin": "in", "args": ["x"]},
        {"id": 2, "code": "console.log(require('fs').readFileSync('b').length)", "language": "js",
         "files_base64": {"b": "/wA="}},
        {"id": None, "code": "const x: number = 1; console.log(x)", "language": "typescript"},
        {"id": True, "code": "import os; os.write(1, b'\\xff'); open('o', 'wb').write(b'A'); os._exit(3)"},
        {"code": "import time; time.sleep(60)", "timeout": 0.5},
    )  # fmt: skip
    done = batch(source, out)
    found = by_line(out)
    assert [found[number]["id"] for number in range(1, 6)] == ["py", 2, None, True, None]
    assert [found[number]["status"] for number in range(1, 6)] == ["ok", "ok", "ok", "error", "timeout"]
    assert [found[number]["stdout"] for number in (1, 2, 3)] == ["in ['x']\n", "2\n", "1\n"]
    assert (found[4]["exit_code"], found[4]["stdout_base64"], found[4]["files"]) == (3, "/w==", {"o": "QQ=="})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("5 lines: 3 ok, 1 error, 1 timeout; ")
    assert "\x1b" not in done.stderr


@pytest.mark.engine
def test_a_bad_line_gets_a_record_and_stops_nothing(source: Path, out: Path) -> None:
    source.write_bytes(
        b"nonsense\n"
        b"\n"
        b'{"id": 7, "code": "1", "tiemout": 3}\n'
        b'{"id": 8, "code": "1", "language": "pyton"}\n'
        b'{"id": 9, "code": "1", "timeout": -1}\n'
        b'{"code": "\xff"}\n'
        b'{"id": [1], "code": "1"}\n'
        b'{"id": "last", "code": "print(6 * 7)"}'
    )
    assert batch(source, out, "--json").returncode == 1
    found = by_line(out)
    assert set(found) == {1, 3, 4, 5, 6, 7, 8}
    assert found[8]["stdout"] == "42\n"
    errors = {number: (record["id"], record["error"]) for number, record in found.items() if number < 8}
    assert {number: (name, error["type"]) for number, (name, error) in errors.items()} == {
        1: (None, "InvalidRequest"),
        3: (7, "InvalidRequest"),
        4: (8, "UnknownLanguage"),
        5: (9, "InvalidRequest"),
        6: (None, "InvalidRequest"),
        7: (None, "InvalidRequest"),
    }
    assert "'tiemout'" in errors[3][1]["message"]
    assert "Did you mean 'timeout'" in errors[3][1]["message"]


@pytest.mark.engine
def test_options_are_defaults_for_lines_and_json_prints_a_summary(source: Path, out: Path) -> None:
    write(
        source,
        {"code": "setTimeout(() => {}, 60000)"},
        {"code": "print(1)", "language": "python", "timeout": 9},
    )
    done = batch(source, out, "--language", "js", "--timeout", "0.5", "--memory", "256m", "--json")
    summary = json.loads(done.stdout)
    assert summary["by_fate"] == {"ok": 1, "timeout": 1}
    assert (summary["complete"], summary["lines"], summary["lines_before"]) == (True, 2, 0)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.engine
def test_all_ok_exits_with_0_and_a_batch_from_a_pipe_can_resume(out: Path) -> None:
    lines = '{"code": "print(1)"}\n{"code": "print(2)"}\n'
    assert batch("-", out, stdin=lines).returncode == 0
    lines += '{"code": "print(3)"}'
    done = batch("-", out, "--resume", "--json", stdin=lines)
    assert (done.returncode, json.loads(done.stdout)["runs"]) == (0, 1)
    assert [record["stdout"] for record in records(out)[2:]] == ["3\n"]


@pytest.mark.engine
def test_a_dash_as_out_writes_the_records_to_stdout_and_creates_no_file(source: Path) -> None:
    write(source, {"id": "a", "code": "print(1)"}, {"id": "b", "kode": ""})
    done = batch(source.name, "-", cwd=source.parent)
    found = {record["id"]: record for record in map(json.loads, done.stdout.splitlines())}
    assert found["a"]["stdout"] == "1\n"
    assert found["b"]["error"]["type"] == "InvalidRequest"
    assert (done.returncode, len(found)) == (1, 2)
    assert done.stderr.startswith("2 lines: 1 ok, 1 invalid; ")
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.engine
def test_both_ends_of_a_batch_may_be_pipes() -> None:
    done = batch("-", "-", stdin='{"code": "print(1)"}\n')
    assert (done.returncode, json.loads(done.stdout)["stdout"]) == (0, "1\n")


@pytest.mark.engine
@pytest.mark.usefixtures("_leaves_nothing_behind")
def test_a_reader_of_stdout_that_leaves_ends_the_batch_with_141(source: Path) -> None:
    write(source, *({"code": f"print({n})"} for n in range(200)))
    command = [*BATCH, str(source), "-", "--concurrency", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stderr is not None
        assert json.loads(host.stdout.readline())["status"] == "ok"
        host.stdout.close()
        assert host.wait(STARTED_WITHIN_S) == 141
        assert host.stderr.read() == ""


@pytest.mark.engine
def test_a_signal_to_a_batch_on_stdout_does_not_promise_that_it_can_be_resumed(source: Path) -> None:
    write(source, {"code": "print(1)"}, {"code": "import time; time.sleep(60)"})
    command = [*BATCH, str(source), "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stderr is not None
        assert json.loads(host.stdout.readline())["line"] == 1
        host.send_signal(signal.SIGINT)
        assert host.wait(GONE_WITHIN_S) == 130
        said = host.stderr.read()
    assert "stopped by SIGINT" in said
    assert "--resume" not in said


@pytest.mark.parametrize(
    ("option", "why"), [("--resume", "continues a file"), ("--json", "prints on stdout")]
)
def test_a_dash_as_out_refuses_what_needs_a_file(source: Path, option: str, why: str) -> None:
    write(source, {"code": "print(1)"})
    done = batch(source, "-", option, DOCKER_HOST=NO_ENGINE)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{option} {why}" in done.stderr


@pytest.mark.engine
def test_after_kill_9_every_line_gets_one_record_and_nothing_finished_runs_again(
    source: Path, out: Path
) -> None:
    others = sandboxes()
    write(source, *({"id": n, "code": f"import time; time.sleep(0.3); print({n})"} for n in range(1, 17)))
    with subprocess.Popen([*BATCH, str(source), str(out), "--concurrency", "3"]) as host:
        assert eventually(lambda: len(records(out)) >= 4, STARTED_WITHIN_S)
        host.kill()
    before = records(out)
    assert 4 <= len(before) < 16
    # Containers that were created but not started are removed later.
    assert eventually(lambda: sandboxes(all_states=False) <= others, GONE_WITHIN_S), OBSERVER.describe()
    with out.open("a") as torn:
        torn.write('{"line": 16, "id": 16, "dig')

    done = batch(source, out, "--resume", "--concurrency", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert records(out)[: len(before)] == before
    assert {n: (record["id"], record["stdout"]) for n, record in by_line(out).items()} == {
        n: (n, f"{n}\n") for n in range(1, 17)
    }
    summary = json.loads(done.stdout)
    assert (summary["lines_before"], summary["runs"]) == (len(before), 16 - len(before))
    assert len({record["container_id"] for record in records(out)}) == 16

    # Everything is done: not even an engine is needed.
    again = batch(source, out, "--resume", "--json", DOCKER_HOST=NO_ENGINE)
    assert (again.returncode, json.loads(again.stdout)["runs"]) == (0, 0)


@pytest.mark.engine
@pytest.mark.usefixtures("_leaves_nothing_behind")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_quickly_keeps_what_finished_and_says_how_to_resume(
    source: Path, out: Path, number: signal.Signals, code: int
) -> None:
    before = sandboxes()
    write(source, {"code": "print(1)"}, *({"code": "import time; time.sleep(60)"} for _ in range(20)))
    command = [*BATCH, str(source), str(out), "--concurrency", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as host:
        assert eventually(lambda: len(records(out)) == 1 and len(sandboxes() - before) >= 3, STARTED_WITHIN_S)
        host.send_signal(number)
        assert host.wait(timeout=GONE_WITHIN_S) == code
        assert host.stderr is not None
        said = host.stderr.read()
    assert f"stopped by {number.name}" in said
    assert f"{out}; the same command with --resume" in said
    assert "Traceback" not in said
    assert [record["line"] for record in records(out)] == [1]


@pytest.mark.engine
def test_a_long_row_of_bad_lines_delays_no_deadline(source: Path, out: Path) -> None:
    sleeper = {"code": "import time; time.sleep(0.3)", "timeout": 1}
    write(source, {"code": ""}, sleeper, *({"kode": n} for n in range(25_000)))
    done = batch(source, out, "--json", "--concurrency", "2")
    assert json.loads(done.stdout)["by_fate"] == {"ok": 2, "invalid": 25_000}


@pytest.mark.engine
def test_on_a_terminal_there_is_a_bar(source: Path, out: Path) -> None:
    write(source, *({"code": "print(1)"} for _ in range(3)))
    ours, theirs = pty.openpty()
    with subprocess.Popen([*BATCH, str(source), str(out)], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
        assert process.wait(STARTED_WITHIN_S) == 0
    os.close(ours)
    assert b"/3" in shown
    assert b"3 lines: 3 ok; " in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # on Linux: the other end is closed
        return b""


@pytest.mark.engine("docker")
def test_without_an_engine_it_stops_keeps_its_records_and_says_how_to_resume(source: Path, out: Path) -> None:
    write(source, "bad", {"code": "print(1)"})
    done = batch(source, out, DOCKER_HOST=NO_ENGINE)
    assert done.returncode == 69
    assert "Docker is not available. Install Docker to use sandboxed execution." in done.stderr
    assert "--resume" in done.stderr
    assert "1 line: 1 invalid;" in done.stderr
    assert [record["line"] for record in records(out)] == [1]


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["anew", "resume"])
def test_an_output_that_another_batch_writes_is_refused(source: Path, out: Path, options: list[str]) -> None:
    write(source, {"code": "print(1)"})
    with out.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = batch(source, out, *options, DOCKER_HOST=NO_ENGINE)
    assert done.returncode == 2
    assert "is being written by another process" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "exists already; continue it with --resume, or name another file"),
        (["--resume"], "line 1: this is not a record of a batch; nothing was changed"),
    ],
)
def test_a_file_that_is_no_output_of_a_batch_is_refused_and_not_changed(
    source: Path, out: Path, options: list[str], said: str
) -> None:
    write(source, {"code": "print(1)"})
    out.write_text("precious\ntext")
    done = batch(source, out, *options, DOCKER_HOST=NO_ENGINE)
    assert (done.returncode, out.read_text()) == (2, "precious\ntext")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--language", "pyton"], "Did you mean 'python'"),
        (["--timeout", "0"], "timeout must be a number"),
        (["--memory", "lots"], "must look like '512m'"),
        (["--concurrency", "0"], "--concurrency"),
        (["--max-runs-per-sandbox", "0"], "--max-runs-per-sandbox"),
    ],
)
def test_mistakes_exit_with_2_and_create_no_output(
    source: Path, out: Path, options: list[str], said: str
) -> None:
    write(source, {"code": "print(1)"})
    done = batch(source, out, *options, DOCKER_HOST=NO_ENGINE)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_missing_input_creates_no_output(tmp_path: Path, out: Path) -> None:
    done = batch(tmp_path / "nosuch", out, DOCKER_HOST=NO_ENGINE)
    assert done.returncode == 2
    assert "cannot read" in done.stderr
    assert not out.exists()
