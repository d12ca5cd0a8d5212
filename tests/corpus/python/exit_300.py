import sys

try:
    sys.exit(300)
finally:
    print("finally")
