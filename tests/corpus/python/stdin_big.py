import sys

total = length = 0
for line in sys.stdin:
    total += int(line.split()[1])
    length += len(line)
print(total, length)
