import locale
import os
import sys

for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.newlines, stream.line_buffering,
          stream.write_through, stream.isatty(), type(stream).__name__, type(stream.buffer).__name__, stream.fileno())
print(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), sys.getdefaultencoding())
print(locale.getpreferredencoding(False), locale.getlocale(), sys.flags.utf8_mode)
print([os.isatty(fd) for fd in range(3)], [os.get_blocking(fd) for fd in range(3)])
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")))
try:
    os.get_terminal_size()
except OSError as error:
    print(error)
try:
    open("/dev/tty")
except OSError as error:
    print(error)
