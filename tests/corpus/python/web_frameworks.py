import asyncio
import json
import socket

import fastapi
import flask
import pydantic
import requests

app = flask.Flask(__name__)
print(app.name, app.root_path, app.import_name)


@app.route("/add/<int:first>/<int:second>")
def add(first, second):
    return flask.jsonify(sum=first + second, agent=flask.request.headers.get("X-Who"))


@app.route("/fail")
def fail():
    return 1 / 0


with app.test_client() as client:
    print(client.get("/add/2/3", headers={"X-Who": "me"}).json, client.get("/nothing").status_code)


class User(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)


api = fastapi.FastAPI(title="t")


@api.post("/users")
async def create(user: User) -> dict[str, str]:
    return {"hello": user.name}


async def call(body):
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/users", "query_string": b"", "http_version": "1.1",
             "headers": [(b"content-type", b"application/json")], "app": api, "scheme": "http", "root_path": "",
             "server": ("test", 80), "client": ("test", 1), "asgi": {"version": "3.0"}}
    await api(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


print(asyncio.run(call({"name": "Ada", "age": 36})))
print(asyncio.run(call({"name": "Ada", "age": -1})))
try:
    requests.get("http://127.0.0.1:9/", timeout=2)
except requests.ConnectionError as error:
    print(type(error).__name__)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
except OSError as error:
    print(error)
User(name=["x"], age=-1)
