"""Multi-line expressions, wide characters and the carets under them."""


def compute(
    first,
    second,
):
    return (
        first["values"][0]["inner"] +
        second.attribute
        .missing
    )


class Holder:
    attribute = None


данные = {"values": [{"inner": 1}]}
try:
    ширина = "漢字", данные["values"][0]["нет"] + 1
except KeyError as error:
    import traceback

    traceback.print_exc()
try:
    exec("def f():\n  return 1 / 0\nf()")
except ZeroDivisionError:
    traceback.print_exc()
print("".join(traceback.format_stack()), end="")
(lambda first, second: [compute(first, item) for item in second])(
    данные,
    [Holder(), Holder()],
)
