"""The system call filter stays in force for the whole run, and allows what is harmless."""

from __future__ import annotations

import errno
import platform

import pytest

from codeforge import BlockingCodeExecutor
from hostile.cases import not_shown
from hostile.conftest import Attack


@pytest.mark.catalogue("P19")
def test_a_system_call_by_the_32_bit_entry_ends_the_run(executor: BlockingCodeExecutor) -> None:
    if platform.machine() != "x86_64":
        not_shown("only x86-64 has a 32-bit entry that 64-bit code can take")
    code = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3")  # mov eax, 20 (getpid); int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""
    result = executor.execute(code)
    assert (result.status, result.signal) == ("killed", 31)


@pytest.mark.catalogue("P19")
def test_the_filter_survives_exec_and_cannot_be_loosened(run: Attack) -> None:
    reported = run("""
        import subprocess
        again = "import socket, sys\\ntry: socket.socket(16, 3)\\nexcept OSError as e: sys.exit(e.errno)"
        # A filter that allows everything, on top.
        allow = (ctypes.c_uint64 * 1)(0x7fff000000000006)
        class Program(ctypes.Structure):
            _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_void_p)]
        added = call("prctl", 22, 2, ctypes.byref(Program(1, ctypes.addressof(allow))), 0, 0)
        report({
            "after exec": subprocess.run([sys.executable, "-c", again]).returncode,
            "added": added, "after adding": attempt(socket.socket, 16, 3),
            "strict mode off": call("prctl", 22, 0, 0, 0, 0),
        })
    """)
    assert reported == {
        "after exec": errno.EAFNOSUPPORT,
        "added": 0,
        "after adding": "EAFNOSUPPORT",
        "strict mode off": "EINVAL",
    }


@pytest.mark.catalogue("P22")
def test_the_default_personality_is_allowed(run: Attack) -> None:
    assert run('report([call("personality", 0xffffffff), call("personality", 0)])') == [0, 0]
