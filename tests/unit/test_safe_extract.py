"""Files whose names come from a program are written below one directory, whatever is or gets there."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from codeforge.errors import InvalidRequest
from codeforge.safe_extract import Extractor

HOSTILE = (
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../outside",
    "a/../../outside",
    "a/..",
    "./a",
    "a/",
    "a//b",
    "//a",
    "a\0b",
    "a\nb",
    "\x1b]0;evil\x07",
    "x" * 256,
    "/".join("abcdefghijklmnopq"),
    "\ud800",
)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """The directory to write to, beside another one that must not change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("as it was")
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


@pytest.fixture(autouse=True)
def nothing_outside_changes(tmp_path: Path) -> Iterator[None]:
    yield
    outside = tmp_path / "outside"
    if outside.is_dir():
        assert [path.name for path in outside.iterdir()] == ["precious"]
        assert (outside / "precious").read_text() == "as it was"


def write(directory: Path, name: str, content: bytes = b"new") -> None:
    with Extractor(directory) as extractor, extractor.create(name) as file:
        file.write(content)


def test_missing_directories_are_made(tmp_path: Path) -> None:
    write(tmp_path / "results/today", "a/b/c.txt")
    assert (tmp_path / "results/today/a/b/c.txt").read_bytes() == b"new"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_not_a_plain_relative_path_is_refused(inside: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="files: "):
        write(inside, name)
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize("name", ["a\\..\\b", "C:evil", "~", "-rf", "con", "\u202etxt.exe", "a b", "..."])
def test_an_odd_but_plain_name_is_accepted(inside: Path, name: str) -> None:
    write(inside, name)
    assert [path.name for path in inside.iterdir()] == [name]


@pytest.mark.parametrize("target", ["../outside", "/etc", ".", "nowhere"])
def test_a_link_in_place_of_a_directory_is_not_followed(inside: Path, target: str) -> None:
    (inside / "a").symlink_to(target)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        write(inside, "a/precious")
    assert str((inside / "a").readlink()) == target
    assert [path.name for path in inside.iterdir()] == ["a"]


@pytest.mark.parametrize("target", ["../outside/precious", "../outside/made", "../outside"])
def test_a_link_in_place_of_the_file_is_replaced(inside: Path, target: str) -> None:
    (inside / "a").symlink_to(target)
    write(inside, "a")
    assert not (inside / "a").is_symlink()
    assert (inside / "a").read_bytes() == b"new"


def test_a_hard_link_to_a_file_elsewhere_is_replaced(inside: Path) -> None:
    os.link(inside.parent / "outside/precious", inside / "a")
    write(inside, "a")
    assert (inside / "a").read_bytes() == b"new"


def test_a_pipe_in_place_of_the_file_is_replaced_without_blocking(inside: Path) -> None:
    os.mkfifo(inside / "a")
    write(inside, "a")
    assert stat.S_ISREG((inside / "a").lstat().st_mode)


def test_a_directory_in_place_of_the_file_is_an_error(inside: Path) -> None:
    (inside / "a/b").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write(inside, "a")
    assert [path.name for path in inside.iterdir()] == ["a"]


def test_a_file_in_place_of_a_directory_is_an_error(inside: Path) -> None:
    write(inside, "a", b"old")
    with pytest.raises(NotADirectoryError):
        write(inside, "a/b")
    assert (inside / "a").read_bytes() == b"old"


def test_a_directory_that_is_replaced_by_a_link_meanwhile_is_not_left(inside: Path) -> None:
    with Extractor(inside) as extractor, extractor.create("a/precious") as file:
        (inside / "a").rename(inside / "was")
        (inside / "a").symlink_to("../outside")
        file.write(b"new")
    assert (inside / "was/precious").read_bytes() == b"new"


def test_a_link_that_gets_the_name_meanwhile_is_replaced(inside: Path) -> None:
    with Extractor(inside) as extractor, extractor.create("a") as file:
        (inside / "a").symlink_to("../outside/precious")
        file.write(b"new")
    assert (inside / "a").read_bytes() == b"new"
    assert not (inside / "a").is_symlink()


def test_the_root_may_be_renamed_and_replaced_by_a_link_meanwhile(inside: Path) -> None:
    with Extractor(inside) as extractor:
        inside.rename(inside.parent / "was")
        inside.symlink_to("outside")
        with extractor.create("a") as file:
            file.write(b"new")
    assert (inside.parent / "was/a").read_bytes() == b"new"


def test_the_callers_path_may_contain_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "a")
    assert (tmp_path / "real/a").read_bytes() == b"new"


def test_a_file_gets_its_name_once_it_is_complete(inside: Path) -> None:
    write(inside, "a", b"old")
    with Extractor(inside) as extractor, extractor.create("a") as file:
        file.write(b"new")
        file.flush()
        assert (inside / "a").read_bytes() == b"old"
    assert (inside / "a").read_bytes() == b"new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(inside: Path) -> None:
    def break_off() -> None:
        with Extractor(inside) as extractor, extractor.create("a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    write(inside, "a", b"old")
    with pytest.raises(ZeroDivisionError):
        break_off()
    assert [path.name for path in inside.iterdir()] == ["a"]
    assert (inside / "a").read_bytes() == b"old"


def test_special_mode_bits_are_dropped(inside: Path) -> None:
    with Extractor(inside) as extractor, extractor.create("a", 0o6755):
        pass
    assert (inside / "a").stat().st_mode & 0o7000 == 0


def test_no_descriptor_leaks(inside: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    (inside / "link").symlink_to("../outside")
    write(inside, "a/b/c")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        write(inside, "a/b/c/d/e")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        write(inside, "link/e")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


PARTS = st.sampled_from(["a", "b", "..", ".", "", "link", "up", "file", "\u202e", "a\nb"])


@given(st.lists(PARTS, min_size=1, max_size=6).map("/".join))
def test_any_name_is_written_inside_or_refused(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "outside").mkdir()
        (root / "inside").mkdir()
        (root / "inside/link").symlink_to("../outside")
        (root / "inside/up").symlink_to("..")
        (root / "inside/file").write_text("old")
        try:
            write(root / "inside", name)
        except (InvalidRequest, OSError):
            pass
        else:
            assert (root / "inside" / name).read_bytes() == b"new"
            assert (root / "inside" / name).resolve().is_relative_to((root / "inside").resolve())
        assert list((root / "outside").iterdir()) == []
        assert {path.name for path in root.iterdir()} == {"inside", "outside"}
        names = [path.name for path in root.rglob("*")]
        assert not [left for left in names if re.match(r"\.codeforge-", left)]
