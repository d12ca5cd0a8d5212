import sys


class AppError(Exception):
    pass


class Unprintable(Exception):
    def __str__(self):
        raise TypeError("no text")


def low():
    raise ConnectionError(111, "refused")


def mid():
    try:
        low()
    except OSError as error:
        raise AppError("mid level") from error


def high():
    try:
        mid()
    except AppError:
        {}["missing"]


def hidden():
    try:
        high()
    except KeyError:
        raise AppError("context hidden") from None


import traceback

for function in (hidden, high):
    try:
        function()
    except Exception as error:
        error.add_note("a note\nover two lines")
        traceback.print_exception(error)
try:
    raise Unprintable
except Unprintable:
    traceback.print_exc(file=sys.stdout)
try:
    high()
finally:
    raise Unprintable from ValueError("explicit\nmulti-line message")
