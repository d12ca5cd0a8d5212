"""Languages: rows of data, and the table that finds them."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import pytest

from codeforge.errors import InvalidRequest, UnknownLanguage
from codeforge.model.languages import (
    JAVASCRIPT,
    LANGUAGES,
    OPTIONAL_LANGUAGES,
    PYTHON,
    PYTHON_DATA,
    TYPESCRIPT,
    Language,
    LanguageTable,
)

TABLE = LanguageTable()
RUBY = Language(
    name="ruby", aliases=("rb",), image="ruby:3", file="main.rb", command=("ruby",), smoke="puts 'hello'\n"
)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("python", PYTHON), ("py", PYTHON), ("python3", PYTHON), ("Python", PYTHON), (" PYTHON\n", PYTHON),
        ("javascript", JAVASCRIPT), ("js", JAVASCRIPT), ("node", JAVASCRIPT), ("JavaScript", JAVASCRIPT),
        ("typescript", TYPESCRIPT), ("ts", TYPESCRIPT), ("\tTS ", TYPESCRIPT),
    ],
)  # fmt: skip
def test_a_language_is_found_by_name_and_alias_in_any_case(name: str, row: Language) -> None:
    assert TABLE.find(name) is row


def test_names_are_in_the_tables_order_and_without_aliases() -> None:
    assert TABLE.names == ["python", "javascript", "typescript"]
    assert list(TABLE) == list(LANGUAGES)


@pytest.mark.parametrize("name", ["pyton", "Pyhton", "pythn"])
def test_an_unknown_language_names_the_known_ones_and_the_nearest(name: str) -> None:
    with pytest.raises(UnknownLanguage) as caught:
        TABLE.find(name)
    assert str(caught.value) == (
        f"unknown language {name!r}; known: python, javascript, typescript. Did you mean 'python'?"
    )


@pytest.mark.parametrize(
    ("name", "near"), [("javscript", "javascript"), ("typscript", "typescript"), ("nodejs", "javascript")],
)  # fmt: skip
def test_the_suggestion_is_a_name_even_if_an_alias_is_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownLanguage, match=rf"Did you mean '{near}'\?"):
        TABLE.find(name)


@pytest.mark.parametrize("name", ["", "cobol", "日本", "\0", "c#"])
def test_a_name_that_is_near_no_other_gets_no_suggestion(name: str) -> None:
    with pytest.raises(UnknownLanguage, match=r"known: python, javascript, typescript\.$"):
        TABLE.find(name)


@pytest.mark.parametrize("name", [None, 3, b"python", ["python"], PYTHON])
def test_a_language_that_is_not_a_string_is_refused(name: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^language must be a string, not "):
        TABLE.find(name)


def test_a_name_of_megabytes_is_cut_before_search_and_message(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []

    def get_close_matches(word: str, *_: object, **__: object) -> list[str]:
        searched.append(len(word))
        return []

    monkeypatch.setattr(difflib, "get_close_matches", get_close_matches)
    with pytest.raises(UnknownLanguage) as caught:
        TABLE.find("ab" * 500_000)
    assert len(str(caught.value)) < 1000
    assert all(size < 1000 for size in searched)


def test_a_language_is_added_by_adding_a_row() -> None:
    table = LanguageTable([*LANGUAGES, RUBY])
    assert table.names == ["python", "javascript", "typescript", "ruby"]
    assert table.find("RB") is RUBY
    assert table.find("py") is PYTHON


def test_a_row_of_the_same_name_replaces_ours() -> None:
    mine = dataclasses.replace(PYTHON, image="my-python:1")
    table = LanguageTable([*LANGUAGES, mine])
    assert table.names == ["python", "javascript", "typescript"]
    assert table.find("py") is mine
    assert table.find("python") is mine


def test_a_row_with_a_capital_letter_is_found_like_any_other() -> None:
    ruby = dataclasses.replace(RUBY, name="Ruby", aliases=("RB",))
    table = LanguageTable([ruby])
    assert table.find("Ruby") is ruby
    assert table.find("ruby") is ruby
    assert table.find("rb") is ruby


@pytest.mark.parametrize(
    ("row", "suffix"), [(PYTHON, ".py"), (JAVASCRIPT, ".js"), (TYPESCRIPT, ".ts"), (RUBY, ".rb")],
)  # fmt: skip
def test_a_suffix_comes_with_its_dot(row: Language, suffix: str) -> None:
    assert row.suffix == suffix


def test_a_file_without_a_suffix_has_an_empty_one() -> None:
    assert dataclasses.replace(RUBY, file="Makefile").suffix == ""


ALL = (*LANGUAGES, *OPTIONAL_LANGUAGES)


def test_an_optional_language_is_found_only_by_name() -> None:
    assert TABLE.find("python-data") is TABLE.find("Data") is PYTHON_DATA
    assert PYTHON_DATA not in [*TABLE, *TABLE.pick(None)]
    assert TABLE.pick(["python-data"]) == [PYTHON_DATA]
    assert TABLE.names == ["python", "javascript", "typescript"]


def test_a_table_without_the_documented_languages_has_no_optional_ones() -> None:
    with pytest.raises(UnknownLanguage):
        LanguageTable([PYTHON]).find("python-data")


def test_a_callers_name_takes_precedence_over_an_optional_languages() -> None:
    table = LanguageTable([*LANGUAGES, dataclasses.replace(RUBY, aliases=("data",))])
    assert table.find("data").name == "ruby"
    assert table.find("python-data") is PYTHON_DATA


def test_an_optional_language_can_have_another_image() -> None:
    table = TABLE.with_images({"python-data": "mine:1"})
    assert table.find("data").image == "mine:1"
    assert table.names == TABLE.names


def test_python_data_differs_from_python_only_in_packages() -> None:
    same = ("file", "command", "suffix", "worker", "forks", "branches", "session", "tests", "smoke")
    assert [getattr(PYTHON_DATA, name) for name in same] == [getattr(PYTHON, name) for name in same]
    assert PYTHON_DATA.preload[: len(PYTHON.preload)] == PYTHON.preload


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
class TestEveryRow:
    """What the rest of the package relies on in every row."""

    def test_its_program_is_a_plain_name(self, row: Language) -> None:
        assert row.file == "main" + row.suffix

    def test_its_image_is_ours_and_has_a_tag(self, row: Language) -> None:
        assert row.image == f"ai-codeforge-{row.name}:latest"
        assert row.dockerfile == f"docker/{row.name}.Dockerfile"

    def test_its_smoke_program_prints_hello(self, row: Language) -> None:
        assert "'hello'" in row.smoke
        assert row.smoke.endswith("\n")

    def test_its_names_are_unique(self, row: Language) -> None:
        others = {name for other in ALL if other is not row for name in (other.name, *other.aliases)}
        assert not others & {row.name, *row.aliases}
        assert all(name == name.strip().lower() for name in (row.name, *row.aliases))

    def test_it_has_a_worker_and_names_the_variables_that_need_a_fresh_interpreter(
        self, row: Language
    ) -> None:
        assert row.worker
        assert {"LD_", "LC_", "LANG"} < set(row.boot_env)

    def test_its_interpreter_starts_where_no_run_has_written(self, row: Language) -> None:
        assert row.start_dir in (
            "/code",
            "/opt/codeforge",
        )  # /code has the program only after the interpreter started

    def test_its_scaffold_has_plain_names_beside_the_program(self, row: Language) -> None:
        assert all("/" not in name and name != row.file for name in row.scaffold)

    def test_its_processes_and_files_are_few(self, row: Language) -> None:
        assert 0 < row.pids <= 128
        assert 0 < row.tmp_inodes <= 16384

    def test_its_test_report_is_a_hidden_file_that_its_command_names(self, row: Language) -> None:
        assert row.tests is not None
        assert row.tests.report.startswith(".")
        assert row.tests.command[-1].endswith(f"=/code/{row.tests.report}")
        assert row.tests.test_file.format(module="x").endswith(row.suffix)


def test_only_typescript_can_skip_a_check() -> None:
    assert {row.name: row.unchecked_flags for row in LANGUAGES} == {
        "python": (),
        "javascript": (),
        "typescript": ("--transpile-only",),
    }
