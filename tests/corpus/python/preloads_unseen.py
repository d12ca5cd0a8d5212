"""Nothing is loaded, started or changed before the program asks for it."""
import sys

before = set(sys.modules)
HEAVY = "numpy pandas flask fastapi pydantic requests pytest json asyncio decimal random logging".split()
print([name for name in HEAVY if name in before])

import gc
import signal
import threading
import warnings

print(gc.isenabled(), gc.get_threshold(), len(gc.callbacks), gc.get_debug())
print(threading.active_count(), threading.main_thread() is threading.current_thread())
print(threading.main_thread().name, threading.main_thread().daemon)
print(threading.main_thread().native_id == __import__("os").getpid())
print(warnings.filters)
for number in sorted(signal.valid_signals()):
    handler = signal.getsignal(number)
    if handler is not signal.SIG_DFL:
        print(int(number), handler if not callable(handler) else handler.__name__)
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1), signal.getitimer(signal.ITIMER_REAL))

import logging

print(logging.root.handlers, logging.root.level)

import decimal
import locale

print(decimal.getcontext())
print(locale.setlocale(locale.LC_ALL))
print(sorted(name for name in sys.modules if name.startswith(("codeforge", "_codeforge", "worker"))))
