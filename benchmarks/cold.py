"""One cold ``execute`` against ``docker run`` with the same flags, interleaved in one run.

    .venv/bin/python benchmarks/cold.py [--rounds 30]

Both start a container for ``print('hello')`` and wait for its output and its end; the executor has no
warm stock. The target is a ratio of the medians of at most 0.7.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import time

from measure import circumstances, summary
from rich.progress import track

from codeforge import LANGUAGES, CodeExecutor
from codeforge.limits import Limits
from codeforge.policy import container_spec

CODE = "print('hello')"


def docker_run_command() -> list[str]:
    """``docker run`` with the flags of the executor's own container, as far as the command has them."""
    python = LANGUAGES[0]
    spec = container_spec(python, Limits(), owner="benchmark")
    host = spec["HostConfig"]
    command = [
        "docker", "run", "--rm", "--read-only", "--network=none", f"--memory={host['Memory']}",
        f"--memory-swap={host['MemorySwap']}", f"--cpu-period={host['CpuPeriod']}",
        f"--cpu-quota={host['CpuQuota']}", f"--cpu-shares={host['CpuShares']}",
        f"--pids-limit={host['PidsLimit']}", "--security-opt=no-new-privileges", "--cap-drop=ALL",
        "--ipc=private", "--cgroupns=private", f"--shm-size={host['ShmSize']}", "--log-driver=none",
        f"--oom-score-adj={host['OomScoreAdj']}", f"--user={spec['User']}", f"--workdir={spec['WorkingDir']}",
    ]  # fmt: skip
    command += [f"--tmpfs={path}:{options}" for path, options in host["Tmpfs"].items()]
    command += [f"--ulimit={u['Name']}={u['Soft']}:{u['Hard']}" for u in host["Ulimits"]]
    return [*command, python.image, "python", "-c", CODE]


def docker_run(command: list[str]) -> float:
    """Seconds of one ``docker run``."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"hello\n"
    return time.perf_counter() - start


async def execute(executor: CodeExecutor) -> float:
    """Seconds of one ``execute``."""
    start = time.perf_counter()
    result = await executor.execute(CODE)
    assert result.output == "hello\n"
    return time.perf_counter() - start


async def main() -> int:
    """Measure, print the table, and 0 if the target is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    command = docker_run_command()
    ours, theirs = [], []
    print(await circumstances())
    async with CodeExecutor() as executor:
        await execute(executor)
        docker_run(command)
        for _ in track(range(rounds), "measuring"):
            for which in random.sample(("execute", "docker run"), 2):
                if which == "execute":
                    ours.append(await execute(executor))
                else:
                    theirs.append(await asyncio.to_thread(docker_run, command))
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"docker run    {summary(theirs)}")
    print(f"cold execute  {summary(ours)}   {ratio:.2f} x docker run (target: at most 0.70)")
    return 0 if ratio <= 0.7 else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
