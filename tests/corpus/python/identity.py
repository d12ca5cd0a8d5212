"""What the program is, as it sees it."""
import __main__
import os
import sys

print(__name__, __file__, __package__, __spec__, __doc__)
print(list(globals())[:9])
print(type(__loader__).__name__, __loader__.name, __loader__.path)
print(sys.modules["__main__"] is __main__, __main__.__dict__ is globals(), __main__)
print(__builtins__ is __import__("builtins"), __cached__, __annotations__)
print(os.getcwd(), sys.argv, sys.path)
print(sys.executable, sys.prefix, sys.base_prefix, sys.platform)
print(sys._getframe().f_back, sys._getframe().f_code.co_filename, sys._getframe().f_code.co_name)
print(sys.gettrace(), sys.getprofile(), sys.excepthook is sys.__excepthook__)
print(sys.displayhook is sys.__displayhook__, sys.stdout is sys.__stdout__, hasattr(sys, "ps1"))
print(sys.unraisablehook is sys.__unraisablehook__, sys.breakpointhook is sys.__breakpointhook__)
print(sys.flags)
print(sys.warnoptions, sys._xoptions, sys.dont_write_bytecode, sys.getrecursionlimit())
print([finder.__name__ if isinstance(finder, type) else type(finder).__name__ for finder in sys.meta_path])
print(sys.path_hooks[0].__name__, len(sys.path_hooks))
