"""The command line, as a person or a script uses it."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

CODEFORGE = [sys.executable, "-m", "codeforge"]


def codeforge(
    *arguments: str, stdin: str = "", cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CODEFORGE, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **env},
    )


def test_version_and_help() -> None:
    assert codeforge("--version").stdout.startswith("codeforge 0.")
    assert "Examples:" in codeforge("run", "--help").stdout
    assert codeforge("nonsense").returncode == 2


@pytest.mark.engine
def test_run_passes_arguments_stdin_environment_and_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/in.txt").write_text("beside")
    (tmp_path / "prog.py").write_text(
        "import os, sys\n"
        "print(input(), sys.argv[1:], os.environ['A'], open('data/in.txt').read(), open('b').read())\n"
        "print('err', file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    files = ["--file", "data/in.txt", "--file", "data/in.txt:b"]
    done = codeforge(
        "run", "prog.py", "--env", "A=1=2", *files, "--", "-x", "y z", stdin="line\n", cwd=tmp_path
    )
    assert done.stdout == "line ['-x', 'y z'] 1=2 beside beside\n"
    assert done.stderr == "err\n"
    assert done.returncode == 7


@pytest.mark.engine
def test_a_program_on_stdin() -> None:
    done = codeforge("run", "-", "--language", "js", stdin="console.log(6 * 7)")
    assert (done.stdout, done.returncode) == ("42\n", 0)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("program", "options", "code", "said"),
    [
        ("import time; time.sleep(60)", ["--timeout", "1"], 124, "timed out after 1 s"),
        ("b = bytearray(1 << 30)", ["--memory", "64m"], 137, "container killed (OOMKilled)"),
        ("while True: print('x' * 9999)", [], 123, "wrote more than 64m"),
        ("import os; os.kill(os.getpid(), 15)", [], 143, "killed by SIGTERM"),
    ],
    ids=["timeout", "oom", "flood", "signal"],
)
def test_verdicts_have_exit_codes_and_messages(
    program: str, options: list[str], code: int, said: str
) -> None:
    done = codeforge("run", "-", *options, stdin=program)
    assert done.returncode == code
    assert said in done.stderr


@pytest.mark.engine
def test_json_distinguishes_a_verdict_from_an_exit_code() -> None:
    done = codeforge("run", "-", "--json", stdin="import os; os.write(1, b'\\xff'); os._exit(124)")
    document = json.loads(done.stdout)
    assert (document["status"], document["exit_code"], document["timed_out"]) == ("error", 124, False)
    assert document["stdout_base64"] == "/w=="
    assert done.returncode == 124


@pytest.mark.engine
def test_output_is_raw_in_a_pipe_and_harmless_on_a_terminal() -> None:
    program = r"import sys; sys.stdout.write('\x1b]0;evil\x07\x1b[2Jred\rover\u202e\n')"
    raw = "\x1b]0;evil\x07\x1b[2Jred\rover\u202e\n"
    assert (
        subprocess.run([*CODEFORGE, "run", "-"], input=program.encode(), capture_output=True).stdout
        == raw.encode()
    )

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*CODEFORGE, "run", "-"], stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.PIPE
    ) as process:
        process.communicate(program.encode())
    os.close(theirs)
    shown = os.read(ours, 1000)
    os.close(ours)
    assert shown == rb"\x1b]0;evil\x07\x1b[2Jred\rover\u202e" + b"\r\n"


@pytest.mark.engine
def test_a_closed_pipe_ends_the_run_quietly() -> None:
    program = "i = 0\nwhile True:\n    print(i)\n    i += 1\n"
    command = f"'{sys.executable}' -m codeforge run - | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], input=program, capture_output=True, text=True, timeout=30)
    assert done.stdout == "0\n141\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nosuch.py"], "cannot read nosuch.py"),
        (["run", "/etc/hostname"], "cannot tell the language"),
        (["run", "-", "--language", "pyton"], "Did you mean 'python'"),
        (["run", "-", "--memory", "lots"], "must look like '512m'"),
        (["run", "-", "--timeout", "-1"], "timeout must be a number"),
        (["run", "-", "--env", "NO_SUCH_VARIABLE_HERE"], "is not set here"),
        (["run", "-", "--file", "/no/such"], "cannot read /no/such"),
        (["images", "build", "cobol"], "unknown language"),
        (["images", "scan", "python", "--severity", "bad"], "--severity must be one of"),
    ],
)
def test_a_bad_request_exits_with_2_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    done = codeforge(*arguments, stdin="print(1)", DOCKER_HOST="unix:///nonexistent")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.engine("docker")
@pytest.mark.parametrize("arguments", [["run", "-"], ["doctor"], ["images", "list"], ["images", "pull"]])
def test_without_an_engine_the_error_is_the_documented_one(arguments: list[str]) -> None:
    done = codeforge(*arguments, stdin="print(1)", DOCKER_HOST="unix:///nonexistent")
    assert done.returncode == 69
    text = done.stdout + done.stderr
    assert "Docker is not available. Install Docker to use sandboxed execution." in " ".join(text.split())


@pytest.mark.engine
def test_doctor_finds_no_problem_here() -> None:
    done = codeforge("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["healthy"]) == (0, True)
    assert {"python run", "javascript run", "typescript run"} <= {check["name"] for check in report["checks"]}


@pytest.mark.engine("docker")
def test_lists() -> None:
    languages = json.loads(codeforge("languages", "--json").stdout)
    assert [row["name"] for row in languages] == ["python", "javascript", "typescript", "python-data"]
    images = json.loads(codeforge("images", "list", "--json").stdout)
    required = {row["language"]: row for row in images if row["language"] != "python-data"}
    assert list(required) == ["python", "javascript", "typescript"]
    assert all(row["present"] and row["size"] < 200e6 for row in required.values())


@pytest.mark.engine
def test_a_dialogue_on_a_terminal(tmp_path: Path) -> None:
    """Each typed line reaches the program immediately, and its answer comes back immediately."""
    (tmp_path / "talk.py").write_text("while True: print('got', input('> '), flush=True)")
    ours, theirs = pty.openpty()
    command = [*CODEFORGE, "run", str(tmp_path / "talk.py")]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as talk:
        os.close(theirs)
        shown = b""
        for line in (b"one", b"two", b"three"):
            while not shown.endswith(b"> "):
                shown += os.read(ours, 1000)
            os.write(ours, line + b"\n")
            while b"got " + line not in shown:
                assert select.select([ours], [], [], 10)[0], shown
                shown += os.read(ours, 1000)
        os.write(ours, b"\x04")  # Ctrl-D
        while select.select([ours], [], [], 10)[0] and b"EOFError" not in shown:
            shown += os.read(ours, 1000)
        assert b"EOFError" in shown
        os.close(ours)
        assert talk.wait(10) == 1


LEAVES = """
import os, sys
os.makedirs("a/b")
for name in ("a/b/out.txt", "plain", "blocked", "linked/x", "evil\\x1b"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    open(name, "w").write("from the run")
os.symlink("/etc/passwd", "link")
print("out")
sys.exit(3)
"""


@pytest.mark.engine
def test_out_writes_the_files_that_a_run_leaves_and_nothing_elsewhere(tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "blocked").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (results / "linked").symlink_to("../elsewhere")
    (results / "plain").symlink_to("../elsewhere/plain")
    done = codeforge("run", "-", "--out", "results/", stdin=LEAVES, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("out\n", 3)
    assert sorted(done.stderr.splitlines()) == [
        "Left out blocked: in the way",
        "Left out evil\\x1b: unusable name",
        "Left out link: not regular",
        "Left out linked/x: in the way",
        "Wrote results/a/b/out.txt",
        "Wrote results/plain",
    ]
    assert (results / "a/b/out.txt").read_text() == "from the run"
    assert (results / "plain").read_text() == "from the run"
    assert not (results / "plain").is_symlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert list((results / "blocked").iterdir()) == []


@pytest.mark.engine
def test_the_json_document_lists_the_written_files(tmp_path: Path) -> None:
    (tmp_path / "results/blocked").mkdir(parents=True)
    done = codeforge("run", "-", "--json", "--out", str(tmp_path / "results"), stdin=LEAVES)
    document = json.loads(done.stdout)
    names = ["a/b/out.txt", "linked/x", "plain"]
    assert document["written"] == [f"{tmp_path}/results/{name}" for name in names]
    left = {"blocked": "in_the_way", "evil\x1b": "unusable_name", "link": "not_regular"}
    assert document["files_skipped"] == left
    assert done.stderr == ""


def test_an_unwritable_out_directory_is_reported_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = codeforge(
        "run", "-", "--out", str(tmp_path / "file"), stdin="1", DOCKER_HOST="unix:///nonexistent"
    )
    assert done.returncode == 2
    assert f"--out: cannot write to {tmp_path}/file" in "".join(done.stderr.split("\n"))
    done = codeforge("run", "-", "--out", "/proc/nowhere", stdin="1", DOCKER_HOST="unix:///nonexistent")
    assert done.returncode == 2
