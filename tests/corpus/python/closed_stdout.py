import os
import sys

print("open", flush=True)
os.close(1)
try:
    print("goes nowhere", flush=True)
except OSError as error:
    sys.stderr.write(f"{error}\n")
sys.stdout.close()
print("to a closed file")
