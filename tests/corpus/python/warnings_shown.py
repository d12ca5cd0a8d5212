import warnings


def old():
    warnings.warn("old() goes away", DeprecationWarning, stacklevel=2)


class Custom(UserWarning):
    pass


old()
old()
for _ in range(3):
    warnings.warn("once per place")
warnings.warn(Custom("custom"))
warnings.warn("ignored", ImportWarning)
value = 5
print(value is 5, "\d")
assert (value, "always true")
warnings.simplefilter("error")
warnings.warn_explicit("explicit", SyntaxWarning, "elsewhere.py", 12)
