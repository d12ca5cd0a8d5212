import atexit
import sys
import weakref


class Named:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<{self.name}>"

    def __call__(self):
        print("calling", self.name)
        raise RuntimeError(f"{self.name} failed")

    def __del__(self):
        print("finalizing", self.name)


def leave():
    print("leave")
    sys.exit(3)


keep = Named("global")
atexit.register(print, "first registered, last run")
atexit.register(Named("callback"))
atexit.register(lambda: print("registered later:", keep))
finalizer = weakref.finalize(keep, print, "weakref finalizer")
atexit.register(lambda: atexit.register(print, "registered at exit"))
print("main ends", finalizer.alive)
sys.exit(4)
