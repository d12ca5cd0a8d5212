import sys

for number in range(8000):
    print(number, "x" * 70)
sys.stderr.write("e" * 300_000)
sys.exit(3)
