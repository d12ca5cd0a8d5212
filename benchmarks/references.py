"""What the benchmarks compare with, and what it takes: other interpreters, other libraries.

Both live in virtual environments of their own, made once from locked requirements, under the user's
cache folder (``XDG_CACHE_HOME``, or ``~/.cache``), in ``ai-codeforge/benchmarks``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

from codeforge.bench.measure import Program, Way, run_command
from codeforge.errors import HostFailure

HERE = Path(__file__).parent
IMAGE_LOCK = HERE.parent / "docker/python-requirements.lock"
PEERS_LOCK = HERE / "peers-requirements.lock"

PEER_IMAGE = "ai-codeforge-bench-peers"
PEER_DOCKERFILE = """\
FROM ai-codeforge-python:latest
USER root
RUN mkdir -p /sandbox/.sandbox-venv/bin && ln -s "$(command -v python)" /sandbox/.sandbox-venv/bin/python
"""
"""Our image, with the folder that llm-sandbox's pool calls Python from. It would make it a virtual
environment, with pip from a package index: we have neither pip nor a network in there."""

PEERS = {"epicbox": "epicbox", "llm-sandbox": "llm-sandbox", "llm-sandbox-pool": "llm-sandbox, pool (reused)"}
"""The peers' names in peers.py, and in tables."""


def environment(name: str, lock: Path) -> Path:
    """The interpreter of a virtual environment with exactly what the lock file says."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = lock.read_bytes() + sys.version.encode()
    folder = cache / "ai-codeforge/benchmarks" / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    python, done = folder / "bin/python", folder / "installed"
    if not done.exists():
        print(f"making {folder} from {lock.name}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
        subprocess.run([python, "-m", "pip", "install", *options, "-r", lock], check=True)
        done.touch()
    return python


def versions_in(lock: Path, *names: str) -> dict[str, str]:
    """What the lock file pins these packages to."""
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE))
    return {name: pinned[name] for name in names}


def node_version() -> str:
    """Of the host's node, if it has one."""
    node = shutil.which("node")
    if node is None:
        return "none"
    return subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def bare_python(program: Program) -> Way:
    """The program on the host's interpreter, with the packages of our image and nothing else.

    Not the interpreter that runs this: what is installed beside that one may slow its start.
    """
    python = environment("host", IMAGE_LOCK)
    # As in the image: threads of the linear algebra library cost time and bring nothing here.
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [str(python), "-c", program.code]
    return Way("bare python", partial(run_command, command, program.output, variables))


class Peer:
    """A process with a peer in it, which runs programs and says how long each took."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    async def run(self, program: Program) -> float:
        """Milliseconds until the peer's caller has the result."""
        talk = self._process
        assert talk.stdin is not None
        assert talk.stdout is not None
        request = {"code": program.code, "output": program.output.decode()}
        talk.stdin.write(json.dumps(request).encode() + b"\n")
        await talk.stdin.drain()
        answer = await talk.stdout.readline()
        if not answer:
            raise HostFailure(f"{self._name} failed; what it said is above")
        milliseconds = json.loads(answer)["ms"]
        assert isinstance(milliseconds, float)
        return milliseconds


def build_peer_image() -> None:
    """Have the peers' image, made from ours as it is now."""
    build = ["docker", "build", "--quiet", "--tag", PEER_IMAGE, "-"]
    done = subprocess.run(build, input=PEER_DOCKERFILE.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise HostFailure(f"{PEER_IMAGE} was not built:\n{done.stderr.decode()}")


@contextlib.asynccontextmanager
async def peers() -> AsyncIterator[Mapping[str, Peer]]:
    """Every peer, by its name in tables; they end with the context, and their containers with them."""
    python = environment("peers", PEERS_LOCK)
    build_peer_image()
    started = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, shown in PEERS.items():
            process = await asyncio.create_subprocess_exec(
                python, HERE / "peers.py", name, PEER_IMAGE,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours alone: a peer ends with its run, and tidies up
            )  # fmt: skip
            stack.push_async_callback(_end, process)
            started[shown] = Peer(shown, process)
        yield started


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
