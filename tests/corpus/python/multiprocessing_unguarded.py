"""The classic mistake: spawn without a __main__ guard."""
import multiprocessing

child = multiprocessing.get_context("spawn").Process(target=print, args=("never",))
child.start()
child.join()
print("exit code", child.exitcode)
