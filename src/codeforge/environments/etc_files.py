"""A sandbox's /etc, where it is not an image's: the users, and the one name of the one host that there is."""

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
    # Mounted upon: the machine's own.
    "ld.so.cache": "",
}


def write(folder: Path) -> None:
    """Make the folder."""
    folder.mkdir()
    for name, text in _FILES.items():
        (folder / name).write_text(text)
    (folder / "alternatives").mkdir()  # likewise
