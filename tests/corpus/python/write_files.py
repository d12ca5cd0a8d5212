import json
import os
import tempfile
from pathlib import Path

Path("out").mkdir()
Path("out/result.json").write_text(json.dumps({"ok": [1, 2, None]}))
print(json.loads(Path("/code/out/result.json").read_text()))
with open("data.bin", "wb") as stream:
    stream.write(bytes(range(10)))
print(Path("data.bin").read_bytes(), os.stat("data.bin").st_size, oct(os.stat("data.bin").st_mode), oct(os.umask(0o22)))
with tempfile.NamedTemporaryFile("w+", suffix=".txt") as temporary:
    temporary.write("scratch")
    temporary.seek(0)
    print(temporary.read(), tempfile.gettempdir(), os.path.dirname(temporary.name))
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "x").touch()
    print(os.listdir(folder))
os.chdir("/tmp")
print(os.getcwd(), os.listdir("."))
os.rename("/code/data.bin", "/code/out/moved.bin")
print(sorted(os.listdir("/code")), sorted(os.listdir("/code/out")))
Path("/code/main.py").write_text("changed under its feet\n")
for path in ("/readonly", "/usr/x", "/etc/passwd", "/opt/x"):
    try:
        open(path, "w")
    except OSError as error:
        print(error)
raise RuntimeError("the traceback shows the file as it is now")
