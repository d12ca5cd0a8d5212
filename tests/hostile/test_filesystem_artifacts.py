"""Files that a program leaves are returned as bytes of its own regular files, within limits, or skipped."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor, ExecutionResult, Status
from hostile.payloads import payload

pytestmark = pytest.mark.core


def left_by(executor: BlockingCodeExecutor, body: str, **options: Any) -> ExecutionResult:
    result = executor.execute(payload(body), **({"timeout": 60, "cpu_quota": 100_000} | options))
    assert result.status is Status.OK, result.stderr
    return result


@pytest.mark.catalogue("F03")
@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_links_made_by_node_are_not_followed(executor: BlockingCodeExecutor, language: str) -> None:
    code = """
        import { symlinkSync, linkSync, writeFileSync } from "fs";
        symlinkSync("/etc/passwd", "out.txt");
        writeFileSync("one", "1");
        linkSync("one", "two");
        writeFileSync("mine", "mine");
    """
    result = executor.execute(code, language, timeout=90, cpu_quota=100_000)
    assert result.success, result.stderr
    assert dict(result.files) == {"mine": b"mine"}
    assert dict(result.files_skipped) == {"out.txt": "not_regular", "one": "linked", "two": "linked"}


@pytest.mark.catalogue("F03")
def test_a_link_in_place_of_the_program_is_not_followed(executor: BlockingCodeExecutor) -> None:
    result = left_by(
        executor,
        """
        os.unlink("/code/main.py")
        os.symlink("/etc/passwd", "/code/main.py")
        os.rename("/code/given", "/code/taken")
        os.symlink("/etc", "/code/given")
        """,
        files={"given/file": "input"},
    )
    assert dict(result.files) == {"taken/file": b"input"}
    assert dict(result.files_skipped) == {"main.py": "not_regular", "given": "not_regular"}


@pytest.mark.catalogue("F05")
def test_files_that_a_program_made_unreadable_are_reported(executor: BlockingCodeExecutor) -> None:
    result = left_by(
        executor,
        """
        open("mine", "w").write("mine")
        open("shut", "w").write("x")
        os.chmod("shut", 0)
        os.mkdir("folder")
        open("folder/file", "w").write("x")
        os.chmod("folder", 0)
        """,
    )
    assert dict(result.files) == {"mine": b"mine"}
    assert dict(result.files_skipped) == {"shut": "unreadable", "folder": "unreadable"}


@pytest.mark.catalogue("F06")
def test_sparse_files_stay_within_the_limit(executor: BlockingCodeExecutor) -> None:
    result = left_by(
        executor,
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def sparse(name, size):
            return attempt(lambda: os.truncate(os.open(name, os.O_CREAT | os.O_WRONLY), size))
        report([sparse("huge", 1 << 50), sparse("large", 40 << 20)])
        for n in range(10):
            sparse(f"f{n:02}", 3 << 20)
        """,
    )
    reported = result.stdout
    assert reported.startswith('["EFBIG", "allowed"')
    kept = sum(map(len, result.files.values()))
    assert kept <= 16 << 20
    assert sorted(set(result.files_skipped.values())) == ["too_large"]
    assert len([name for name in result.files if name.startswith("f")]) == 5
    assert not any(data.strip(b"\0") for data in result.files.values())


@pytest.mark.catalogue("F06")
def test_a_file_that_grows_stops_growing_when_the_run_ends(executor: BlockingCodeExecutor) -> None:
    result = left_by(
        executor,
        """
        if os.fork() == 0:
            os.setsid()
            file = os.open("grows", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            while True:
                os.write(file, b"x" * 4096)
        while not os.path.exists("grows") or os.path.getsize("grows") < 8192:
            time.sleep(0.01)
        report(0)
        """,
    )
    if "grows" in result.files:
        assert set(result.files["grows"]) == {ord("x")}
        assert 8192 <= len(result.files["grows"]) <= 16 << 20
    else:
        assert dict(result.files_skipped) == {"grows": "too_large"}


@pytest.mark.catalogue("F07")
def test_hostile_file_names_are_returned_unchanged_or_skipped(executor: BlockingCodeExecutor) -> None:
    result = left_by(
        executor,
        """
        for name in (b"a\\nb", b"\\xc3", b"\\x1b]0;x\\x07", b"-rf", b"x" * 255,
                     "\u202egpj.exe".encode(), b"Case", b"case", b" ", b"...", b"~", b"$(id)", b"a\\\\b",
                     b"CON", b"'\\"", "\\u00e9".encode(), "e\\u0301".encode()):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        """,
    )
    assert set(result.files) == {
        "-rf", "x" * 255, "\u202egpj.exe", "Case", "case", " ", "...", "~", "$(id)", "a\\b", "CON", "'\"",
        "\u00e9", "e\u0301",
    }  # fmt: skip
    assert sorted(result.files_skipped.values()) == ["unusable_name"] * 3
    for name in (*result.files, *result.files_skipped):
        name.encode()  # no name has half a character
    assert result.to_dict()["files_skipped"]


@pytest.mark.catalogue("F07")
def test_the_depth_of_folders_is_bounded(executor: BlockingCodeExecutor) -> None:
    start = time.monotonic()
    result = left_by(
        executor,
        """
        open("mine", "w").write("mine")
        for depth in range(1000):
            os.mkdir("d")
            os.chdir("d")
            open("f", "w").close()
        report(0)
        """,
    )
    assert time.monotonic() - start < 45
    assert result.files["mine"] == b"mine"
    # Init walks 32 folders deep; the host accepts no path that it would not have sent.
    assert max(name.count("/") for name in result.files) <= 32
    assert result.files_skipped["/".join("d" * 33)] == "too_deep"
    assert set(result.files_skipped.values()) <= {"too_deep", "unusable_name"}


@pytest.mark.catalogue("F07")
def test_the_length_of_paths_is_bounded(executor: BlockingCodeExecutor) -> None:
    result = left_by(
        executor,
        """
        for depth in range(30):
            os.mkdir("n" * 255)
            os.chdir("n" * 255)
        open("f", "w").close()
        """,
    )
    assert dict(result.files) == {}
    assert result.files_skipped
    assert max(len(name) for name in result.files_skipped) < 4096


@pytest.mark.catalogue("F07")
@pytest.mark.engine("docker", "podman", "bubblewrap")  # gVisor: docs/engines.md
def test_the_number_of_files_is_bounded(executor: BlockingCodeExecutor) -> None:
    start = time.monotonic()
    result = left_by(
        executor,
        """
        made = 0
        while made < 100_000 and attempt(lambda: open(f"f{made}", "w").close()) == "allowed":
            made += 1
        report(made)
        """,
    )
    assert time.monotonic() - start < 45
    assert 3000 < int(result.stdout) < 4096
    assert len(result.files) + len(result.files_skipped) <= 1001
    assert list(result.files_skipped.values()) == ["too_many"]


@pytest.mark.catalogue("F08")
def test_an_archive_is_returned_as_bytes_and_not_unpacked(
    executor: BlockingCodeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stray = Path("/tmp") / f"codeforge-evil-{os.getpid()}"
    result = left_by(
        executor,
        f"""
        import io, tarfile, zipfile
        with tarfile.open("evil.tar", "w") as archive:
            for name in ("../../../../../..{stray}", "{stray}", "x", "x"):
                member = tarfile.TarInfo(name)
                member.size, member.mode = 4, 0o4755
                archive.addfile(member, io.BytesIO(b"EVIL"))
            link = tarfile.TarInfo("etc")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(link)
        with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../zeros", bytes(32 << 20))
        """,
    )
    assert set(result.files) == {"evil.tar", "bomb.zip"}
    assert len(result.files["bomb.zip"]) < 1 << 20
    with tarfile.open(fileobj=io.BytesIO(result.files["evil.tar"])) as archive:
        assert len(archive.getmembers()) == 5
    assert not stray.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.catalogue("F03", "F08")
def test_the_host_writes_no_file_whatever_the_names(
    executor: BlockingCodeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    left_by(executor, "os.makedirs('out'); open('out/file', 'w').write('x'); open('-o', 'w').write('x')")
    assert list(tmp_path.iterdir()) == []
