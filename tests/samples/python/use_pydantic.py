"""Validate, convert, refuse, and describe."""

import json

from pydantic import BaseModel, Field, ValidationError


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)
    tags: list[str] = []


print(Item.model_validate_json('{"name": "pen", "price": "1.5"}').model_dump())
try:
    Item(name="pen", price=-1)
except ValidationError as error:
    print(error.errors()[0]["loc"], error.errors()[0]["type"])
print(json.dumps(Item.model_json_schema()["required"]))
