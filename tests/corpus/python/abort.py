import os
import sys

print("before")
print("err", file=sys.stderr)
os.abort()
