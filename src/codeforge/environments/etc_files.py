"""The /etc of a sandbox that has no image: its users, and the name of its only host."""

from __future__ import annotations

from pathlib import Path

from codeforge.policy import HOSTNAME, RUNNER_GID, USER_IDS

_NOLOGIN = "/usr/sbin/nologin"

_FILES = {
    "passwd": "".join(
        (
            "root:x:0:0:root:/:/usr/sbin/nologin\n",
            *(f"runner:x:{uid}:{RUNNER_GID}::/tmp:{_NOLOGIN}\n" for uid in (RUNNER_GID, *USER_IDS)),
            f"nobody:x:65534:65534:nobody:/:{_NOLOGIN}\n",
        )
    ),
    "group": f"root:x:0:\nrunner:x:{RUNNER_GID}:\nnogroup:x:65534:\n",
    "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "resolv.conf": "",
    # The machine's own is mounted over it.
    "ld.so.cache": "",
}


def write(folder: Path) -> None:
    """Make the folder with its files."""
    folder.mkdir()
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    (folder / "alternatives").mkdir()  # the machine's own is mounted over it
