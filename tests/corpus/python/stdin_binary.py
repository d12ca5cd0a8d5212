import hashlib
import sys

data = sys.stdin.buffer.read()
print(len(data), data[:12], hashlib.sha256(data).hexdigest())
sys.stdout.buffer.write(data)
