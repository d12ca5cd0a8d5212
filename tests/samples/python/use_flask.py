"""A small application: routes, templates, errors."""

from flask import Flask, abort, jsonify, render_template_string, request

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name):
    return render_template_string("Hello, {{ name }}!", name=name)


@app.post("/sum")
def total():
    numbers = request.get_json()
    if not numbers:
        abort(422)
    return jsonify(sum=sum(numbers))


client = app.test_client()
print(client.get("/hello/<ann>").text)
print(client.post("/sum", json=[1, 2, 3]).json)
print(client.post("/sum", json=[]).status_code, client.get("/none").status_code)
