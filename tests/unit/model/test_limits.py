"""Limits: the notation for memory, and the ranges of all limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge.errors import InvalidRequest
from codeforge.model.limits import (
    MAX_MEMORY_BYTES,
    MAX_TIMEOUT_S,
    MIN_CPU_QUOTA_US,
    MIN_MEMORY_BYTES,
    GiB,
    Limits,
    MiB,
    format_memory,
    parse_memory,
    parse_size,
)

HUGE = 10**5000  # more digits than Python writes out


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512m", 512 * MiB),
        ("512M", 512 * MiB),
        ("64MB", 64 * MiB),
        ("64mb", 64 * MiB),
        ("64MiB", 64 * MiB),
        ("1g", GiB),
        ("1G", GiB),
        ("1.5GiB", 3 * GiB // 2),
        ("1.5g", 3 * GiB // 2),
        ("16384k", 16 * MiB),
        ("16384KiB", 16 * MiB),
        ("1t", 1024 * GiB),
        ("16777216", 16 * MiB),
        ("16777216b", 16 * MiB),
        ("16777216B", 16 * MiB),
        (16 * MiB, 16 * MiB),
        (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES),
        (" 512m ", 512 * MiB),
        ("512 m", 512 * MiB),
        ("\t1.5 GiB\n", 3 * GiB // 2),
        ("0000512m", 512 * MiB),
        ("16.5m", 33 * MiB // 2),
    ],
)
def test_memory_is_read_in_dockers_notation(text: str | int, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text",
    ["5x", "512mm", "512mib ib", "512i", "512p", "16777216bb", "16777216ib", "16777216bib", "m", "512 m b"],
)
def test_memory_needs_a_unit_docker_knows(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"memory_limit must look like '512m' or '1g', not "):
        parse_memory(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "abc", "-1", "-512m", "+512m", "1e3", "1e9", "0x1000000", "1_000m", "1,5g", "1.g", ".5g",
     "1.2.3g",
     "512m\0", "nan", "inf", "\u0665\u0661\u0662m", "\uff15\uff11\uff12m", "\u00bdg"],
)  # fmt: skip
def test_memory_that_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"memory_limit must look like"):
        parse_memory(text)


@pytest.mark.parametrize("value", [True, False, None, 512.0, 1e9, math.nan, b"512m", ["512m"], {}, object()])
def test_memory_that_is_neither_text_nor_a_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"memory_limit must look like"):
        parse_memory(value)


@pytest.mark.parametrize(
    "value",
    [0, -1, "0", "0m", "1", "5", "15m", "15.9m", MIN_MEMORY_BYTES - 1, "1025g", "1.1t", "2t",
     MAX_MEMORY_BYTES + 1],
)  # fmt: skip
def test_memory_out_of_range_is_refused_with_the_range(value: str | int) -> None:
    with pytest.raises(InvalidRequest, match=r"memory_limit must (be between 16m and 1024g|look like)"):
        parse_memory(value)


@pytest.mark.parametrize(
    "value",
    ["9" * 400, "9" * 400 + "g", "9" * 5000, "0." + "9" * 5000 + "m", HUGE, -HUGE],
    ids=["400 digits", "400 digits of g", "5000 digits", "5000 decimals", "int", "negative int"],
)  # fmt: skip
def test_memory_beyond_all_numbers_is_refused_like_any_other(value: str | int) -> None:
    with pytest.raises(InvalidRequest, match="memory_limit"):
        parse_memory(value)


@given(st.text() | st.integers() | st.from_regex(r"\A\s*[0-9.]{1,9} ?[bkmgtiBKMGTI]{0,4}\s*\Z"))
def test_any_text_is_memory_in_range_or_refused(text: str | int) -> None:
    try:
        size = parse_memory(text)
    except InvalidRequest:
        return
    assert MIN_MEMORY_BYTES <= size <= MAX_MEMORY_BYTES


@given(st.integers(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES))
def test_formatted_memory_reads_back_to_the_byte(size: int) -> None:
    assert parse_memory(format_memory(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(512 * MiB, "512m"), (GiB, "1g"), (3 * GiB // 2, "1536m"), (2048 * GiB, "2048g"), (16 * MiB + 1024,
     "16385k"),
     (16 * MiB + 1, "16777217"), (4 * MiB, "4m")],
)  # fmt: skip
def test_memory_is_formatted_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    assert format_memory(size) == text


def test_another_size_is_read_in_the_same_notation_and_refused_by_its_own_name() -> None:
    assert parse_size("0", "max_output", 0, GiB) == 0
    assert parse_size("1.5k", "max_output", 0, GiB) == 1536
    with pytest.raises(InvalidRequest, match=r"max_output must be between 1k and 1g, not '2g'"):
        parse_size("2g", "max_output", 1024, GiB)
    with pytest.raises(InvalidRequest, match=r"max_output must look like '512m' or '1g', not 'x'"):
        parse_size("x", "max_output", 0, GiB)


def test_the_defaults_are_the_documented_ones() -> None:
    assert Limits() == Limits(
        timeout_s=30.0,
        memory_bytes=512 * MiB,
        cpu_quota_us=50_000,
        network=False,
        output_bytes=MiB,
        files_bytes=16 * MiB,
    )


@pytest.mark.parametrize("timeout", [0.001, 0.5, 1, 30, 30.0, MAX_TIMEOUT_S, int(MAX_TIMEOUT_S)])
def test_a_timeout_is_a_number_of_seconds(timeout: float) -> None:
    assert Limits(timeout_s=timeout).timeout_s == timeout


@pytest.mark.parametrize(
    "timeout",
    [0, 0.0, -0.0, -1, -0.5, 0.0009, math.nan, math.inf, -math.inf, MAX_TIMEOUT_S + 1, 1e308, "30", b"30",
     True, False,
     None, [30], 30j],
)  # fmt: skip
def test_a_timeout_no_clock_can_keep_is_refused(timeout: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=r"timeout must be a number of seconds between 0\.001 and 86400, not "
    ):
        Limits(timeout_s=timeout)


@pytest.mark.parametrize("quota", [MIN_CPU_QUOTA_US, 50_000, 100_000, 1024 * 100_000])
def test_a_cpu_quota_is_microseconds_in_each_period(quota: int) -> None:
    assert Limits(cpu_quota_us=quota).cpu_quota_us == quota


@pytest.mark.parametrize(
    "quota", [0, -1, MIN_CPU_QUOTA_US - 1, 1024 * 100_000 + 1, 50_000.0, "50000", True, None],
)  # fmt: skip
def test_a_cpu_quota_the_kernel_refuses_is_refused(quota: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=r"cpu_quota must be a whole number between 1000 and 102400000, not "
    ):
        Limits(cpu_quota_us=quota)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"memory_bytes": MIN_MEMORY_BYTES - 1}, "memory_bytes"),
        ({"memory_bytes": MAX_MEMORY_BYTES + 1}, "memory_bytes"),
        ({"memory_bytes": float(GiB)}, "memory_bytes"),
        ({"output_bytes": -1}, "max_output_bytes"),
        ({"output_bytes": GiB + 1}, "max_output_bytes"),
        ({"output_bytes": True}, "max_output_bytes"),
        ({"files_bytes": -1}, "max_files_bytes"),
        ({"files_bytes": GiB + 1}, "max_files_bytes"),
        ({"files_bytes": None}, "max_files_bytes"),
        ({"network": "no"}, "network_enabled"),
        ({"network": 1}, "network_enabled"),
        ({"network": None}, "network_enabled"),
    ],
)
def test_the_error_for_a_limit_out_of_range_names_its_argument(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{name} must be "):
        Limits(**wrong)


@pytest.mark.parametrize(
    "field", ["timeout_s", "cpu_quota_us", "memory_bytes", "output_bytes", "files_bytes"],
)  # fmt: skip
@pytest.mark.parametrize("value", [HUGE, -HUGE], ids=["huge", "-huge"])
def test_a_number_too_long_to_be_written_out_is_still_the_callers_mistake(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="must be"):
        Limits(**{field: value})


@given(st.integers(0, GiB))
def test_a_flood_is_far_more_than_what_is_kept(output_bytes: int) -> None:
    assert Limits(output_bytes=output_bytes).flood_bytes >= max(64 * output_bytes, 64 * MiB)


def test_output_and_files_may_be_limited_to_nothing() -> None:
    assert Limits(output_bytes=0, files_bytes=0).flood_bytes == 64 * MiB
