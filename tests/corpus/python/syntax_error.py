print("never printed")


def broken(items:
    for item in items
        print(item)
