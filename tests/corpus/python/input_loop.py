import sys

name = input("Name? ")
print(f"hello {name}")
while True:
    line = input("> ")
    if not line:
        break
    print(repr(line))
print(next(sys.stdin), end="")
print([line for line in sys.stdin])
print(repr(sys.stdin.readline()), repr(sys.stdin.read()))
value = input("more? ")
