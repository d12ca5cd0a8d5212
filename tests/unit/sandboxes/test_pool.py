"""The pool: which caller gets which sandbox and when, and that none is left over or used twice.

Everything runs in virtual time on an engine that is played (``scripted_engine.py``): seconds are exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from codeforge.errors import (
    Busy,
    EngineError,
    EngineUnavailable,
    ExecutorClosed,
    HostFailure,
    InvalidRequest,
    SandboxLost,
)
from codeforge.model.languages import JAVASCRIPT, PYTHON, TYPESCRIPT, Language, LanguageTable
from codeforge.model.limits import Limits, MiB
from codeforge.model.request import ExecutionRequest, Run, resolve
from codeforge.model.result import ExecutionResult
from codeforge.sandboxes.kind import PRELOAD_FACTOR, SandboxKind
from codeforge.sandboxes.pool import LAUNCHES_AT_ONCE, REFILL_DELAY_S, REFILLS_AT_ONCE, TEND_S, Pool
from codeforge.sandboxes.sandbox import STEP_TIMEOUT_S, Sandbox
from codeforge.sandboxes.warm_stock import IDLE_S
from scripted_engine import ScriptedChannel, ScriptedEngine
from virtual_time import run, settle

CPUS = 2
AFTER_REFILLS_S = 5.0
"""Time for any number of refills here."""


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeforge.sandboxes.pool.CPUS", CPUS)


PLAIN = dataclasses.replace(JAVASCRIPT, preload=(), preload_named=(), idle_bytes=64 * MiB)
OTHER = dataclasses.replace(TYPESCRIPT, preload=(), preload_named=(), idle_bytes=64 * MiB)
STEPS = dataclasses.replace(
    PYTHON, preload=("first", "second", "third"), preload_named=(), idle_bytes=64 * MiB
)
NAMED = dataclasses.replace(STEPS, preload=("first",), preload_named=("second", "third"))


def kind(language: Language = PLAIN, memory_mib: int = 512) -> SandboxKind:
    return SandboxKind(language=language, limits=Limits(memory_bytes=memory_mib * MiB).of_sandbox(language))


JS, TS, PY = kind(PLAIN), kind(OTHER), kind(STEPS)
"""Only PY has something to preload."""


def of_batch(number: int, max_runs: int = 50, language: Language = PLAIN) -> SandboxKind:
    return SandboxKind(
        language=language, limits=Limits().of_sandbox(language), max_runs=max_runs, batch=number
    )


def program(code: str, language: Language = PLAIN) -> Run:
    request = ExecutionRequest(code=code, language=language.name)
    return resolve(request, LanguageTable([language]), Limits(timeout_s=5000.0))


@contextlib.asynccontextmanager
async def pool_on(engine: ScriptedEngine, **options: Any) -> AsyncIterator[Pool]:
    """A pool that is closed at the end; then no sandbox may be left, and none may have been used twice."""
    pool = Pool(engine, **options)
    try:
        yield pool
    finally:
        await pool.close()
    await settle()
    stats = pool.stats()
    assert engine.there == 0
    assert {name: stats[name] for name in ("sandboxes", "leased", "warm", "launching", "waiting")} == (
        dict.fromkeys(("sandboxes", "leased", "warm", "launching", "waiting"), 0)
    )
    assert engine.most <= options.get("max_sandboxes", 32)
    assert all(channel.gone for channel in engine.sandboxes)


async def execute(sandbox: Sandbox, code: str) -> ExecutionResult:
    *_, result = [piece async for piece in sandbox.run(program(code, sandbox.kind.language))]
    assert isinstance(result, ExecutionResult)
    return result


async def use(pool: Pool, wanted: SandboxKind, code: str = "x") -> str:
    """Lease one and run a program in it; returns the sandbox's id."""
    async with pool.lease(wanted) as sandbox:
        assert sandbox.kind == wanted
        result = await execute(sandbox, code)
    assert result.stdout == code
    return sandbox.id


async def hold(
    pool: Pool, wanted: SandboxKind, seconds: float, served: list[Any] | None = None, name: Any = None
) -> str:
    """Lease one, and run a program at the end of that time."""
    async with pool.lease(wanted) as sandbox:
        if served is not None:
            served.append(name)
        await asyncio.sleep(seconds)
        await execute(sandbox, str(name))
    return sandbox.id


def task(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


def now() -> float:
    return asyncio.get_running_loop().time()


def single_use(engine: ScriptedEngine) -> bool:
    return all(len(channel.programs) <= 1 for channel in engine.sandboxes)


# --- Leasing ------------------------------------------------------------------------------------------


def test_no_sandbox_takes_two_runs() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1, run_s=0.01, destroy_s=0.1)
        async with pool_on(engine) as pool:
            ids = await asyncio.gather(*(use(pool, JS, str(n)) for n in range(40)))
            for n in range(40):
                ids.append(await use(pool, JS, str(n)))
                await asyncio.sleep(0.07)
        assert len(set(ids)) == 80
        assert single_use(engine)
        assert {kept for channel in engine.sandboxes for kept in channel.kept} == {False}
        assert pool.stats()["found_warm"] > 0

    run(scenario())


def test_a_sandbox_that_was_leased_but_not_used_can_be_leased_again() -> None:
    async def scenario() -> None:
        async with pool_on(ScriptedEngine()) as pool:
            async with pool.lease(JS) as unused:
                pass
            assert await use(pool, JS) == unused.id

    run(scenario())


def test_an_unused_sandbox_that_is_not_needed_is_destroyed() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine) as pool:
            async with pool.lease(JS):
                await asyncio.sleep(AFTER_REFILLS_S)
                assert pool.stats()["warm"] == 1
            await asyncio.sleep(1)
            assert pool.stats()["warm"] == pool.stats()["sandboxes"] == 1

    run(scenario())


def test_callers_of_one_kind_are_served_in_order() -> None:
    async def scenario() -> list[int]:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine, max_sandboxes=3) as pool:
            served: list[int] = []
            await asyncio.gather(*(hold(pool, JS, 0.1 + n % 3, served, n) for n in range(20)))
        return served

    assert run(scenario()) == list(range(20))


def test_room_goes_to_the_first_waiter_of_any_kind() -> None:
    async def scenario() -> list[int]:
        async with pool_on(ScriptedEngine(launch_s=0.1, destroy_s=0.1), max_sandboxes=1) as pool:
            served: list[int] = []
            kinds = [JS, TS, JS, PY, PY, TS, JS]
            await asyncio.gather(*(hold(pool, kind, 1.0, served, n) for n, kind in enumerate(kinds)))
        return served

    assert run(scenario()) == list(range(7))


def test_many_callers_on_few_sandboxes_are_served_in_order_before_any_refill() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1, destroy_s=0.05)
        async with pool_on(engine, max_sandboxes=4) as pool:
            served: list[int] = []
            launched_for: list[int] = []

            async def caller(number: int) -> None:
                async with pool.lease(JS) as sandbox:
                    served.append(number)
                    launched_for.append(pool.stats()["launched"])
                    await asyncio.sleep(0.1)
                    await execute(sandbox, "x")

            await asyncio.gather(*(caller(n) for n in range(64)))
            assert served == list(range(64))
            assert launched_for[-1] == 64
            await asyncio.sleep(AFTER_REFILLS_S)
            assert pool.stats()["warm"] == 4
        assert single_use(engine)

    run(scenario())


def test_sandboxes_that_are_being_removed_count() -> None:
    async def scenario() -> float:
        engine = ScriptedEngine(destroy_s=10.0)
        async with pool_on(engine, max_sandboxes=2, max_warm=0) as pool:
            await asyncio.gather(*(use(pool, JS) for _ in range(4)))
            return now()

    assert run(scenario()) == 10.0


def test_concurrent_launches_are_bounded() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with pool_on(engine, max_sandboxes=32) as pool:
            callers = [task(use(pool, JS)) for _ in range(20)]
            await asyncio.sleep(1)
            assert pool.stats()["launching"] == len(engine.launches) == LAUNCHES_AT_ONCE
            engine.gate.set()
            await asyncio.gather(*callers)

    run(scenario())


def test_a_waiter_gets_the_room_of_the_kind_that_was_unused_longest() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1, destroy_s=0.1)
        async with pool_on(engine, max_sandboxes=2) as pool:
            for wanted in (JS, TS):
                await use(pool, wanted)
                await asyncio.sleep(AFTER_REFILLS_S)
            assert {channel.image for channel in engine.idle} == {PLAIN.image, OTHER.image}
            async with pool.lease(PY):
                assert {channel.image for channel in engine.idle} == {OTHER.image, STEPS.image}

    run(scenario())


def test_keeping_more_than_the_stock_may_hold_is_refused() -> None:
    async def scenario() -> None:
        memory = 3 * PY.language.idle_bytes
        async with pool_on(ScriptedEngine(), max_warm=4, warm_memory_bytes=memory) as pool:
            pool.keep(PY, 2)
            with pytest.raises(InvalidRequest, match="max_warm is 4"):
                pool.keep(JS, 3)
            with pytest.raises(InvalidRequest, match="warm_memory"):
                pool.keep(PY, 4)
            pool.keep(PY, 3)

    run(scenario())


def test_no_more_idle_sandboxes_are_discarded_than_there_are_waiters() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(destroy_s=10.0)
        async with pool_on(engine, max_sandboxes=3) as pool:
            pool.keep(TS, 3)
            await pool.until_warm(TS, 3)
            waiting = task(use(pool, JS))
            await settle()
            async with pool.lease(TS):
                await settle()
                assert len([channel for channel in engine.sandboxes if not channel.destroying]) == 2
                await waiting

    run(scenario())


def test_a_caller_beyond_the_line_is_refused_and_nobody_loses_their_place() -> None:
    async def scenario() -> list[str]:
        async with pool_on(ScriptedEngine(launch_s=0.1), max_sandboxes=1, max_waiting=2) as pool:
            served: list[str] = []
            callers = []
            for name in "abc":
                callers.append(task(hold(pool, JS, 1.0, served, name)))
                await asyncio.sleep(0.2)
            for wanted in (JS, TS):
                with pytest.raises(Busy, match="2 requests are waiting"):
                    await use(pool, wanted)
            await callers[0]
            await asyncio.sleep(0.2)
            callers.append(task(hold(pool, TS, 1.0, served, "d")))
            await asyncio.gather(*callers)
        return served

    assert run(scenario()) == ["a", "b", "c", "d"]


def test_with_no_line_a_caller_is_served_if_there_is_room() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1, destroy_s=0.1)
        async with pool_on(engine, max_sandboxes=3, max_waiting=0, max_warm=0) as pool:
            callers = [task(hold(pool, wanted, 1.0)) for wanted in (JS, TS, JS)]
            await asyncio.sleep(0.01)
            with pytest.raises(Busy):
                await use(pool, JS)
            await asyncio.gather(*callers)
            with pytest.raises(Busy):  # they are being removed
                await use(pool, JS)
            await asyncio.sleep(1)
            await use(pool, JS)

    run(scenario())


# --- Failures -----------------------------------------------------------------------------------------


def test_a_launch_error_goes_to_the_first_waiter_alone() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        engine.failures.append(EngineError("this one"))
        async with pool_on(engine) as pool:
            first, *others = await asyncio.gather(*(use(pool, JS) for _ in range(5)), return_exceptions=True)
        assert isinstance(first, EngineError)
        assert len({str(other) for other in others}) == 4
        assert single_use(engine)

    run(scenario())


def test_with_a_broken_engine_every_caller_gets_an_error_immediately() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.broken = EngineUnavailable("gone")
        async with pool_on(engine) as pool:
            for _ in range(5):
                begun = now()
                outcomes = await asyncio.gather(*(use(pool, JS) for _ in range(20)), return_exceptions=True)
                assert {type(outcome) for outcome in outcomes} == {EngineUnavailable}
                assert now() == begun
                await asyncio.sleep(1)

    run(scenario())


def test_a_refill_that_fails_pauses_and_recovers() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            await use(pool, JS)
            engine.broken = EngineUnavailable("gone")
            await asyncio.sleep(200)
            tries = len(engine.launches) - 1
            assert 5 < tries < 25
            engine.broken = None
            await asyncio.sleep(60)
            assert pool.stats()["warm"] == 1

    run(scenario())


def test_serving_a_caller_ends_the_pause() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            await use(pool, JS)
            engine.broken = EngineUnavailable("gone")
            await asyncio.sleep(200)
            engine.broken = None
            await use(pool, JS)
            await asyncio.sleep(1)
            assert pool.stats()["warm"] >= 1

    run(scenario())


def test_the_pause_of_one_kind_does_not_delay_another() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            await use(pool, TS)
            engine.broken = EngineUnavailable("gone")
            await asyncio.sleep(200)  # the pause is half a minute by now
            engine.broken = None
            await use(pool, JS)
            await asyncio.sleep(0.2)
            assert [channel.image for channel in engine.idle] == [PLAIN.image]

    run(scenario())


def test_a_call_of_keep_ends_the_pause() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            await use(pool, JS)
            engine.broken = EngineUnavailable("gone")
            await asyncio.sleep(200)
            engine.broken = None
            begun = now()
            pool.keep(JS, 2)
            await pool.until_warm(JS, 2)
            assert now() < begun + 1

    run(scenario())


def test_a_sandbox_lost_in_stock_is_replaced_and_never_leased() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            await use(pool, JS)
            await asyncio.sleep(AFTER_REFILLS_S)
            (broken,) = engine.idle
            broken.break_off()
            await asyncio.sleep(AFTER_REFILLS_S)
            assert broken.gone
            (new,) = engine.idle
            assert await use(pool, JS) == new.id

    run(scenario())


@pytest.mark.parametrize("steps", range(6))
def test_a_sandbox_lost_while_it_is_being_taken_is_not_leased(steps: int) -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            await use(pool, JS)
            await asyncio.sleep(AFTER_REFILLS_S)
            engine.idle[0].break_off()
            await settle(steps)
            with contextlib.suppress(SandboxLost):  # the loss shows only when it is read
                await use(pool, JS)
                return
            assert steps == 0

    run(scenario())


def test_after_a_restart_of_the_engine_the_whole_stock_is_replaced() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            pool.keep(JS, 4)
            await pool.until_warm(JS, 4)
            before = engine.idle
            engine.stop()
            await asyncio.sleep(10)
            with pytest.raises(EngineUnavailable):
                await use(pool, JS)
            assert pool.stats()["sandboxes"] == 0
            engine.broken = None
            await use(pool, JS)
            await asyncio.sleep(1)
            assert len(engine.idle) == 6  # four to be kept, and two callers found nothing
            assert not set(before) & set(engine.idle)

    run(scenario())


def test_sandboxes_that_are_lost_again_and_again_are_replaced_more_and_more_slowly() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        async with pool_on(engine) as pool:
            await use(pool, JS)
            for _ in range(3000):
                await asyncio.sleep(0.1)
                for channel in engine.idle:
                    channel.break_off()
            assert 5 < len(engine.launches) < 25

    run(scenario())


# --- The stock ----------------------------------------------------------------------------------------


def test_a_caller_a_moment_later_finds_a_sandbox_in_stock() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine) as pool:
            await use(pool, JS)
            await asyncio.sleep(AFTER_REFILLS_S)
            begun = now()
            await use(pool, JS)
            assert now() == begun
            stats = pool.stats()
            assert (stats["found_none"], stats["found_warm"]) == (1, 1)

    run(scenario())


def test_a_refill_starts_a_moment_after_its_cause() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine) as pool:
            await use(pool, JS)
            await asyncio.sleep(AFTER_REFILLS_S)
            for _ in range(3):
                taken = now()
                await use(pool, JS)
                await asyncio.sleep(AFTER_REFILLS_S)
                assert engine.launches[-1] >= taken + REFILL_DELAY_S
                assert pool.stats()["warm"] == 1

    run(scenario())


def test_the_stock_grows_with_callers_that_find_none_up_to_its_bound() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine, max_warm=5) as pool:
            seen: list[int] = []
            for callers in (1, 3, 20):
                await asyncio.gather(*(use(pool, JS) for _ in range(callers)))
                await asyncio.sleep(AFTER_REFILLS_S)
                seen.append(pool.stats()["warm"])
        assert seen == [1, 3, 5]

    run(scenario())


def test_the_bound_holds_for_all_kinds_together() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine, max_warm=5) as pool:
            for wanted in (JS, TS, PY):
                await asyncio.gather(*(use(pool, wanted) for _ in range(4)))
                await asyncio.sleep(AFTER_REFILLS_S)
                assert pool.stats()["warm"] <= 5

    run(scenario())


def test_the_stock_stays_within_its_memory() -> None:
    async def scenario() -> None:
        budget = 3 * PLAIN.idle_bytes + OTHER.idle_bytes // 2
        async with pool_on(ScriptedEngine(launch_s=0.1), warm_memory_bytes=budget) as pool:
            for wanted in (JS, TS):
                await asyncio.gather(*(use(pool, wanted) for _ in range(8)))
                await asyncio.sleep(AFTER_REFILLS_S)
                assert pool.stats()["warm"] == 3

    run(scenario())


def test_callers_that_leave_while_launching_do_not_overfill_the_stock() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine, max_warm=2) as pool:
            callers = [task(use(pool, wanted)) for wanted in (JS, TS, PY) for _ in range(2)]
            await asyncio.sleep(0.05)
            for caller in callers:
                caller.cancel()
            await asyncio.sleep(AFTER_REFILLS_S)
            assert pool.stats()["warm"] == len(engine.idle) == 2

    run(scenario())


def test_concurrent_refills_are_bounded() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine) as pool:
            engine.gate.clear()
            pool.keep(JS, 6)
            await asyncio.sleep(AFTER_REFILLS_S)
            assert pool.stats()["launching"] == REFILLS_AT_ONCE
            engine.gate.set()
            await pool.until_warm(JS, 6)

    run(scenario())


def test_refills_wait_until_the_line_is_empty() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine, max_sandboxes=32) as pool:
            engine.gate.clear()
            waiting = task(use(pool, TS))
            await settle()
            pool.keep(JS, 2)
            await asyncio.sleep(AFTER_REFILLS_S)
            assert len(engine.launches) == 1
            engine.gate.set()
            await waiting
            await pool.until_warm(JS, 2)

    run(scenario())


def test_unused_stock_shrinks_step_by_step_to_nothing() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine) as pool:
            await asyncio.gather(*(use(pool, JS) for _ in range(8)))
            seen: list[int] = []
            while len(seen) < 8:
                await asyncio.sleep(TEND_S)
                seen.append(pool.stats()["warm"])
            assert seen == sorted(seen, reverse=True)
            assert (seen[0], seen[-1]) == (8, 1)
            await asyncio.sleep(IDLE_S)
            assert pool.stats()["sandboxes"] == 0

    run(scenario())


def test_kept_sandboxes_are_kept_forever() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine) as pool:
            pool.keep(JS, 3)
            pool.keep(JS, 2)
            await asyncio.sleep(3 * IDLE_S)
            assert pool.stats()["warm"] == 3
            assert len(engine.launches) == 3

    run(scenario())


def test_a_kind_that_is_no_longer_used_is_forgotten() -> None:
    async def scenario() -> None:
        async with pool_on(ScriptedEngine()) as pool:
            for mib in range(100, 200):
                await use(pool, kind(memory_mib=mib))
            await asyncio.sleep(IDLE_S + 2 * TEND_S)
            assert not pool._stock
            await use(pool, JS)

    run(scenario())


def test_a_pool_without_stock_works_and_keeps_none() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine, max_warm=0, max_sandboxes=4) as pool:
            served: list[int] = []
            await asyncio.gather(*(hold(pool, JS, 0.1, served, n) for n in range(12)))
            await asyncio.sleep(AFTER_REFILLS_S)
            assert served == list(range(12))
            stats = pool.stats()
            assert (stats["launched"], stats["found_warm"], stats["sandboxes"]) == (12, 0, 0)

    run(scenario())


def test_until_warm_raises_the_error_of_a_failed_launch() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.broken = EngineError("no such image")
        async with pool_on(engine) as pool:
            pool.keep(JS, 1)
            with pytest.raises(EngineError, match="no such image"):
                await pool.until_warm(JS, 1)
            engine.broken = None
            pool.keep(JS, 1)
            await pool.until_warm(JS, 1)

    run(scenario())


# --- Preloading ---------------------------------------------------------------------------------------


def stepping(engine: ScriptedEngine) -> list[ScriptedChannel]:
    """The sandboxes that were asked for a step; no worker does it."""
    return [channel for channel in engine.sandboxes if channel.steps_asked and not channel.destroying]


def test_a_sandbox_is_warm_once_it_has_preloaded_everything() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(step_s=1.0)
        async with pool_on(engine) as pool:
            pool.keep(PY, 2)
            await pool.until_warm(PY, 2)
            assert now() >= len(STEPS.preload)
            assert [channel.steps_asked for channel in engine.idle] == [len(STEPS.preload)] * 2

    run(scenario())


def test_workers_preload_step_by_step_and_few_at_a_time() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.steps = False
        async with pool_on(engine) as pool:
            pool.keep(PY, 4)
            await asyncio.sleep(AFTER_REFILLS_S)
            assert [channel.steps_asked for channel in engine.idle] == [1] * CPUS + [0] * (4 - CPUS)
            first = engine.idle[0]
            first.do_step()
            await asyncio.sleep(1)
            assert [channel.steps_asked for channel in engine.idle] == [2, *([1] * (CPUS - 1)), 0, 0]

    run(scenario())


def test_nothing_is_preloaded_while_a_caller_waits_or_all_cpus_are_in_use() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine) as pool:
            callers = [task(hold(pool, JS, 10.0)) for _ in range(CPUS)]
            await asyncio.sleep(1)
            pool.keep(PY, 1)
            await asyncio.sleep(3)
            assert [channel.steps_asked for channel in engine.idle if channel.image == STEPS.image] == [0]
            engine.gate.clear()
            callers.append(task(hold(pool, TS, 1.0)))
            await asyncio.sleep(10)
            assert [channel.steps_asked for channel in engine.idle if channel.image == STEPS.image] == [0]
            engine.gate.set()
            await asyncio.gather(*callers)
            await pool.until_warm(PY, 1)

    run(scenario())


def test_callers_get_the_sandbox_that_has_preloaded_most() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine) as pool:
            pool.keep(PY, 1)
            await pool.until_warm(PY, 1)
            (warm,) = engine.idle
            engine.steps = False
            pool.keep(PY, 3)
            await asyncio.sleep(AFTER_REFILLS_S)
            assert len(engine.idle) == 3
            assert await use(pool, PY) == warm.id

    run(scenario())


def test_a_sandbox_taken_in_the_middle_of_a_step_runs_and_preloading_goes_on() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.steps = False
        async with pool_on(engine, max_sandboxes=2) as pool:
            pool.keep(PY, 2)
            await asyncio.sleep(AFTER_REFILLS_S)
            taken, other = stepping(engine)

            async with pool.lease(PY) as sandbox:
                assert sandbox.id == taken.id
                assert sandbox.stepping
                engine.answers = False
                running = task(execute(sandbox, "x"))
                await asyncio.sleep(1)
                other.do_step()  # while the first still does its own
                await asyncio.sleep(1)
                assert other.steps_asked == 2
                engine.answers = True
                taken.do_step()
                await asyncio.sleep(1)
                taken._finish(0, 0, "Z")
                assert (await running).stdout == "x"

    run(scenario())


def test_a_sandbox_lost_in_the_middle_of_a_step_does_not_delay_the_others() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.01)
        engine.steps = False
        async with pool_on(engine) as pool:
            pool.keep(PY, CPUS)
            await asyncio.sleep(AFTER_REFILLS_S)
            for channel in stepping(engine):
                channel.break_off()
            engine.steps = True
            await asyncio.sleep(AFTER_REFILLS_S)
            pool.keep(PY, CPUS)
            await pool.until_warm(PY, CPUS)
            assert now() < STEP_TIMEOUT_S

    run(scenario())


def test_a_worker_that_never_does_its_step_is_replaced() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.steps = False
        async with pool_on(engine) as pool:
            pool.keep(PY, 1)
            await asyncio.sleep(AFTER_REFILLS_S)
            (stuck,) = engine.idle
            engine.steps = True
            with pytest.raises(SandboxLost):
                await pool.until_warm(PY, 1)
            assert now() >= STEP_TIMEOUT_S
            pool.keep(PY, 1)
            await pool.until_warm(PY, 1)
            assert stuck.gone

    run(scenario())


def test_a_long_run_does_not_delay_preloading() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(run_s=1000.0)
        engine.steps = False
        async with pool_on(engine, max_warm=2, max_sandboxes=4) as pool:
            pool.keep(PY, 2)
            await asyncio.sleep(AFTER_REFILLS_S)
            long = task(use(pool, PY))  # its step is never done; a run does not need the worker
            await asyncio.sleep(AFTER_REFILLS_S)
            engine.steps = True
            for channel in stepping(engine):
                if not channel.programs:
                    channel.do_step()
            await pool.until_warm(PY, 2)
            assert now() < STEP_TIMEOUT_S
            await asyncio.sleep(2 * STEP_TIMEOUT_S)
            assert not long.done()
            long.cancel()

    run(scenario())


def test_a_run_that_names_a_step_gets_a_sandbox_that_has_done_it() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        wanted = kind(NAMED)
        async with pool_on(engine) as pool:
            pool.keep(wanted, 4)
            await pool.until_warm(wanted, 4)
            assert sorted(channel.steps_asked for channel in engine.idle) == [1, 1, 3, 3]
            async with pool.lease(wanted, named=True) as deep, pool.lease(wanted) as plain:
                assert (deep.steps_left, plain.steps_left) == (0, len(NAMED.preload_named))

    run(scenario())


def test_nothing_is_preloaded_if_it_would_take_memory_that_the_run_may_need() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        small = kind(STEPS, memory_mib=PRELOAD_FACTOR * STEPS.idle_bytes // MiB - 1)
        async with pool_on(engine) as pool:
            for wanted in (small, PY):
                pool.keep(wanted, 1)
                await pool.until_warm(wanted, 1)
            assert [channel.steps_asked for channel in engine.idle] == [0, len(STEPS.preload)]

    run(scenario())


# --- Batches ------------------------------------------------------------------------------------------


def test_a_clean_sandbox_takes_runs_of_its_batch_up_to_the_maximum() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine) as pool:
            ids = [await use(pool, of_batch(1, max_runs=4), str(n)) for n in range(10)]
            assert [ids.count(name) for name in dict.fromkeys(ids)] == [4, 4, 2]
            assert [channel.kept for channel in engine.sandboxes[:2]] == [[True, True, True, False]] * 2

    run(scenario())


def test_a_clean_sandbox_goes_to_the_first_waiter_of_its_batch() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine, max_sandboxes=2) as pool:
            served: list[int] = []
            await asyncio.gather(*(hold(pool, of_batch(1), 0.5, served, n) for n in range(10)))
            assert served == list(range(10))
            assert len(engine.sandboxes) == 2

    run(scenario())


def test_a_sandbox_that_is_not_clean_is_destroyed() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.clean = False
        async with pool_on(engine) as pool:
            ids = {await use(pool, of_batch(1), str(n)) for n in range(5)}
            assert len(ids) == 5
            await settle()
            assert all(channel.gone for channel in engine.sandboxes)

    run(scenario())


def test_a_batch_shares_no_sandbox_with_another_batch_or_run() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1, run_s=0.05)
        async with pool_on(engine, max_sandboxes=6) as pool:
            kinds = {"one": of_batch(1), "two": of_batch(2), "three": JS}
            await asyncio.gather(*(use(pool, kinds[name], name) for _ in range(20) for name in kinds))
        for channel in engine.sandboxes:
            assert len(set(channel.programs)) <= 1
        assert max(len(channel.programs) for channel in engine.sandboxes) > 1
        assert all(len(c.programs) == 1 for c in engine.sandboxes if b"three" in c.programs)

    run(scenario())


def test_sandboxes_of_a_forgotten_batch_are_destroyed_late_ones_too() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine) as pool:
            await use(pool, of_batch(1))
            await use(pool, of_batch(2))
            late = task(use(pool, of_batch(1, max_runs=9)))
            await asyncio.sleep(0.05)
            late.cancel()
            await settle()
            pool.forget_batch(1)
            await asyncio.sleep(AFTER_REFILLS_S)
            assert len(engine.sandboxes) == 3
            assert [channel.gone for channel in engine.sandboxes] == [True, False, True]

    run(scenario())


def test_a_batch_has_no_stock() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine) as pool:
            await use(pool, of_batch(1))
            await asyncio.sleep(IDLE_S)
            assert len(engine.launches) == 1

    run(scenario())


async def go_on(pool: Pool, wanted: SandboxKind) -> None:
    """As a batch does that has no end."""
    while True:
        await use(pool, wanted)


def test_a_batch_does_not_overtake_an_earlier_waiter() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1, run_s=0.2, destroy_s=0.1)
        async with pool_on(engine, max_sandboxes=2) as pool:
            batch = [task(go_on(pool, of_batch(1))) for _ in range(4)]
            await asyncio.sleep(10)
            begun = now()
            served: list[int] = []
            others = [task(hold(pool, wanted, 1.0, served, n)) for n, wanted in enumerate((JS, TS, JS))]
            await asyncio.wait(others)
            assert served == [0, 1, 2]
            assert now() - begun < 5
            for caller in batch:
                caller.cancel()
            await asyncio.wait(batch)

    run(scenario())


def test_a_batch_loses_no_more_sandboxes_than_there_are_waiters() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=1.0, run_s=0.01, destroy_s=0.01)
        async with pool_on(engine, max_sandboxes=4, max_warm=0) as pool:
            batch = [task(go_on(pool, of_batch(1, max_runs=1_000_000))) for _ in range(4)]
            await asyncio.sleep(10)
            assert len(engine.launches) == 4
            await use(pool, JS)  # takes a second to launch; a run of the batch takes 10 ms
            await asyncio.sleep(10)
            assert len(engine.launches) == 6  # the caller's, and the one that was discarded for it
            for caller in batch:
                caller.cancel()
            await asyncio.wait(batch)

    run(scenario())


# --- Cancellation -------------------------------------------------------------------------------------


def test_a_launch_whose_waiter_has_left_goes_into_the_stock() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine) as pool:
            caller = task(use(pool, JS))
            await asyncio.sleep(0.05)
            caller.cancel()
            await asyncio.sleep(AFTER_REFILLS_S)
            assert len(engine.launches) == pool.stats()["warm"] == 1

    run(scenario())


def test_a_launch_whose_waiter_has_left_is_destroyed_if_the_stock_is_full() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1)
        async with pool_on(engine, max_warm=0) as pool:
            caller = task(use(pool, JS))
            await asyncio.sleep(0.05)
            caller.cancel()
            await asyncio.sleep(AFTER_REFILLS_S)
            assert (len(engine.sandboxes), engine.there) == (1, 0)

    run(scenario())


def test_a_waiter_cancelled_while_it_is_served_passes_the_sandbox_on() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with pool_on(engine, max_sandboxes=1, max_warm=0) as pool:
            first, second = task(use(pool, JS)), task(use(pool, JS))
            await settle()
            engine.gate.set()
            steps = 0
            while pool.stats()["waiting"] == 2 and steps < 100:
                steps += 1
                await settle(1)
            first.cancel()  # it has left the line, but has not resumed yet
            assert await second == engine.sandboxes[0].id
            assert first.cancelled()

    run(scenario())


SITUATIONS = {
    "cold": {},
    "warm": {"keep": 1},
    "in_line": {"max_sandboxes": 1, "others": 2},
    "none_kept": {"max_warm": 0, "others": 1},
    "batch": {"others": 2, "max_sandboxes": 2, "batch": 1},
    "failing": {"fail": 1, "others": 1},
    "removing": {"keep": 2, "other_kind": 1, "max_sandboxes": 2},
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_caller_may_be_cancelled_at_any_step(situation: str) -> None:
    async def cancelled_after(steps: int, options: dict[str, int]) -> bool:
        engine = ScriptedEngine()
        bounds = {name: value for name, value in options.items() if name.startswith("max_")}
        async with pool_on(engine, **bounds) as pool:
            wanted = of_batch(1) if options.get("batch") else JS
            if options.get("keep"):
                kept = TS if options.get("other_kind") else JS
                pool.keep(kept, options["keep"])
                await pool.until_warm(kept, options["keep"])
            engine.failures.extend(EngineError("no") for _ in range(options.get("fail", 0)))
            others = [task(use(pool, wanted, "other")) for _ in range(options.get("others", 0))]
            caller = task(use(pool, wanted, "caller"))
            late = task(use(pool, wanted, "late"))
            await settle(steps)
            whole = not caller.cancel()
            outcomes = await asyncio.gather(*others, late, return_exceptions=True)
            assert sum(isinstance(outcome, str) for outcome in outcomes) >= len(others) + 1 - len(
                [outcome for outcome in outcomes if isinstance(outcome, EngineError)]
            )
            assert sum(isinstance(outcome, EngineError) for outcome in outcomes) <= options.get("fail", 0)
            await asyncio.wait({caller})
            await asyncio.sleep(AFTER_REFILLS_S)
            assert pool.stats()["sandboxes"] == engine.there == pool.stats()["warm"]
        if not options.get("batch"):
            assert single_use(engine)
        return whole

    for steps in range(200):
        if run(cancelled_after(steps, SITUATIONS[situation])):
            return
    pytest.fail("it never came to its end")


# --- The end ------------------------------------------------------------------------------------------


def test_close_refuses_the_waiters_and_leaves_nothing() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=10.0, destroy_s=1.0)
        async with pool_on(engine, max_sandboxes=3) as pool:
            callers = [task(use(pool, wanted)) for wanted in (JS, TS, PY) for _ in range(5)]
            warming = task(pool.until_warm(PY, 3))
            await asyncio.sleep(1)
            await pool.close()
            outcomes = await asyncio.gather(*callers, warming, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {ExecutorClosed}
            assert engine.there == 0

    run(scenario())


def test_close_ends_leased_and_stocked_sandboxes() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine(launch_s=0.1, run_s=100.0)
        async with pool_on(engine) as pool:
            pool.keep(TS, 2)
            running = [task(use(pool, JS)) for _ in range(3)]
            await pool.until_warm(TS, 2)
            await pool.close()
            assert engine.there == 0
            outcomes = await asyncio.gather(*running, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {SandboxLost}

    run(scenario())


def test_a_closed_pool_starts_nothing_and_may_be_closed_again() -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine) as pool:
            await pool.close()
            with pytest.raises(ExecutorClosed):
                await use(pool, JS)
            with pytest.raises(ExecutorClosed):
                pool.keep(JS, 1)
            with pytest.raises(ExecutorClosed):
                await pool.until_warm(JS, 1)
            pool.forget_batch(1)
            await asyncio.sleep(AFTER_REFILLS_S)
            assert not engine.launches
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


@pytest.mark.parametrize("steps", range(40))
def test_close_at_any_step_of_a_launch_leaves_nothing(steps: int) -> None:
    async def scenario() -> None:
        engine = ScriptedEngine()
        async with pool_on(engine) as pool:
            callers = [task(use(pool, wanted)) for wanted in (JS, PY, of_batch(1))]
            await settle(steps)
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, str | ExecutorClosed | SandboxLost), repr(outcome)

    run(scenario())


# --- Everything at once -------------------------------------------------------------------------------

KINDS = (JS, TS, PY, of_batch(1, 3), of_batch(2, 1000), of_batch(1, 3, STEPS))


class Storm:
    """Callers come, leave, and are let down, in an order that a seed decides."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.engine = ScriptedEngine(
            launch_s=self.random.choice((0.0, 0.1)),
            run_s=self.random.choice((0.0, 0.05, 0.3)),
            step_s=self.random.choice((0.0, 0.2)),
            destroy_s=self.random.choice((0.0, 0.1)),
        )
        self.callers: list[asyncio.Task[Any]] = []
        self.options = {
            "max_sandboxes": self.random.randint(1, 6),
            "max_warm": self.random.choice((0, 1, 4)),
            "max_waiting": self.random.choice((0, 3, 100)),
        }

    async def blow(self, pool: Pool) -> None:
        """One thing happens."""
        engine, chance = self.engine, self.random.random()
        if chance < 0.5:
            wanted = self.random.choice(KINDS)
            self.callers.append(task(use(pool, wanted, f"{wanted.batch}")))
        elif chance < 0.65 and self.callers:
            self.random.choice(self.callers).cancel()
        elif chance < 0.72:
            engine.failures.append(EngineError("now and then"))
        elif chance < 0.8 and engine.sandboxes:
            self.random.choice(engine.sandboxes).break_off()
        elif chance < 0.85:
            engine.clean = not engine.clean
        elif chance < 0.88:
            engine.gate.clear() if engine.gate.is_set() else engine.gate.set()
        elif chance < 0.9:
            with contextlib.suppress(InvalidRequest):  # more than may be kept
                pool.keep(self.random.choice(KINDS[:3]), self.random.randint(0, pool._stock.max_warm))
        elif chance < 0.95:
            await settle(self.random.randint(0, 9))
        else:
            await asyncio.sleep(self.random.choice((0.01, 0.1, 1.0, 20.0)))
        self.look(pool)

    def look(self, pool: Pool) -> None:
        """What holds at every moment."""
        stats = pool.stats()
        assert self.engine.there <= stats["sandboxes"] <= self.options["max_sandboxes"]
        assert stats["launching"] <= LAUNCHES_AT_ONCE
        assert sum(len(s.ready) for s in pool._stock.values() if s.stocked) <= self.options["max_warm"]
        for shelf in pool._stock.values():
            assert not (shelf.ready and any(not waiter.served.done() for waiter in shelf.waiting))

    async def calm(self, pool: Pool) -> None:
        """Nothing else happens, so every caller that is left is served."""
        self.engine.gate.set()
        self.engine.failures.clear()
        done, pending = await asyncio.wait(self.callers, timeout=1000) if self.callers else (set(), set())
        assert not pending
        for caller in done:
            if not caller.cancelled() and caller.exception() is not None:
                assert isinstance(caller.exception(), HostFailure), repr(caller.exception())
        await asyncio.sleep(100)
        stats = pool.stats()
        assert (stats["leased"], stats["launching"], stats["waiting"]) == (0, 0, 0)
        assert stats["sandboxes"] == stats["warm"] == self.engine.there


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32 - 1))
def test_in_random_histories_every_caller_is_served_and_no_sandbox_is_used_twice_or_left(seed: int) -> None:
    async def scenario() -> None:
        async with pool_on(storm.engine, **storm.options) as pool:
            for _ in range(120):
                await storm.blow(pool)
            await storm.calm(pool)
            for batch in (1, 2):
                pool.forget_batch(batch)

    storm = Storm(seed)
    run(scenario())
    for channel in storm.engine.sandboxes:
        assert len(set(channel.programs)) <= 1  # a program here is its batch
        assert len(channel.programs) <= (1 if b"None" in channel.programs else 1000)


def test_statistics_do_not_mind_that_another_thread_changes_the_stock() -> None:
    async def scenario() -> None:
        async with pool_on(ScriptedEngine()) as pool:

            class Changing(list[Sandbox]):
                def __len__(self) -> int:
                    pool._shelf(kind(memory_mib=600))
                    return 0

            pool._shelf(kind()).ready = Changing()  # type: ignore[assignment]
            assert pool.stats()["warm"] == 0
            pool._stock.clear()

    run(scenario())
