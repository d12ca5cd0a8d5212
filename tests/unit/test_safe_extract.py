"""Writing files that a program named: below one directory, whatever lies there or is put there meanwhile."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    """The directory, beside another one that nothing may be written to."""
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


def test_directories_are_made_on_the_way(tmp_path: Path) -> None:
    write(tmp_path / "results/today", "a/b/c.txt")
    assert (tmp_path / "results/today/a/b/c.txt").read_bytes() == b"new"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_plain_relative_path_is_refused(inside: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="files: "):
        write(inside, name)
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize("name", ["a\\..\\b", "C:evil", "~", "-rf", "con", "\u202etxt.exe", "a b", "..."])
def test_a_name_that_only_looks_odd_is_a_name(inside: Path, name: str) -> None:
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


def test_a_second_name_of_a_file_elsewhere_is_replaced(inside: Path) -> None:
    os.link(inside.parent / "outside/precious", inside / "a")
    write(inside, "a")
    assert (inside / "a").read_bytes() == b"new"


def test_a_pipe_in_place_of_the_file_is_replaced_and_keeps_nobody_waiting(inside: Path) -> None:
    os.mkfifo(inside / "a")
    write(inside, "a")
    assert stat.S_ISREG((inside / "a").lstat().st_mode)


def test_a_directory_in_place_of_the_file_stays(inside: Path) -> None:
    (inside / "a/b").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write(inside, "a")
    assert [path.name for path in inside.iterdir()] == ["a"]


def test_a_file_in_place_of_a_directory_stays(inside: Path) -> None:
    write(inside, "a", b"old")
    with pytest.raises(NotADirectoryError):
        write(inside, "a/b")
    assert (inside / "a").read_bytes() == b"old"


def test_a_directory_that_is_swapped_meanwhile_leads_nowhere_else(inside: Path) -> None:
    with Extractor(inside) as extractor, extractor.create("a/precious") as file:
        (inside / "a").rename(inside / "was")
        (inside / "a").symlink_to("../outside")
        file.write(b"new")
    assert (inside / "was/precious").read_bytes() == b"new"


def test_a_link_that_takes_the_files_name_meanwhile_is_replaced(inside: Path) -> None:
    with Extractor(inside) as extractor, extractor.create("a") as file:
        (inside / "a").symlink_to("../outside/precious")
        file.write(b"new")
    assert (inside / "a").read_bytes() == b"new"
    assert not (inside / "a").is_symlink()


def test_the_directory_itself_may_be_renamed_and_its_name_be_a_link(inside: Path) -> None:
    with Extractor(inside) as extractor:
        inside.rename(inside.parent / "was")
        inside.symlink_to("outside")
        with extractor.create("a") as file:
            file.write(b"new")
    assert (inside.parent / "was/a").read_bytes() == b"new"


def test_the_callers_own_path_may_lead_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "a")
    assert (tmp_path / "real/a").read_bytes() == b"new"


def test_a_file_has_its_name_when_it_is_whole_and_not_before(inside: Path) -> None:
    write(inside, "a", b"old")
    with Extractor(inside) as extractor, extractor.create("a") as file:
        file.write(b"new")
        file.flush()
        assert (inside / "a").read_bytes() == b"old"
    assert (inside / "a").read_bytes() == b"new"


def test_what_breaks_off_leaves_the_old_file_and_nothing_else(inside: Path) -> None:
    def break_off() -> None:
        with Extractor(inside) as extractor, extractor.create("a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    write(inside, "a", b"old")
    with pytest.raises(ZeroDivisionError):
        break_off()
    assert [path.name for path in inside.iterdir()] == ["a"]
    assert (inside / "a").read_bytes() == b"old"


def test_a_mode_gives_no_more_than_reading_writing_and_executing(inside: Path) -> None:
    with Extractor(inside) as extractor, extractor.create("a", 0o6755):
        pass
    assert (inside / "a").stat().st_mode & 0o7000 == 0


def test_no_descriptor_is_left_open(inside: Path) -> None:
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
def test_whatever_the_name_it_is_written_inside_or_not_at_all(name: str) -> None:
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
