import sys

print(len(sys.argv))
for arg in sys.argv:
    print(repr(arg))
print(sys.orig_argv)
