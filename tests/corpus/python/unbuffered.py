import os
import sys

print(type(sys.stdout.buffer).__name__, sys.stdout.write_through, sys.stdin.buffer.__class__.__name__)
print(sys.stdin.readline(), os.read(0, 100))
sys.stdout.write("not lost")
os._exit(0)
