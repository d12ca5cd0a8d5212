"""The pool against a model: callers and the engine act at random, step by step, in virtual time.

The model knows when each caller came, what it asked for, and which sandbox it holds. hypothesis generates
the steps, and reduces a failure to the few that cause it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from codeforge.errors import Busy, EngineError, HostFailure, InvalidRequest
from codeforge.model.languages import JAVASCRIPT, PYTHON, Language, LanguageTable
from codeforge.model.limits import Limits, MiB, SandboxLimits
from codeforge.model.request import ExecutionRequest, resolve
from codeforge.model.result import ExecutionResult
from codeforge.policy import USER_IDS
from codeforge.sandboxes.kind import SandboxKind
from codeforge.sandboxes.pool import LAUNCHES_AT_ONCE, Pool
from codeforge.sandboxes.sandbox import Sandbox
from fuzzing import examples
from scripted_engine import ScriptedChannel, ScriptedEngine
from virtual_time import VirtualTimeLoop, settle

PLAIN = dataclasses.replace(JAVASCRIPT, preload=(), preload_named=(), idle_bytes=64 * MiB)
STEPS = dataclasses.replace(PYTHON, preload=("first", "second"), preload_named=(), idle_bytes=64 * MiB)


def of_batch(number: int, max_runs: int) -> SandboxKind:
    return SandboxKind(language=PLAIN, limits=Limits().of_sandbox(PLAIN), max_runs=max_runs, batch=number)


SINGLE = (
    SandboxKind(language=PLAIN, limits=Limits().of_sandbox(PLAIN)),
    SandboxKind(language=STEPS, limits=Limits().of_sandbox(STEPS)),
    SandboxKind(language=PLAIN, limits=Limits(memory_bytes=256 * MiB).of_sandbox(PLAIN)),
)
BATCHES = (of_batch(1, 3), of_batch(2, 50))
KINDS = st.sampled_from((*SINGLE, *BATCHES))
PAUSES: st.SearchStrategy[int | float] = st.sampled_from((20, 0.15, 0, 1, 2, 3, 5, 0.06))
"""The pause between two actions: steps of the event loop, or seconds."""
NUMBERS = st.integers(0, 9)

T = TypeVar("T")


def one_of(there: list[T], which: int) -> list[T]:
    """One of them, if there are any."""
    return [there[which % len(there)]] if there else []


class Engine(ScriptedEngine):
    """Records the user ids of its sandboxes for as long as they exist."""

    def __init__(self, **durations: float) -> None:
        super().__init__(**durations)
        self._launching: list[int] = []
        self._there: dict[ScriptedChannel, int] = {}

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> ScriptedChannel:
        """See ``Engine.launch``."""
        self._launching.append(uid)
        try:
            channel = await super().launch(language, limits, uid=uid)
        finally:
            self._launching.remove(uid)
        self._there[channel] = uid
        return channel

    @property
    def uids(self) -> list[int]:
        """The user ids of all sandboxes that exist or are being launched."""
        return self._launching + [uid for channel, uid in self._there.items() if not channel.gone]

    def channel(self, name: str) -> ScriptedChannel:
        return next(channel for channel in self.sandboxes if channel.id == name)


@dataclass(eq=False)
class Caller:
    """One call of ``lease``.

    Attributes:
        runs: whether it runs a program before it returns the sandbox.
        held: the sandbox, for as long as it has it.
        served_s: when it was given one, on the event loop's clock.
        cancelled: whether the test cancelled it.
    """

    kind: SandboxKind
    runs: bool
    held: Sandbox | None = None
    served_s: float | None = None
    cancelled: bool = False
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] = field(init=False)

    @property
    def waits(self) -> bool:
        return not (self.served_s is not None or self.cancelled or self.task.done())


class PoolMachine(RuleBasedStateMachine):
    """The steps that a pool may see, and what must be true after each of them."""

    @initialize(
        durations=st.tuples(*(st.sampled_from((0.0, 0.1)),) * 4),
        max_sandboxes=st.integers(1, 4),
        max_warm=st.sampled_from((0, 1, 3)),
        max_waiting=st.sampled_from((0, 2, 100)),
    )
    def open(self, durations: tuple[float, ...], max_sandboxes: int, max_warm: int, max_waiting: int) -> None:
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        names = ("launch_s", "run_s", "step_s", "destroy_s")
        self.engine = Engine(**dict(zip(names, durations, strict=True)))
        self.max_sandboxes, self.max_warm, self.max_waiting = max_sandboxes, max_warm, max_waiting
        self.pool = Pool(
            self.engine,
            max_sandboxes=max_sandboxes,
            max_warm=max_warm,
            max_waiting=max_waiting,
        )
        self.came: list[Caller] = []  # in their order
        self.overtaken: list[tuple[Caller, float]] = []
        self.heard: list[BaseException] = []
        self.closed = False

    def wait(self, pause: float) -> None:
        self.runner.run(settle(pause) if isinstance(pause, int) else asyncio.sleep(pause))

    # --- Callers

    @rule(kind=KINDS, stay=st.lists(st.booleans(), min_size=1, max_size=4), run=st.booleans(), pause=PAUSES)
    def callers_come(self, kind: SandboxKind, stay: list[bool], run: bool, pause: float) -> None:
        async def start() -> None:
            for stays in stay:
                caller = Caller(kind, run)
                if not stays:
                    caller.let_go.set()
                self.came.append(caller)
                caller.task = asyncio.get_running_loop().create_task(self.lease(caller))

        self.runner.run(start())
        self.wait(pause)

    async def lease(self, caller: Caller) -> None:
        try:
            async with self.pool.lease(caller.kind) as sandbox:
                self.serve(caller, sandbox)
                try:
                    await caller.let_go.wait()
                    if caller.runs:
                        await self.execute(sandbox)
                finally:
                    caller.held = None
        except Busy as busy:
            assert sum(other.waits for other in self.came) > self.max_waiting
            self.heard.append(busy)
        except HostFailure as error:
            self.heard.append(error)

    def serve(self, caller: Caller, sandbox: Sandbox) -> None:
        """Check that it was the caller's turn, and that it may have this sandbox."""
        now_s = asyncio.get_running_loop().time()
        before = self.came[: self.came.index(caller)]
        self.overtaken += [(other, now_s) for other in before if other.waits and other.kind == caller.kind]
        assert caller.served_s is None
        assert sandbox.kind == caller.kind
        assert sandbox.usable
        assert len(self.engine.channel(sandbox.id).programs) == sandbox.runs < caller.kind.max_runs
        caller.held, caller.served_s = sandbox, now_s

    async def execute(self, sandbox: Sandbox) -> None:
        request = ExecutionRequest(code=str(sandbox.kind.batch), language=sandbox.kind.language.name)
        run = resolve(request, LanguageTable([sandbox.kind.language]), Limits(timeout_s=5000.0))
        *pieces, result = [piece async for piece in sandbox.run(run)]
        assert isinstance(result, ExecutionResult)
        assert pieces == [("stdout", request.code.encode())]

    @rule(which=NUMBERS, all_do=st.booleans(), pause=PAUSES)
    def callers_return_their_sandboxes(self, which: int, all_do: bool, pause: float) -> None:
        holders = [caller for caller in self.came if caller.held]
        for caller in holders if all_do else one_of(holders, which):
            caller.let_go.set()
        self.wait(pause)

    @rule(which=NUMBERS, pause=PAUSES)
    def a_caller_is_cancelled(self, which: int, pause: float) -> None:
        for caller in one_of([caller for caller in self.came if not caller.task.done()], which):
            caller.cancelled = caller.task.cancel() or caller.cancelled
        self.wait(pause)

    # --- The engine

    @rule(
        what=st.sampled_from(("fail", "break off", "dirty", "hang", "restart")), which=NUMBERS, pause=PAUSES
    )
    def the_engine_fails(self, what: str, which: int, pause: float) -> None:
        engine = self.engine
        match what:
            case "fail":
                engine.failures.append(EngineError("this launch"))
            case "break off":
                for channel in one_of([channel for channel in engine.sandboxes if not channel.gone], which):
                    channel.break_off()
            case "dirty":
                engine.clean = not engine.clean
            case "hang":
                engine.gate.clear()
            case _:
                engine.stop()
        self.wait(pause)
        engine.broken = None
        if which:
            engine.gate.set()

    # --- The pool

    @rule(seconds=st.sampled_from((0.01, 0.06, 0.15, 1.0, 11.0, 400.0)))
    def time_passes(self, seconds: float) -> None:
        self.wait(seconds)

    @precondition(lambda self: not self.closed)
    @rule(kind=KINDS, count=st.integers(0, 3))
    def a_kind_is_kept_or_a_batch_forgotten(self, kind: SandboxKind, count: int) -> None:
        async def keep_or_forget() -> None:
            if kind.batch is None:
                with contextlib.suppress(InvalidRequest):  # more than may be kept
                    self.pool.keep(kind, count)
            elif all(caller.task.done() for caller in self.came if caller.kind == kind):
                self.pool.forget_batch(kind.batch)

        self.runner.run(keep_or_forget())

    @precondition(lambda self: not self.closed and len(self.came) > 20)
    @rule(sure=NUMBERS)
    def the_pool_is_closed(self, sure: int) -> None:
        if sure > 6:  # rarely, because little happens afterwards
            self.closed = True
            self.runner.run(self.pool.close())

    # --- What is true at every moment

    @invariant()
    def no_two_have_the_same_sandbox_or_user_id(self) -> None:
        held = [caller.held for caller in self.came if caller.held is not None]
        ready = [sandbox for shelf in self.pool._stock.values() for sandbox in shelf.ready]
        assert len(set(held + ready)) == len(held + ready)
        uids = self.engine.uids
        assert len(set(uids)) == len(uids)
        assert set(uids) <= set(USER_IDS)

    @invariant()
    def counts_are_right_and_within_bounds(self) -> None:
        stats = self.pool.stats()
        assert stats["leased"] == sum(caller.held is not None for caller in self.came)
        assert self.engine.there <= stats["sandboxes"] <= self.max_sandboxes
        assert stats["launching"] <= LAUNCHES_AT_ONCE
        stocked = [shelf for shelf in self.pool._stock.values() if shelf.stocked]
        assert sum(len(shelf.ready) for shelf in stocked) <= self.max_warm

    @invariant()
    def callers_of_a_kind_are_served_in_order(self) -> None:
        # Two callers that each find a sandbox at the same moment may be served in either order.
        for caller, when_s in self.overtaken:
            assert not caller.waits
            assert caller.served_s in (None, when_s)
        self.overtaken.clear()

    @invariant()
    def an_error_reaches_only_one_caller(self) -> None:
        errors = [error for error in self.heard if type(error) is EngineError]
        assert len({id(error) for error in errors}) == len(errors)

    @invariant()
    def callers_end_only_as_expected(self) -> None:
        for caller in self.came:
            if caller.task.done() and not caller.task.cancelled():
                caller.task.result()
            assert caller.cancelled or not (caller.task.done() and caller.task.cancelled())

    # --- The end

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            with self.runner:
                self.runner.run(self.finish())

    async def finish(self) -> None:
        """Wait until every caller is served, and check that nothing is left."""
        self.engine.failures.clear()
        self.engine.gate.set()
        for caller in self.came:
            caller.let_go.set()
        if self.came:
            _, pending = await asyncio.wait([caller.task for caller in self.came], timeout=1000)
            assert not pending, "a caller was forgotten"
        if not self.closed:
            await asyncio.sleep(100)
            stats = self.pool.stats()
            assert (stats["leased"], stats["launching"], stats["waiting"]) == (0, 0, 0)
            assert stats["sandboxes"] == stats["warm"] == self.engine.there
        await self.pool.close()
        await settle()
        assert self.engine.there == 0
        assert not any(
            self.pool.stats()[name] for name in ("sandboxes", "leased", "warm", "launching", "waiting")
        )
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for channel in self.engine.sandboxes:
            assert channel.gone
            assert len(channel.programs) <= (1 if b"None" in channel.programs else 50)
            assert len(set(channel.programs)) <= 1  # each program is the name of its batch


def test_the_pool_behaves_as_its_model_in_random_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeforge.sandboxes.pool.CPUS", 2)
    run_state_machine_as_test(PoolMachine, settings=examples(200, steps=50))
