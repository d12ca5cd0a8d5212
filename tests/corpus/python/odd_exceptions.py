"""Exceptions of every odd kind at the end of a program."""
import contextlib
import sys


@contextlib.contextmanager
def loud(name):
    print("enter", name)
    try:
        yield name
    except ValueError as error:
        print("seen", error)
        raise
    finally:
        print("exit", name)


class Lost(BaseException):
    """Not an Exception."""


def generator():
    try:
        yield 1
        yield 2
    except GeneratorExit:
        print("closed early")


with contextlib.suppress(KeyError):
    {}["x"]
for item in generator():
    break
try:
    with loud("outer"), loud("inner"):
        raise ValueError("through two managers")
except ValueError:
    pass
try:
    with contextlib.ExitStack() as stack:
        stack.callback(print, "callback")
        stack.enter_context(loud("stacked"))
        raise Lost("base exception")
except Exception:
    print("not caught here")
finally:
    print("finally", sys.exc_info()[0].__name__)
