def first():
    if True:
        return 1
      return 2
