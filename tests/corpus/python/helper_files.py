import os
import pathlib
import sys

import helper
from package import inner
from package.deep.leaf import VALUE

print(helper.double(21), helper.__file__, helper.__name__)
print(inner.NAME, inner.__package__, VALUE, sys.modules["package"].__path__)
print(pathlib.Path("data/table.csv").read_text().splitlines())
print(open(os.path.join(os.path.dirname(__file__), "data", "note.txt"), encoding="utf-8").read())
print(sorted(str(path) for path in pathlib.Path(".").rglob("*")))
if __name__ == "__main__":
    import main

    print(main.__name__, main is sys.modules["__main__"])
print(sorted(os.listdir("/code")), os.access("/code", os.W_OK))
