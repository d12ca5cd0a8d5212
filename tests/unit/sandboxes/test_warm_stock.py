"""The stock of one kind: its target follows the demand, within its bounds."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import cast

import pytest
from hypothesis import given, strategies as st

from codeforge.errors import EngineError
from codeforge.model.languages import PYTHON
from codeforge.model.limits import Limits
from codeforge.sandboxes.kind import SandboxKind
from codeforge.sandboxes.sandbox import Sandbox
from codeforge.sandboxes.warm_stock import BACKOFF_S, IDLE_S, Shelf, Waiter

NAMED = 2
ROW = dataclasses.replace(PYTHON, preload=("first", "second"), preload_named=("third", "fourth"))
KIND = SandboxKind(language=ROW, limits=Limits().of_sandbox(ROW))
MOST = 8


class Ready:
    """The part of a sandbox that the stock uses; the last two of its four steps are named steps."""

    def __init__(self, steps_left: int = 0, *, stepping: bool = False) -> None:
        self.steps_left = steps_left
        self.named_left = min(steps_left, NAMED)
        self.stepping = stepping


class Listening:
    """The part of the task that watches a sandbox that the stock uses."""

    def __init__(self) -> None:
        self.stopped = False

    def cancel(self) -> None:
        self.stopped = True


def shelf(*ready: Ready, target: int = 0, floor: int = 0, kind: SandboxKind = KIND) -> Shelf:
    made = Shelf(kind, 0.0, target=target, floor=floor)
    put(made, *ready)
    return made


def put(into: Shelf, *ready: Ready) -> None:
    for sandbox in ready:
        into.ready[cast(Sandbox, sandbox)] = cast("asyncio.Task[None]", Listening())


def take(out_of: Shelf) -> None:
    out_of.remove(next(iter(out_of.ready)))


def test_each_caller_that_finds_none_raises_the_target_by_one_up_to_the_bound() -> None:
    empty = shelf()
    seen = []
    for _ in range(MOST + 2):
        empty.ask(1.0, MOST)
        seen.append(empty.target)
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]


def test_a_caller_that_finds_one_does_not_raise_the_target() -> None:
    stocked = shelf(Ready(), target=1)
    stocked.ask(1.0, MOST)
    assert stocked.target == 1


def test_a_kind_that_is_asked_for_again_is_stocked_again() -> None:
    given_up = shelf(Ready(), target=0)
    given_up.ask(1.0, MOST)
    assert given_up.target == 1


def test_a_stock_of_zero_has_a_target_of_zero() -> None:
    empty = shelf()
    empty.ask(1.0, 0)
    assert (empty.target, empty.missing) == (0, 0)


def test_a_batch_has_a_target_of_zero() -> None:
    batch = shelf(kind=SandboxKind(language=PYTHON, limits=Limits().of_sandbox(PYTHON), max_runs=5, batch=1))
    batch.ask(1.0, MOST)
    assert (batch.stocked, batch.target) == (False, 0)


def test_missing_counts_launching_sandboxes_as_there() -> None:
    some = shelf(Ready(), target=5)
    some.launching = 3
    assert some.missing == 1


def test_half_of_what_was_not_needed_since_the_last_time_is_discarded() -> None:
    full = shelf(*(Ready() for _ in range(8)), target=8)
    full.used_s = 100.0
    full.tend(100.0)
    assert full.target == 8  # the first time: nothing is known of the time before
    take(full)
    take(full)
    put(full, Ready(), Ready())
    full.tend(110.0)
    assert full.target == 5  # six were never needed


def test_a_stock_that_was_empty_once_keeps_its_target() -> None:
    full = shelf(Ready(), Ready(), target=2)
    full.tend(1.0)
    take(full)
    take(full)
    put(full, Ready(), Ready())
    full.tend(2.0)
    assert full.target == 2


def test_the_last_one_stays_until_the_kind_was_unused_for_long() -> None:
    one = shelf(Ready(), target=1)
    one.tend(1.0)
    for now in (2.0, 3.0, IDLE_S):
        one.tend(now)
        assert one.target == 1
    one.tend(IDLE_S + 1)
    assert one.target == 0


@given(st.lists(st.tuples(st.sampled_from(["ask", "tend", "take", "put", "wait"]), st.floats(0, 400))))
def test_the_target_stays_between_the_floor_and_the_bound(happens: list[tuple[str, float]]) -> None:
    kept = shelf(target=2, floor=2)
    now = 0.0
    for what, seconds in happens:
        now += seconds
        if what == "ask":
            kept.ask(now, MOST)
        elif what == "tend":
            kept.tend(now)
        elif what == "put":
            put(kept, Ready())
        elif what == "take" and kept.ready:
            take(kept)
        assert 2 <= kept.target <= MOST


def test_a_run_that_names_a_step_gets_the_one_that_has_preloaded_most() -> None:
    deep, plain, cold, busy = Ready(0), Ready(NAMED), Ready(4), Ready(0, stepping=True)
    assert shelf(busy, cold, plain, deep).best(named=True) is cast(Sandbox, deep)
    assert shelf(busy, cold, plain).best(named=True) is cast(Sandbox, plain)
    assert shelf(busy, cold).best(named=True) is cast(Sandbox, cold)


def test_a_run_that_names_no_step_leaves_that_one_to_others() -> None:
    deep, plain, busy = Ready(0), Ready(NAMED), Ready(NAMED, stepping=True)
    assert shelf(busy, deep, plain).best() is cast(Sandbox, plain)
    assert shelf(busy, deep).best() is cast(Sandbox, deep)
    assert shelf(busy).best() is cast(Sandbox, busy)


def steps_until_nothing_is_left(stocked: Shelf) -> list[Ready]:
    """Every sandbox as its turn comes, each doing its step at once."""
    turns = []
    while (chosen := stocked.to_preload()) is not None:
        ready = cast(Ready, chosen)
        ready.steps_left -= 1
        ready.named_left = min(ready.steps_left, NAMED)
        turns.append(ready)
    return turns


@pytest.mark.parametrize(("count", "deep"), [(1, 1), (2, 1), (3, 2), (8, 4)])
def test_all_do_the_plain_steps_and_half_of_them_the_named_ones(count: int, deep: int) -> None:
    all_of_them = [Ready(4) for _ in range(count)]
    turns = steps_until_nothing_is_left(shelf(*all_of_them))
    assert sorted(ready.steps_left for ready in all_of_them) == [0] * deep + [NAMED] * (count - deep)
    assert set(turns[: 2 * count]) == set(all_of_them)  # first what is for everybody


def test_a_sandbox_does_one_step_at_a_time() -> None:
    assert shelf(Ready(4, stepping=True), Ready(1, stepping=True)).to_preload() is None


def test_a_shelf_is_warm_when_nothing_is_left_to_preload() -> None:
    assert shelf(Ready(0), Ready(NAMED)).is_warm(2)
    assert not shelf(Ready(0), Ready(NAMED)).is_warm(3)
    assert not shelf(Ready(0), Ready(NAMED, stepping=True)).is_warm(1)
    assert not shelf(Ready(0), Ready(3)).is_warm(1)
    assert not shelf(Ready(NAMED), Ready(NAMED)).is_warm(2)


def test_worst_is_the_one_that_has_preloaded_least() -> None:
    warm, cold = Ready(), Ready(2)
    assert shelf(warm, cold, Ready(1)).worst() is cast(Sandbox, cold)


def test_removing_one_cancels_the_task_that_watches_it() -> None:
    sandbox = Ready()
    stocked = shelf(sandbox)
    listening = cast(Listening, stocked.remove(cast(Sandbox, sandbox)))
    assert listening.stopped
    assert not stocked.ready


def test_pauses_double_from_the_first_to_the_longest() -> None:
    first, longest = BACKOFF_S
    failing, now, pauses = shelf(target=1), 0.0, []
    for _ in range(40):
        failing.failed(EngineError("no"), now)
        pauses.append(failing.retry_s - now)
        now = failing.retry_s
    for number, pause in enumerate(pauses):
        wanted = min(longest, first * 2**number)
        assert 0.75 * wanted <= pause <= 1.25 * wanted
    assert len(set(pauses[-10:])) > 1  # not all executors at once


def test_a_failure_that_is_reported_several_times_pauses_once() -> None:
    failing = shelf(target=1)
    for _ in range(20):
        failing.failed(EngineError("no"), 0.0)
    assert failing.retry_s <= BACKOFF_S[0] * 1.25


def test_a_success_ends_the_pause_and_resets_its_length() -> None:
    failing, now = shelf(target=1), 0.0
    for _ in range(10):
        failing.failed(EngineError("no"), now)
        now = failing.retry_s
    failing.succeeded()
    assert (failing.retry_s, failing.error) == (0.0, None)
    failing.failed(EngineError("no"), now)
    assert failing.retry_s - now <= BACKOFF_S[0] * 1.25


@pytest.mark.parametrize("in_use", ["target", "ready", "launching", "waiting"])
def test_a_shelf_is_unused_when_nothing_is_ready_wanted_or_launching(in_use: str) -> None:
    used = shelf()
    assert used.unused
    if in_use == "target":
        used.target = 1
    elif in_use == "ready":
        put(used, Ready())
    elif in_use == "launching":
        used.launching = 1
    else:
        loop = asyncio.new_event_loop()
        used.waiting[Waiter(used, loop.create_future())] = None
        loop.close()
    assert not used.unused
