import multiprocessing as mp
import os
import sys
import time
from multiprocessing import shared_memory


class Point:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Point({self.x})"


def square(point):
    return Point(point.x ** 2)


def put(queue, value):
    queue.put((value, mp.current_process().name, mp.parent_process() is not None))


def fail(code):
    if code is None:
        raise RuntimeError("child failed")
    if code < 0:
        os.kill(os.getpid(), -code)
        time.sleep(60)
    sys.exit(code)


if __name__ == "__main__":
    print(mp.get_start_method(), mp.current_process().name, mp.parent_process(), mp.active_children())
    with mp.Pool(2) as pool:
        print(pool.map(square, [Point(n) for n in range(6)]))
        print(pool.apply(sum, ([1, 2, 3],)))
        try:
            pool.apply(fail, (None,))
        except RuntimeError as error:
            print("from pool:", error, type(error.__cause__).__name__)
    queue = mp.Queue()
    child = mp.Process(target=put, args=(queue, 41))
    child.start()
    print(queue.get(), child.join(), child.exitcode, child.name)
    for code in (0, 3, -9, -15, None):
        child = mp.Process(target=fail, args=(code,))
        child.start()
        child.join()
        print(code, child.exitcode)
    with mp.Manager() as manager:
        numbers = manager.list([3, 1, 2])
        numbers.sort()
        print(list(numbers))
    value = mp.Value("i", 0)
    with value.get_lock():
        value.value += 5
    memory = shared_memory.SharedMemory(create=True, size=16)
    memory.buf[:3] = b"abc"
    print(value.value, bytes(memory.buf[:3]))
    memory.close()
    memory.unlink()
    mp.Process(target=print, args=("joined at exit",)).start()
