import collections


class Thing:
    colour = "red"


try:
    Thing().color
except AttributeError as error:
    print(error)
try:
    collections.Countr
except AttributeError as error:
    print(error)
counter = 1
print(conter)
