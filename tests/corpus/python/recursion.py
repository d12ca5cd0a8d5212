import sys


def depth(n):
    global deepest
    deepest = n
    depth(n + 1)


try:
    depth(1)
except RecursionError as error:
    print(deepest, error)


class Node:
    def __repr__(self):
        return f"Node({self!r})"


try:
    repr(Node())
except RecursionError as error:
    print(error)
sys.setrecursionlimit(30_000)


def count(n):
    return 0 if n == 0 else 1 + count(n - 1)


print(count(25_000))
sys.setrecursionlimit(500)


def mutual_a(n):
    return mutual_b(n)


def mutual_b(n):
    return mutual_a(n)


mutual_a(1)
