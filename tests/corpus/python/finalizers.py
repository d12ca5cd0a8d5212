"""What happens to live objects when the interpreter ends."""
import gc
import sys


class Loud:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("del", self.name, sys is not None, print is not None)


def generator():
    try:
        yield 1
    finally:
        print("generator closed")


class Held:
    member = Loud("class attribute")


class Hook:
    def __repr__(self):
        return "the hook"

    def __call__(self):
        raise ValueError("raised in __del__")


class Broken:
    __del__ = Hook()


first = Loud("first")
_private = Loud("private")
running = generator()
next(running)
cycle = [Loud("cycle")]
cycle.append(cycle)
del cycle
Broken()
stored = Broken()
second = Loud("second")
gc.collect()  # else it depends on when the last collection was, in which order these are found
print("end of main")
