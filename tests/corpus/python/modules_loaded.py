"""The modules there at the start, in the order they were loaded."""
import sys

print(list(sys.modules))
