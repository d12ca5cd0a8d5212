import os
import sys

sys.stdout.buffer.write(bytes(range(256)))
sys.stdout.buffer.flush()
sys.stderr.buffer.write(b"\xff\xfe\x00err\r\n")
os.write(1, b"\0raw\n")
print("text \x1b[31mred\x1b[0m \a\b\r\n", end="")
