"""What the benchmarks compare with: the bare interpreter, and other libraries, called peers.

Each has a virtual environment of its own. It is made once from locked requirements, in the user's cache
folder (``XDG_CACHE_HOME``, or ``~/.cache``), under ``ai-codeforge/benchmarks``.
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
"""Our image, with the folder from which llm-sandbox's pool starts Python. The pool would make it a virtual
environment with pip from a package index, but the image has neither pip nor a network."""

PEERS = {"epicbox": "epicbox", "llm-sandbox": "llm-sandbox", "llm-sandbox-pool": "llm-sandbox, pool (reused)"}
"""The peers' names in peers.py, and in tables."""


def environment(name: str, lock: Path) -> Path:
    """Return the interpreter of a virtual environment with exactly the packages of a lock file."""
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
    """Return the versions to which the lock file pins these packages."""
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE))
    return {name: pinned[name] for name in names}


def node_version() -> str:
    """Return the version of the host's node, or "none"."""
    node = shutil.which("node")
    if node is None:
        return "none"
    return subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def bare_python(program: Program) -> Way:
    """Run the program on the host's interpreter, with the packages of our image and nothing else.

    It is not the interpreter that runs this benchmark, whose other packages may slow its start.
    """
    python = environment("host", IMAGE_LOCK)
    # As in the image: threads of the linear algebra library only cost time here.
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [str(python), "-c", program.code]
    return Way("bare python", partial(run_command, command, program.output, variables))


class Peer:
    """A process that runs programs in a peer, and reports how long each took."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    async def run(self, program: Program) -> float:
        """Run a program, and return milliseconds until the peer's caller has the result."""
        talk = self._process
        assert talk.stdin is not None
        assert talk.stdout is not None
        request = {"code": program.code, "output": program.output.decode()}
        talk.stdin.write(json.dumps(request).encode() + b"\n")
        await talk.stdin.drain()
        answer = await talk.stdout.readline()
        if not answer:
            raise HostFailure(f"{self._name} failed; its output is above")
        milliseconds = json.loads(answer)["ms"]
        assert isinstance(milliseconds, float)
        return milliseconds


def build_peer_image() -> None:
    """Build the peers' image from ours as it is now."""
    build = ["docker", "build", "--quiet", "--tag", PEER_IMAGE, "-"]
    done = subprocess.run(build, input=PEER_DOCKERFILE.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise HostFailure(f"{PEER_IMAGE} was not built:\n{done.stderr.decode()}")


@contextlib.asynccontextmanager
async def peers() -> AsyncIterator[Mapping[str, Peer]]:
    """Start every peer, by its name in tables. They and their containers end with the context."""
    python = environment("peers", PEERS_LOCK)
    build_peer_image()
    started = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, shown in PEERS.items():
            process = await asyncio.create_subprocess_exec(
                python,
                HERE / "peers.py",
                name,
                PEER_IMAGE,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C must not reach a peer: it ends with its run, and cleans up
            )
            stack.push_async_callback(_end, process)
            started[shown] = Peer(shown, process)
        yield started


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
