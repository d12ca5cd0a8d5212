import sys

print(repr(sys.stdin.read()))


def ask() -> str:
    return input("Your choice: ")


ask()
