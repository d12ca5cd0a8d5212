def work():
    raise KeyboardInterrupt("by hand")


try:
    work()
finally:
    print("cleanup")
