import atexit
import os
import sys

atexit.register(print, "never")
print("flushed", flush=True)
sys.stdout.write("still in the buffer, if there is one")
print("and this", file=sys.stderr)
try:
    os._exit(9)
finally:
    print("never")
