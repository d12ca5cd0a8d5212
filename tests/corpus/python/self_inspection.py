import inspect
import linecache
import pickle
import typing
from dataclasses import dataclass, field


@dataclass(order=True)
class Item:
    """An item."""

    name: str
    tags: list["str"] = field(default_factory=list)


def decorated(function: typing.Callable) -> typing.Callable:
    # a comment
    return function


print(inspect.getsource(decorated))
print(inspect.getsource(Item), inspect.getsourcefile(Item), inspect.getdoc(Item))
print(repr(linecache.getline(__file__, 1)), len(inspect.getsourcelines(inspect.getmodule(Item))[0]))
print(Item("a", ["b"]), Item.__module__, typing.get_type_hints(Item))
print(pickle.loads(pickle.dumps(Item("p"))), pickle.dumps(Item))
print(inspect.signature(Item), inspect.currentframe().f_lineno, len(inspect.stack()))
print(inspect.stack()[0].code_context, inspect.stack()[-1].filename)
