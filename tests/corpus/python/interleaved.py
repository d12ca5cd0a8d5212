import os
import sys

sys.stdout.write("one ")
os.write(1, b"two ")
sys.stdout.buffer.write(b"three ")
print("four", end=" ", flush=True)
os.system("echo five")
sys.stderr.write("no newline")
print(*range(5), sep="-", end="!\n")
sys.stdout.writelines(["a", "b\n"])
