import os
import signal
import sys

print("parent first")
pid = os.fork()
if pid == 0:
    print("in child")
    sys.exit(12)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"through a pipe")
    os.kill(os.getpid(), signal.SIGKILL)
print(os.read(read, 99), os.waitstatus_to_exitcode(os.wait()[1]))
if os.fork() == 0:
    raise LookupError("child's traceback")
print(os.waitstatus_to_exitcode(os.wait()[1]))
try:
    os.wait()
except ChildProcessError as error:
    print(error)
sys.stdout.flush()
os.execvp("python", ["python", "-c", "import sys; print('after exec', sys.argv); sys.exit(6)", "x"])
