try:
    import absent.module
except ModuleNotFoundError as error:
    print(error, error.name)
try:
    from helper import nothing
except ImportError as error:
    print(error)
try:
    import pip
except ImportError as error:
    print(error)
import package.broken
