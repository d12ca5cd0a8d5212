"""What the tests' own attacks are built from: the audit's helper, and a few more names."""

from __future__ import annotations

import textwrap

from codeforge.audit.probe_runner import HELPER, source

_PRELUDE = f"""{source(HELPER)}

import socket, stat, sys, time

def call(name, *arguments):
    "What the kernel answers to a system call: a number, or the name of an error."
    try:
        return syscall(name, *arguments)
    except OSError as error:
        return errno.errorcode[error.errno]

"""


def payload(body: str) -> str:
    """A Python program with that body, which may use ``call`` and the names of the audit's helper."""
    return _PRELUDE + textwrap.dedent(body)
