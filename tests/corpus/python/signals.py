import os
import signal
import threading
import time


def handler(number, frame):
    print("handler", signal.Signals(number).name, frame.f_code.co_name, threading.current_thread().name)


for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD):
    signal.signal(number, handler)
os.kill(os.getpid(), signal.SIGTERM)
signal.raise_signal(signal.SIGUSR1)
signal.alarm(1)
signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.2)
os.system("true")
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigwait({signal.SIGUSR2}))
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
os.kill(os.getpid(), signal.SIGINT)
time.sleep(5)
