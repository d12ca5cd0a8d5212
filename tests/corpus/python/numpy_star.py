from numpy import *

print(arange(3).sum(), f2py.__name__)
