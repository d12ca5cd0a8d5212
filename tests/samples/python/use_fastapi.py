"""Drive an application through ASGI: there is no server and no client in the image."""

import asyncio
import json

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

app = FastAPI(title="shop")


class Order(BaseModel):
    item: str
    count: int = Field(ge=1)


def currency() -> str:
    return "EUR"


@app.post("/orders", status_code=201)
async def order(order: Order, unit: str = Depends(currency)) -> dict[str, str]:
    return {"receipt": f"{order.count} x {order.item}", "unit": unit}


@app.get("/items/{number}")
def item(number: int) -> dict[str, int]:  # not async: runs in a thread
    return {"number": number}


async def call(method, path, body=None):
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(part.get("body", b"") for part in sent[1:]))


async def main():
    print(*await call("POST", "/orders", {"item": "tea", "count": 2}))
    status, problem = await call("POST", "/orders", {"item": "tea", "count": 0})
    print(status, problem["detail"][0]["loc"])
    print(*await call("GET", "/items/7"))
    print(sorted(app.openapi()["paths"]))


asyncio.run(main())
