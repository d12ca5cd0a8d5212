"""Variables that only an interpreter that is starting reads."""
import sys
import warnings

print({"alpha", "beta", "gamma", "delta", "epsilon"})
print(sys.flags.hash_randomization, sys.flags.optimize, sys.warnoptions, sys.path)
assert False, "asserts are off"
print(sys.stdout.encoding, sys.stdout.errors)
print("caf\xe9 \u2603")
warnings.warn("turned into an error", DeprecationWarning)
