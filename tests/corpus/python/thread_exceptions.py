import sys
import threading
from concurrent.futures import ThreadPoolExecutor


def boom(value):
    raise ValueError(f"in thread {value}")


def leave():
    sys.exit("not printed, ends the thread only")


for target, args in ((boom, (1,)), (leave, ()), (boom, (2,))):
    thread = threading.Thread(target=target, args=args)
    thread.start()
    thread.join()

threading.excepthook = lambda args: print("hook:", args.exc_type.__name__, args.thread.name)
thread = threading.Thread(target=boom, args=(3,), name="named")
thread.start()
thread.join()
with ThreadPoolExecutor(2) as pool:
    print(pool.submit(lambda: threading.current_thread().name).result())
    print(list(pool.map(abs, [-1, -2])))
    pool.submit(boom, 4).result()
