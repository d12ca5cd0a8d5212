import base64, bisect, calendar, collections, contextlib, contextvars, copy, csv, datetime, decimal, difflib, enum
import fractions, functools, getpass, hashlib, heapq, io, itertools, json, math, operator, pprint, pwd, random, re
import sqlite3, ssl, statistics, string, struct, textwrap, typing, uuid, xml.etree.ElementTree as ET, zipfile, zlib, zoneinfo
import os, sys

random.seed(42)
print(random.random(), random.sample(range(100), 5), random.gauss(0, 1))
print(decimal.Decimal(1) / 7, fractions.Fraction(3, 9), math.fsum([0.1] * 10), statistics.stdev([1, 2, 3, 4]))
print(hashlib.md5(b"x").hexdigest(), zlib.crc32(b"x"), uuid.uuid5(uuid.NAMESPACE_DNS, "a.b"), base64.b85encode(b"abc"))
print(datetime.datetime(2024, 2, 29, tzinfo=zoneinfo.ZoneInfo("Europe/Kyiv")).isoformat(), calendar.month(2024, 2))
database = sqlite3.connect(":memory:")
database.execute("create table t (a, b)")
database.executemany("insert into t values (?, ?)", [(1, "x"), (2, "y")])
print(database.execute("select sum(a), group_concat(b) from t").fetchall())
print(getpass.getuser(), os.getgid(), os.getgroups(), os.path.expanduser("~"), pwd.getpwuid(os.getuid())[:2], pwd.getpwuid(os.getuid())[3:])
print(re.sub(r"(?P<x>\d+)", lambda m: str(int(m["x"]) * 2), "a1b22"), textwrap.fill("word " * 20, 30))
pprint.pprint({"b": list(range(30)), "a": {"nested": "x" * 60, "other": "y" * 20}})
print(ET.tostring(ET.fromstring("<a><b c='1'>t</b></a>")), collections.Counter("mississippi").most_common(2))
print(list(itertools.pairwise("abc")), heapq.nsmallest(2, [3, 1, 2]), functools.reduce(operator.mul, range(1, 6)))
variable = contextvars.ContextVar("variable", default="unset")
print(variable.get(), sorted(each.name for each in contextvars.copy_context()), ssl.HAS_TLSv1_3, sys.int_info, sys.get_int_max_str_digits())
print(1e22, 0.1 + 0.2, float("nan"), -0.0, 2 ** 100, hash(12345), hash(1.5), 7 // -2, divmod(-7, 2), round(2.5))
help(math.gcd)
int("9" * 5000)
