"""Bounded concurrency: order, width, laziness, and cancellation of the others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, strategies as st

from codeforge.fan_out import fan_out
from virtual_time import run


class Work:
    """Sleeps as long as its item says, and counts how many sleep at once."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.cancelled: list[float] = []
        self.going = self.most = 0

    async def __call__(self, item: float) -> float:
        self.begun.append(item)
        self.going += 1
        self.most = max(self.most, self.going)
        try:
            await asyncio.sleep(abs(item))
            if item < 0:
                raise LookupError(item)
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        finally:
            self.going -= 1
        return item


async def take_all(results: AsyncIterator[tuple[int, float]], into: list[float]) -> None:
    async for _, item in results:
        into.append(item)


@given(st.lists(st.floats(0, 100)), st.integers(1, 12), st.booleans())
def test_every_item_is_yielded_once_with_its_index(items: list[float], width: int, ordered: bool) -> None:
    async def scenario() -> list[tuple[int, float]]:
        return [found async for found in fan_out(work, items, width, ordered=ordered)]

    work = Work()
    found = run(scenario())
    assert (found if ordered else sorted(found)) == list(enumerate(items))
    assert work.most == min(width, len(items))


def test_ordered_yields_in_the_order_of_the_items() -> None:
    async def scenario() -> list[float]:
        return [item async for _, item in fan_out(Work(), [3, 1, 2], 3, ordered=True)]

    assert run(scenario()) == [3, 1, 2]


def test_unordered_yields_in_the_order_in_which_items_end() -> None:
    async def scenario() -> list[tuple[int, float]]:
        return [found async for found in fan_out(Work(), [3, 1, 2], 3, ordered=False)]

    assert run(scenario()) == [(1, 1), (2, 2), (0, 3)]


@pytest.mark.parametrize("ordered", [True, False])
def test_the_width_is_used_as_long_as_there_are_items(ordered: bool) -> None:
    async def scenario() -> float:
        async for _ in fan_out(work, [1.0] * 12, 4, ordered=ordered):
            pass
        return asyncio.get_running_loop().time()

    work = Work()
    assert run(scenario()) == 3.0
    assert work.most == 4


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_iterable_is_taken_no_further_than_the_width(ordered: bool) -> None:
    taken: list[int] = []

    def endless() -> Iterator[float]:
        for number in itertools.count():
            taken.append(number)
            yield 1.0

    async def scenario() -> None:
        async with contextlib.aclosing(fan_out(Work(), endless(), 3, ordered=ordered)) as results:
            for yielded in range(5):
                await anext(results)
                assert len(taken) <= yielded + 3

    run(scenario())


def test_no_item_is_taken_before_the_first_result_is_requested() -> None:
    async def scenario() -> None:
        results = fan_out(work, iter([1.0]), 1, ordered=True)
        await asyncio.sleep(5)
        assert work.begun == []
        await results.aclose()

    work = Work()
    run(scenario())


def test_an_exception_reaches_the_caller_and_cancels_the_others() -> None:
    async def scenario() -> list[float]:
        found: list[float] = []
        with pytest.raises(LookupError):
            await take_all(fan_out(work, [1.0, -2.0, 50.0, 60.0], 4, ordered=False), found)
        assert work.going == 0
        return found

    work = Work()
    assert run(scenario()) == [1.0]
    assert work.cancelled == [50.0, 60.0]


def test_ordered_raises_an_exception_in_its_turn() -> None:
    async def scenario() -> list[float]:
        found: list[float] = []
        with pytest.raises(LookupError):
            await take_all(fan_out(Work(), [5.0, -1.0, 50.0], 3, ordered=True), found)
        return found

    assert run(scenario()) == [5.0]


def test_results_that_are_ready_when_another_item_raises_are_not_lost() -> None:
    async def scenario() -> list[float]:
        found: list[float] = []
        with pytest.raises(LookupError):
            await take_all(fan_out(Work(), [-1.0, 1.0, -1.0, 1.0], 4, ordered=False), found)
        return found

    assert run(scenario()) == [1.0, 1.0]


@pytest.mark.parametrize("ordered", [True, False])
def test_leaving_the_loop_cancels_the_rest(ordered: bool) -> None:
    async def scenario() -> None:
        async with contextlib.aclosing(fan_out(work, [1.0, 50.0, 60.0], 3, ordered=ordered)) as results:
            async for _ in results:
                break
        assert work.going == 0

    work = Work()
    run(scenario())
    assert work.cancelled == [50.0, 60.0]


@pytest.mark.parametrize("ordered", [True, False])
def test_cancelling_the_caller_cancels_the_rest(ordered: bool) -> None:
    async def consume() -> None:
        async for _ in fan_out(work, [50.0, 60.0], 2, ordered=ordered):
            pass

    async def scenario() -> None:
        consuming = asyncio.create_task(consume())
        await asyncio.sleep(1)
        consuming.cancel()
        await asyncio.wait({consuming})
        assert consuming.cancelled()
        assert work.going == 0

    work = Work()
    run(scenario())
    assert work.cancelled == [50.0, 60.0]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_exception_of_the_iterable_reaches_the_caller_and_cancels_the_rest(ordered: bool) -> None:
    def broken() -> Iterator[float]:
        yield 1.0
        yield 50.0
        raise ValueError("no more")

    async def scenario() -> list[float]:
        found: list[float] = []
        with pytest.raises(ValueError, match="no more"):
            await take_all(fan_out(work, broken(), 2, ordered=ordered), found)
        assert work.going == 0
        return found

    work = Work()
    assert run(scenario()) == [1.0]
    assert work.cancelled == [50.0]
