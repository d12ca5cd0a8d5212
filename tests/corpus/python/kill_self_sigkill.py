import os
import signal

print("flushed", flush=True)
print("still in the buffer, if there is one")
os.kill(os.getpid(), signal.SIGKILL)
print("never")
