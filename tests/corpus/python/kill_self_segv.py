import ctypes
import faulthandler

print(faulthandler.is_enabled(), flush=True)
faulthandler.enable()
faulthandler.disable()
ctypes.string_at(0)
