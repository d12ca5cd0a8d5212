import sys

try:
    sys.exit(None)
except SystemExit as stop:
    print(repr(stop), stop.code)
    exit()
