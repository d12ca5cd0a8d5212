import os
import signal
import subprocess
import sys

print(subprocess.run(["echo", "captured"], capture_output=True, text=True))
print(subprocess.run("echo out; echo err >&2; exit 4", shell=True).returncode)
print(subprocess.run([sys.executable, "-c", "import sys; print(sys.argv, __name__)", "a"]).returncode)
print(subprocess.run(["cat"], input=b"piped \xff", stdout=subprocess.PIPE).stdout)
print(subprocess.run(["sh", "-c", "kill -9 $$"]).returncode)
print(subprocess.run(["cat"], stdout=subprocess.PIPE).stdout)
print(os.system("exit 3"), os.popen("echo popen; pwd; id -un; ls").read())
child = subprocess.Popen(["sleep", "60"])
child.terminate()
print(child.wait() == -signal.SIGTERM)
try:
    subprocess.run(["sleep", "60"], timeout=0.1)
except subprocess.TimeoutExpired as error:
    print(error.cmd)
try:
    subprocess.run(["/code/absent"])
except FileNotFoundError as error:
    print(error)
subprocess.run([sys.executable, "helper.py", "x"], env={"ONLY": "this"}, cwd="/code/sub")
subprocess.check_call(["false"])
