import sys


def hook(kind, value, trace):
    print("hook:", kind.__name__, value, trace.tb_lineno, trace.tb_frame.f_code.co_name, trace.tb_frame.f_back)
    raise OSError("the hook fails too")


def audit(event, args):
    if event == "open" and args[0] == "/absent":
        print("audit", args)


sys.excepthook = hook
sys.addaudithook(audit)
try:
    open("/absent")
except OSError as error:
    print(error)
sys.unraisablehook = lambda unraisable: print("unraisable:", unraisable.exc_value, unraisable.err_msg)


class Broken:
    def __del__(self):
        raise RuntimeError("in del")


Broken()
sys.displayhook = print
exec(compile("1 + 1", "<shell>", "single"))
import runpy

runpy.run_path("other.py", run_name="__main__")
