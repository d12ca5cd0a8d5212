class Reason:
    def __str__(self):
        return "a reason"


try:
    1 / 0
except ZeroDivisionError:
    raise SystemExit((Reason().__str__(), 2.5))
