"""Packages that real JavaScript and TypeScript programs use work, too."""

from __future__ import annotations

import pytest

from codeforge import BlockingCodeExecutor
from hostile.conftest import Attack

NODE = {
    "workers": """
        const { Worker } = require("worker_threads");
        const source = `const { parentPort, workerData } = require("worker_threads");
          parentPort.postMessage(workerData * 2);`;
        const work = n => new Promise((resolve, reject) =>
          new Worker(source, { eval: true, workerData: n }).on("message", resolve).on("error", reject));
        Promise.all([1, 2, 3].map(work)).then(all => console.log(JSON.stringify([all.join() === "2,4,6"])));
    """,
    "children": """
        const { execFileSync, spawn, fork, spawnSync } = require("child_process");
        const fs = require("fs");
        fs.writeFileSync("child.js", "process.on('message', n => { process.send(n + 1); process.exit() })");
        const held = [execFileSync("cat", { input: "hi" }).toString() === "hi"];
        held.push(spawnSync("sh", ["-c", "exit 3"]).status === 3);
        const child = fork("./child.js");
        child.on("message", n => held.push(n === 42));
        child.on("exit", () => {
          const slow = spawn("sleep", ["60"]);
          slow.on("exit", (code, signal) => {
            held.push(signal === "SIGTERM");
            console.log(JSON.stringify(held));
          });
          slow.kill();
        });
        child.send(41);
    """,
    "files": """
        const fs = require("fs"), path = require("path"), os = require("os");
        const zlib = require("zlib"), crypto = require("crypto");
        const { pipeline } = require("stream/promises");
        const run = async () => {
          const folder = fs.mkdtempSync(path.join(os.tmpdir(), "x-"));
          const file = path.join(folder, "a"), data = crypto.randomBytes(300_000);
          await fs.promises.writeFile(file, data);
          await fs.promises.copyFile(file, file + "2");
          fs.cpSync(folder, folder + "-copy", { recursive: true });
          await pipeline(fs.createReadStream(file), zlib.createGzip(), fs.createWriteStream(file + ".gz"));
          const back = zlib.gunzipSync(fs.readFileSync(file + ".gz"));
          const watcher = fs.watch(folder), changed = new Promise(resolve => watcher.once("change", resolve));
          fs.writeFileSync(file + "3", "x");
          await changed; watcher.close();
          const { privateKey, publicKey } = crypto.generateKeyPairSync("ed25519");
          const signed = crypto.verify(null, data, publicKey, crypto.sign(null, data, privateKey));
          const key = await new Promise(resolve => crypto.scrypt("p", "s", 32, (e, k) => resolve(k)));
          const copied = fs.readFileSync(folder + "-copy/a2").equals(data);
          console.log(JSON.stringify([back.equals(data), copied, signed, key.length === 32,
            os.userInfo().username === "runner", os.hostname() === "sandbox", os.cpus().length > 0]));
        };
        run();
    """,
    "http": """
        const http = require("http"), dgram = require("dgram"), net = require("net");
        const server = http.createServer((request, response) => response.end(request.url));
        server.listen(0, "127.0.0.1", async () => {
          const text = await (await fetch(`http://127.0.0.1:${server.address().port}/hello`)).text();
          server.close(); server.closeAllConnections();
          const pipe = net.createServer(socket => socket.end("pipe")).listen("/tmp/pipe", () => {
            net.connect("/tmp/pipe").on("data", data => {
              pipe.close();
              const udp = dgram.createSocket("udp4").on("message", message => {
                udp.close();
                const held = [text === "/hello", String(data) === "pipe", String(message) === "udp"];
                console.log(JSON.stringify(held));
              }).bind(0, "127.0.0.1", () => udp.send("udp", udp.address().port, "127.0.0.1"));
            });
          });
        });
    """,
    "packages": """
        const express = require("express"), axios = require("axios"), _ = require("lodash");
        const app = express();
        const sum = text => _.sum(text.split(",").map(Number));
        app.get("/sum", ({ query }, response) => response.json({ sum: sum(query.n) }));
        const server = app.listen(0, "127.0.0.1", async () => {
          const place = `http://127.0.0.1:${server.address().port}/sum`;
          const { data } = await axios.get(place, { params: { n: "1,2,3" } });
          server.close();
          console.log(JSON.stringify([data.sum === 6]));
        });
    """,
}


@pytest.mark.parametrize("what", NODE)
def test_node(run: Attack, what: str) -> None:
    held = run(NODE[what], "javascript")
    assert held == [True] * len(held)
    assert held


@pytest.mark.parametrize("what", ["workers", "children", "files", "http"])
def test_node_modules_from_typescript(run: Attack, what: str) -> None:
    held = run(NODE[what], "typescript", type_check=False)
    assert held == [True] * len(held)


def test_typescript_with_the_types_of_node(run: Attack) -> None:
    code = """
        import { createHash } from "crypto";
        import { readFileSync, writeFileSync } from "fs";
        import { EventEmitter } from "events";
        import * as path from "path";
        interface Item { readonly name: string; size?: number }
        const items: Item[] = [{ name: "a", size: 1 }, { name: "b" }];
        const total: number = items.reduce((sum, { size = 0 }) => sum + size, 0);
        const file: string = path.join("/tmp", "x");
        writeFileSync(file, Buffer.from("hello"));
        const hash: string = createHash("sha256").update(readFileSync(file)).digest("hex");
        const emitter = new EventEmitter();
        const hashed = hash.startsWith("2cf24dba");
        emitter.once("done", (n: number) => console.log(JSON.stringify([n === 1, hashed])));
        emitter.emit("done", total);
    """
    assert run(code, "typescript") == [True, True]


@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_jest(executor: BlockingCodeExecutor, language: str) -> None:
    if language == "javascript":
        code, load = "exports.double = n => 2 * n;", 'const { double } = require("./main");'
    else:
        code, load = "export const double = (n: number): number => 2 * n;", 'import { double } from "./main";'
    tests = (
        load
        + """
        const { execFileSync } = require("child_process");
        test("doubles", () => expect(double(21)).toBe(42));
        test("waits", async () => { await new Promise(resolve => setTimeout(resolve, 10)); });
        test("starts a process", () => expect(execFileSync("echo", ["hi"]).toString()).toBe("hi\\n"));
    """
    )
    result = executor.execute_with_tests(code, tests, language, timeout=90, cpu_quota=100_000)
    assert result.success, result.stdout + result.stderr
    assert [test.outcome for test in result.tests] == ["passed"] * 3
