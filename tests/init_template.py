"""A small worker for the tests of init: a template, or one run. Its steps are Python code."""

from __future__ import annotations

SOURCE = r"""
import ctypes, os, signal, socket, struct, sys, time, traceback

control = socket.socket(fileno=int(os.environ.pop('CODEFORGE_CONTROL_FD')))
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
fork = os.fork

def set_dumpable(on):
    assert ctypes.CDLL(None).prctl(4, on, 0, 0, 0) == 0

def exactly(size, have=b''):
    while len(have) < size:
        piece = control.recv(size - len(have))
        if not piece:
            os._exit(0)
        have += piece
    return have

def say(kind, payload=b''):
    control.sendall(struct.pack('<I', len(payload)) + kind + payload)

def said(pid, status, usage):
    say(b'X', struct.pack('<iQQ', status, int(usage.ru_utime * 1e6), int(usage.ru_stime * 1e6)))

def wait(pid):
    said(*os.wait4(pid, 0))

def become(message):
    set_dumpable(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    control.close()
    count, _, rest = message.partition(b'\0')
    strings = rest.split(b'\0')[:-1]
    argv, env = strings[:int(count)], strings[int(count):]
    os.environb.update(variable.split(b'=', 1) for variable in env)
    if not argv[0].endswith(b'python3'):
        os.execvp(argv[0], argv)
    source = argv[argv.index(b'-c') + 1]
    sys.argv[:] = ['-c', *map(os.fsdecode, argv[argv.index(b'-c') + 2:])]
    code = 0
    try:
        exec(source, {'__name__': '__main__'})
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)

def serve():
    while True:
        head, fds, _, _ = socket.recv_fds(control, 5, 3)
        if not head:
            os._exit(0)
        head = exactly(5, head)
        message = exactly(int.from_bytes(head[:4], 'little'))
        if head[4:] == b'p':
            exec(message, globals())
            say(b'P')
        elif head[4:] == b'g':
            become(message)
        else:
            run(message, fds)

def run(message, fds):
    set_dumpable(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = fork()
    except OSError as error:
        return say(b'E', struct.pack('<I', error.errno))
    if pid == 0:
        os.setsid()
        for standard, fd in enumerate(fds):
            os.dup2(fd, standard)
    for fd in fds:
        os.close(fd)
    if pid == 0:
        become(message)
    say(b'S', struct.pack('<I', pid))
    wait(pid)

serve()
"""
