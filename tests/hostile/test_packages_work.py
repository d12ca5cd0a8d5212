"""Packages that real programs use work behind all that refuses attacks."""

from __future__ import annotations

import textwrap

import pytest

from codeforge import BlockingCodeExecutor
from hostile.conftest import AMPLE, Attack, answer

PYTHON = {
    "threads": """
        import json, queue, threading
        from concurrent.futures import ThreadPoolExecutor
        todo, done, lock = queue.Queue(), [], threading.Lock()
        def work():
            while (item := todo.get()) is not None:
                with lock:
                    done.append(item * item)
        workers = [threading.Thread(target=work) for _ in range(8)]
        [worker.start() for worker in workers]
        [todo.put(item) for item in range(100)]
        [todo.put(None) for _ in workers]
        [worker.join() for worker in workers]
        with ThreadPoolExecutor(4) as pool:
            total = sum(pool.map(lambda n: n + 1, range(50)))
        print(json.dumps([sum(done) == 328350, total == 1275]))
    """,
    "multiprocessing": """
        import json, multiprocessing as mp
        from multiprocessing.shared_memory import SharedMemory
        def square(n):
            return n * n
        def fill(name, queue, lock, value):
            shared = SharedMemory(name)
            with lock, value.get_lock():
                shared.buf[0] += 1
                value.value += 1
            shared.close()
            queue.put("done")
        if __name__ == "__main__":
            answers = []
            for method in ("fork", "spawn", "forkserver"):
                context = mp.get_context(method)
                with context.Pool(2) as pool:
                    answers.append(pool.map(square, range(10)) == [n * n for n in range(10)])
            shared = SharedMemory(create=True, size=4096)
            queue, lock, value = mp.Queue(), mp.Lock(), mp.Value("i", 0)
            children = [mp.Process(target=fill, args=(shared.name, queue, lock, value)) for _ in range(3)]
            [child.start() for child in children]
            answers += [queue.get(timeout=20) == "done" for _ in children]
            [child.join() for child in children]
            answers += [shared.buf[0] == 3, value.value == 3]
            shared.close(); shared.unlink()
            with mp.Manager() as manager:
                table = manager.dict(a=1)
                answers.append(dict(table) == {"a": 1})
            print(json.dumps(answers))
    """,
    "subprocess": """
        import json, os, pty, signal, subprocess, sys
        shout = ["sh", "-c", "cat | tr a-z A-Z; exit 3"]
        echo = subprocess.run(shout, input="hello", capture_output=True, text=True)
        slow = subprocess.Popen(["sleep", "60"], start_new_session=True)
        os.killpg(slow.pid, signal.SIGTERM)
        controller, terminal = pty.openpty()
        subprocess.run([sys.executable, "-c", "import sys; print(sys.stdout.isatty())"], stdout=terminal)
        print(json.dumps([echo.stdout == "HELLO", echo.returncode == 3, slow.wait() == -15,
                          b"True" in os.read(controller, 100)]))
    """,
    "asyncio": """
        import asyncio, json
        async def serve(reader, writer):
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
        async def ask(opened):
            reader, writer = await opened
            writer.write(b"hello\\n")
            answer = await reader.readline()
            writer.close()
            return answer == b"HELLO\\n"
        async def main():
            tcp = await asyncio.start_server(serve, "127.0.0.1", 0)
            unix = await asyncio.start_unix_server(serve, "/tmp/socket")
            port = tcp.sockets[0].getsockname()[1]
            child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
            out, _ = await child.communicate(b"piped")
            thread = await asyncio.to_thread(sum, [1, 2, 3])
            print(json.dumps([await ask(asyncio.open_connection("127.0.0.1", port)),
                              await ask(asyncio.open_unix_connection("/tmp/socket")),
                              out == b"piped", thread == 6]))
        asyncio.run(main())
    """,
    "sqlite": """
        import json, sqlite3, threading
        one = sqlite3.connect("/tmp/data.db")
        mode = one.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        one.execute("CREATE TABLE t (n INTEGER)")
        with one:
            one.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
        def write():
            other = sqlite3.connect("/tmp/data.db", timeout=10)
            with other:
                other.execute("INSERT INTO t VALUES (1000)")
            other.close()
        thread = threading.Thread(target=write)
        thread.start(); thread.join()
        one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = one.execute("SELECT count(*), sum(n) FROM t").fetchone()
        print(json.dumps([mode == "wal", rows == (1001, 500500)]))
    """,
    "numpy": """
        import json, threading
        import numpy as np
        random = np.random.default_rng(1)
        a = random.normal(size=(200, 200))
        u, s, v = np.linalg.svd(a)
        answers = [np.allclose(u * s @ v, a), np.allclose(np.linalg.inv(a) @ a, np.eye(200), atol=1e-6)]
        out = [None] * 4
        def multiply(k):
            out[k] = (a @ a).sum()
        threads = [threading.Thread(target=multiply, args=(k,)) for k in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
        mapped = np.memmap("/tmp/array", dtype="f8", mode="w+", shape=(1000,))
        mapped[:] = 2; mapped.flush()
        np.savez_compressed("/tmp/a.npz", a=a)
        answers += [len(set(out)) == 1, np.fromfile("/tmp/array").sum() == 2000]
        answers += [np.array_equal(np.load("/tmp/a.npz")["a"], a)]
        print(json.dumps([bool(x) for x in answers]))
    """,
    "pandas": """
        import json
        import pandas as pd
        days = pd.date_range("2024-01-01", periods=4)
        frame = pd.DataFrame({"kind": list("abab"), "n": [1, 2, 3, 4], "day": days})
        frame.to_csv("/tmp/f.csv", index=False)
        read = pd.read_csv("/tmp/f.csv", parse_dates=["day"])
        sums = read.groupby("kind")["n"].sum()
        zoned = read.set_index("day").tz_localize("UTC").tz_convert("Europe/Rome")
        print(json.dumps([read["n"].tolist() == [1, 2, 3, 4], json.loads(sums.to_json()) == {"a": 4, "b": 6},
                          str(zoned.index[0]) == "2024-01-01 01:00:00+01:00"]))
    """,
    "web": """
        import json, threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        import flask, requests
        from werkzeug.serving import make_server
        app = flask.Flask("app")
        app.route("/hello")(lambda: {"hello": flask.request.args["name"]})
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.port}/hello"
        answer = requests.get(place, params={"name": "me"}, timeout=20).json()
        server.shutdown()
        from fastapi import FastAPI
        from pydantic import BaseModel
        class Item(BaseModel):
            n: int
        api = FastAPI()
        api.post("/item")(lambda item: item)
        routes = [route.path for route in api.routes]
        print(json.dumps([answer == {"hello": "me"}, Item(n="3").n == 3, "/item" in routes]))
    """,
    "standard library": """
        import fcntl, json, lzma, mmap, os, select, shutil, socket, ssl, tempfile, uuid, zipfile
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/a"
            open(path, "wb").write(b"x" * 100_000)
            shutil.copyfile(path, f"{folder}/b")
            shutil.copytree(folder, f"{folder}-copy")
            archive = shutil.make_archive("/tmp/z", "zip", folder)
            copied = os.path.getsize(f"{folder}/b") == 100_000
            with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[:3] = b"abc"
                fcntl.flock(file, fcntl.LOCK_EX)
                os.fsync(file)
        one, other = socket.socketpair()
        poll = select.epoll(); poll.register(other, select.EPOLLIN)
        one.sendall(b"x")
        print(json.dumps([copied, zipfile.is_zipfile(archive), bool(poll.poll(5)),
                          bool(ssl.create_default_context()),
                          lzma.decompress(lzma.compress(b"x")) == b"x", socket.gethostname() == "sandbox",
                          uuid.uuid1() != uuid.uuid1(), bool(os.cpu_count())]))
    """,
    "who am I": """
        import getpass, json, os, pathlib, pwd
        print(json.dumps([getpass.getuser() == "runner", pwd.getpwuid(os.getuid()).pw_dir == "/tmp",
                          str(pathlib.Path.home()) == "/tmp", os.path.expanduser("~runner") == "/tmp",
                          pathlib.Path("/code").owner() == "runner",
                          pathlib.Path("/code").group() == "runner"]))
    """,
}


@pytest.mark.core
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_localhost_and_the_sandboxs_own_name_resolve(run: Attack, language: str) -> None:
    reported = run(
        {
            "python": "report([socket.gethostbyname(name) for name in ('localhost', socket.gethostname())])",
            "javascript": """
                const { lookup } = require("dns").promises, names = ["localhost", require("os").hostname()];
                Promise.all(names.map(name => lookup(name, 4)))
                  .then(all => console.log(JSON.stringify(all.map(({ address }) => address))));
            """,
        }[language],
        language,
    )
    assert [address.rpartition(".")[0] for address in reported] == ["127.0.0"] * 2


@pytest.mark.core
@pytest.mark.parametrize("what", PYTHON)
def test_python(executor: BlockingCodeExecutor, what: str) -> None:
    held = answer(executor.execute(textwrap.dedent(PYTHON[what]), timeout=90, cpu_quota=100_000))
    assert held == [True] * len(held)
    assert held


def test_python_in_a_reused_sandbox(executor: BlockingCodeExecutor) -> None:
    requests = [{"code": textwrap.dedent(code), **AMPLE} for code in PYTHON.values()]
    for what, result in zip(
        PYTHON,
        executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=len(requests)),
        strict=True,
    ):
        assert all(answer(result)), what


def test_pytest_with_its_plugins_and_fixtures(executor: BlockingCodeExecutor) -> None:
    result = executor.execute_with_tests(
        "def double(n):\n    return 2 * n\n",
        """
import subprocess, sys, pytest
from main import double
@pytest.mark.parametrize("n", range(5))
def test_double(n):
    assert double(n) == n + n
def test_places(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("X", "1")
    (tmp_path / "file").write_text("x")
    subprocess.run([sys.executable, "-c", "print('child')"], check=True)
    assert capfd.readouterr().out == "child\\n"
""",
        timeout=90,
    )
    assert result.success, result.stdout
    assert [test.outcome for test in result.tests] == ["passed"] * 6
