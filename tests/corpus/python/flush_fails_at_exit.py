"""Exit code 120: the last flush, at the interpreter's end, fails."""
import os
import sys

sys.stdout = open(1, "w", closefd=False)
print("stays in the buffer")
os.close(1)
