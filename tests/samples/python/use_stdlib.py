"""The standard library's parts that need a shared library, a table or a program."""

import bz2
import ctypes
import curses
import datetime
import dbm
import getpass
import hashlib
import lzma
import multiprocessing
import os
import readline
import sqlite3
import ssl
import subprocess
import uuid
import zlib
import zoneinfo

assert all((bz2, ctypes, curses, dbm, lzma, readline, uuid, zlib))
database = sqlite3.connect(":memory:")
database.execute("create virtual table pages using fts5(text)")
database.execute("insert into pages values ('a red fox')")
print(database.execute("select text from pages where pages match 'fox'").fetchall())
print(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("America/New_York")).utcoffset())
trusted = ssl.create_default_context(cafile="/etc/ssl/certs/ca-certificates.crt").get_ca_certs()
print(hashlib.sha256(b"").hexdigest()[:8], len(trusted) > 50)
print(subprocess.run("printf 'a\\nb\\n' | grep -c b", shell=True, capture_output=True, text=True).stdout.strip())
print(getpass.getuser(), os.getuid(), os.path.expanduser("~"))
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(abs, [-1, -2]))
