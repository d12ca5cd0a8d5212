"""Files beside the program come before the standard library and the installed packages."""
import random
import requests
import statistics_helper
from decimal import Decimal

print(random.__file__, random.choice([1, 2]))
print(requests.__file__, requests.get("x"))
print(Decimal, statistics_helper.mean([1, 2]))
