"""Talk to a server in the same sandbox; nothing else can be reached."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Set-Cookie", "seen=yes")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
with requests.Session() as session:
    answer = session.post(f"http://127.0.0.1:{server.server_port}/", json={"a": [1, 2]}, timeout=5)
    print(answer.status_code, answer.json(), session.cookies["seen"])
try:
    requests.get("http://192.0.2.1/", timeout=2)
except requests.ConnectionError:
    print("no network")
