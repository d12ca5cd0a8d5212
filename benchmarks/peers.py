"""Drives a peer inside the virtual environment that has it. ``references.Peer`` is the other side.

    python peers.py epicbox|llm-sandbox|llm-sandbox-pool IMAGE

Reads requests, each a line of JSON ``{"code": ..., "output": ...}``, and answers each with ``{"ms": ...}``:
milliseconds until the peer's caller has the result. Cleaning up does not count, as it does not for us.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

Run: TypeAlias = Callable[[str], tuple[float, bytes]]
"""Takes a program, and returns seconds and output."""

SESSION = {
    "network_mode": "none",
    "mem_limit": "512m",
    "memswap_limit": "512m",
    "cpu_period": 100_000,
    "cpu_quota": 50_000,
    "pids_limit": 64,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    # Python as PID 1 ignores SIGTERM: without this, each session would take 10 s to close.
    "stop_signal": "SIGKILL",
}
"""As our own containers, as far as llm-sandbox can express it. Its root file system must be writable, for the
copy of the program. Its user is root because it would have to change the program's owner."""

LIMITS = {"cputime": 60, "realtime": 60, "memory": 512, "processes": 64}
"""The same for epicbox, which has no CPU quota and keeps Docker's capabilities."""

POOL = 4


@contextlib.contextmanager
def epicbox(image: str) -> Iterator[Run]:
    """Use a container for each run, removed before ``run`` returns."""
    # Imported by name, because mypy runs where the peers are not installed.
    peer = importlib.import_module("epicbox")
    peer.configure(profiles=[peer.Profile("python", image, user="runner")])

    def run(code: str) -> tuple[float, bytes]:
        start = time.perf_counter()
        files = [{"name": "main.py", "content": code.encode()}]
        result = peer.run("python", "python main.py", files=files, limits=dict(LIMITS))
        return time.perf_counter() - start, result["stdout"]

    yield run


@contextlib.contextmanager
def session(image: str) -> Iterator[Run]:
    """Use a container for each run."""
    peer = importlib.import_module("llm_sandbox")

    def run(code: str) -> tuple[float, bytes]:
        start = time.perf_counter()
        options = {"runtime_configs": dict(SESSION), "skip_environment_setup": True}
        with peer.SandboxSession(lang="python", image=image, **options) as opened:
            result = opened.run(code)
            return time.perf_counter() - start, result.stdout.encode()

    yield run


@contextlib.contextmanager
def pool(image: str) -> Iterator[Run]:
    """Use containers that were started before, again and again. A run's files and processes stay in them."""
    peer = importlib.import_module("llm_sandbox.pool")
    config = peer.PoolConfig(min_pool_size=POOL, max_pool_size=POOL)
    options = {"runtime_configs": dict(SESSION), "skip_environment_setup": True}
    with peer.create_pool_manager(lang="python", image=image, config=config, **options) as manager:

        def run(code: str) -> tuple[float, bytes]:
            start = time.perf_counter()
            with peer.PooledSandboxSession(pool_manager=manager) as opened:
                result = opened.run(code)
                return time.perf_counter() - start, result.stdout.encode()

        yield run


PEERS = {"epicbox": epicbox, "llm-sandbox": session, "llm-sandbox-pool": pool}


def main() -> None:
    """Answer requests until stdin ends."""
    name, image = sys.argv[1:]
    with PEERS[name](image) as run:
        for line in sys.stdin:
            request = json.loads(line)
            seconds, output = run(request["code"])
            if output.decode() != request["output"]:
                sys.exit(f"{name}: the program did not print what it should, but {output[:500]!r}")
            print(json.dumps({"ms": seconds * 1000}), flush=True)


if __name__ == "__main__":
    main()
