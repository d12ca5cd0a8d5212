"""A Python interpreter that waits for its program.

``python /code/main.py`` is started before /code/main.py is there. This file runs while the
interpreter imports ``site`` (from codeforge_worker.pth, only when init set the variable), waits on
the control pipe for argv and environment, and returns: the interpreter then goes on to open and run
/code/main.py by itself, so that nothing of the waiting shows in the program.

It is executed, not imported: no module, no name and no frame of it is left behind.
"""


def _wait_for_go() -> None:
    import os
    import sys

    control = int(os.environ.pop("CODEFORGE_CONTROL_FD"))
    message = b""
    while piece := os.read(control, 65536):
        message += piece
    os.close(control)
    if not message:
        os._exit(0)  # init is gone
    count, _, rest = message.partition(b"\0")
    strings = [os.fsdecode(s) for s in rest.split(b"\0")[:-1]]
    argv, environment = strings[: int(count)], strings[int(count) :]
    sys.argv[:] = argv[1:]
    sys.orig_argv[:] = argv
    for variable in environment:
        key, _, value = variable.partition("=")
        os.environ[key] = value


_wait_for_go()
del _wait_for_go
