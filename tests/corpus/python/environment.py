import os
import subprocess
import sys
import time

print(os.environ["GREETING"], repr(os.environ["EMPTY"]), os.environ["WITH_SPACE"])
print(sorted(os.environ))
print({key: value for key, value in sorted(os.environ.items()) if key != "HOSTNAME"})
print(time.tzname, time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(0)))
sys.stdout.flush()
subprocess.run(["sh", "-c", 'echo "$GREETING:$TZ:$EMPTY:$PATH:$HOME"'], check=True)
os.environ["ADDED"] = "yes"
subprocess.run(["sh", "-c", 'echo "$ADDED"'], check=True)
