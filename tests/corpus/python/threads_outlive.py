import atexit
import threading
import time

atexit.register(print, "atexit")


def work(name, delay):
    time.sleep(delay)
    print(name, threading.current_thread().name, threading.main_thread().is_alive())


threading.Thread(target=work, args=("late", 0.6)).start()
threading.Thread(target=work, args=("early", 0.3)).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
timer = threading.Timer(0.9, work, ("timer", 0))
timer.start()
print([thread.name for thread in threading.enumerate()], timer.name)
raise KeyError("main fails while threads run")
