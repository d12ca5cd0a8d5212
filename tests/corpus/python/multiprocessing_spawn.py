import multiprocessing as mp
import sys
from concurrent.futures import ProcessPoolExecutor

print("module level in", __name__, __file__, flush=True)


class Task:
    def __init__(self, value):
        self.value = value


def run(task):
    return task.value + 1, __name__, type(task).__module__, sys.argv


def crash():
    raise OSError("spawned child failed")


if __name__ == "__main__":
    context = mp.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print(pool.submit(run, Task(1)).result())
    child = context.Process(target=crash)
    child.start()
    child.join()
    print(child.exitcode)
    sys.exit(2)
