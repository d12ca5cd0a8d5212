"""What a program may execute gives it no rights, and it cannot change files that runs share."""

from __future__ import annotations

import pytest

from hostile.conftest import Attack


@pytest.mark.catalogue("P24")
def test_a_program_executed_from_memory_gains_no_rights(run: Attack) -> None:
    reported = run("""
        import subprocess
        program = os.memfd_create("program", 0)
        os.write(program, open("/usr/bin/env", "rb").read())
        works = subprocess.run([f"/proc/self/fd/{program}", "true"], pass_fds=[program]).returncode
        def rights(text):
            kinds = "Cap", "NoNew", "Seccomp", "Uid", "Gid"
            return [line for line in text.splitlines() if line.startswith(kinds)]
        seen = subprocess.run([f"/proc/self/fd/{program}", "cat", "/proc/self/status"],
                              pass_fds=[program], capture_output=True, text=True).stdout
        report({"works": works, "same": rights(seen) == rights(open("/proc/self/status").read()) != []})
    """)
    assert reported == {"works": 0, "same": True}


CRITICAL = """
import glob
paths = ["/opt/codeforge/init", sys.executable, "/etc/passwd", "/usr/bin/env"]
paths += sorted(line.split()[-1] for line in set(open("/proc/self/maps")) if ".so" in line)
paths += sorted(glob.glob("/opt/codeforge/*.py"))
paths = sorted({os.path.realpath(path) for path in paths if os.path.exists(path)})
"""
HASHES = """
import hashlib
report({path: hashlib.sha256(open(path, "rb").read()).hexdigest() for path in paths})
"""
POISON = """
import mmap
facts = {}
for path in paths:
    fd = os.open(path, os.O_RDONLY)
    size = min(4096, os.fstat(fd).st_size)
    # Writable shared mapping of what was opened for reading; then by way of a private one.
    facts[path] = [
        attempt(lambda: os.close(os.open(path, os.O_RDWR))),
        attempt(lambda: mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_WRITE)),
        attempt(lambda: os.truncate(path, 0)),
    ]
    private = mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    private[1:5] = b"EVIL"
    address = ctypes.addressof(ctypes.c_char.from_buffer(private))
    memory = os.open("/proc/self/mem", os.O_RDWR)
    os.pwrite(memory, b"EVIL", address + 9)
    # Dirty Pipe with sendfile instead of splice: fill and drain a pipe, give it a page, append to it.
    reading, writing = os.pipe()
    for _ in range(16):
        os.write(writing, bytes(4096))
    for _ in range(16):
        os.read(reading, 4096)
    if os.sendfile(writing, fd, 1, 1) == 1:
        os.write(writing, b"EVIL")
report(facts)
"""


@pytest.mark.catalogue("P25")
def test_a_run_cannot_change_shared_files_for_the_next_run(run: Attack) -> None:
    # Mapped files depend on what a sandbox has preloaded by now; all three runs look at the same ones.
    paths = run(CRITICAL + "report(paths)")
    same = f"paths = {paths!r}\n"
    before = run(same + HASHES)
    reported = run(same + POISON)
    after = run(same + HASHES)
    assert len(before) > 5
    assert set(reported) == set(before)
    for answers in reported.values():
        assert answers[0] in ("EROFS", "EACCES")
        assert answers[1] == "EACCES"
        assert answers[2] in ("EROFS", "EACCES")
    assert after == before
