"""The parts of init that read from the host, a worker and files, with sanitizers, on the fuzzers' inputs.

``make -C tests/fuzz run`` searches for more inputs.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from fuzzing import examples
from init_harness import frame

FUZZ = Path(__file__).parents[2] / "fuzz"
NAMES = ("files", "frames", "session", "worker")


@pytest.fixture(scope="session")
def replays(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    out = tmp_path_factory.mktemp("fuzz")
    goals = {name: out / f"fuzz-{name}-replay" for name in NAMES}
    built = subprocess.run(
        ["make", "-s", "-j2", "-C", FUZZ, f"OUT={out}", *goals.values()], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return goals


def replay(binary: Path, inputs: Sequence[bytes]) -> None:
    packed = b"".join(struct.pack("<I", len(data)) + data for data in inputs)
    done = subprocess.run([binary], input=packed, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert done.stdout == b"%d inputs\n" % len(inputs)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_passes(replays: Mapping[str, Path], name: str) -> None:
    inputs = [path.read_bytes() for path in sorted((FUZZ / f"corpus-{name}").iterdir())]
    assert len(inputs) >= 5
    replay(replays[name], inputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_fault_is_found(replays: Mapping[str, Path], name: str) -> None:
    planted = struct.pack("<I", 5) + b"PLANT"
    done = subprocess.run([replays[name]], input=planted, capture_output=True, env={"FUZZ_PLANT": "1"})
    assert done.returncode != 0
    assert b"AddressSanitizer" in done.stderr


OPERATIONS = st.tuples(st.integers(0, 255), st.binary(max_size=4)).map(lambda op: bytes([op[0]]) + op[1])
SCRIPTS = st.one_of(st.binary(max_size=200), st.lists(OPERATIONS, max_size=60).map(b"".join))


@examples(15)
@given(scripts=st.lists(SCRIPTS, min_size=5, max_size=30))
def test_any_script_passes(replays: Mapping[str, Path], scripts: list[bytes]) -> None:
    for name in NAMES:
        replay(replays[name], scripts)


KINDS = st.sampled_from([bytes([kind]) for kind in b"laecwpfdgik?\0"])
FRAMES = st.builds(frame, KINDS, st.one_of(st.binary(max_size=40), st.sampled_from([b"K=V", b"x" * 65536])))
INPUTS = st.one_of(
    st.binary(max_size=300), st.lists(st.one_of(FRAMES, st.binary(max_size=8)), max_size=20).map(b"".join)
)


@examples(30)
@given(inputs=st.lists(INPUTS, min_size=20, max_size=60))
def test_random_frames_pass(replays: Mapping[str, Path], inputs: list[bytes]) -> None:
    replay(replays["frames"], inputs)
