import asyncio


def fail(number):
    raise ValueError(number)


async def later(number):
    await asyncio.sleep(0.01 * number)
    fail(number)


async def main():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(later(1))
            group.create_task(asyncio.sleep(60))
    except* ValueError as caught:
        print(repr(caught), caught.exceptions)


asyncio.run(main())
try:
    raise ExceptionGroup("outer", [TypeError("t"), ExceptionGroup("inner", [OSError(2, "gone"), ValueError(1)])])
except* TypeError as part:
    print("handled", part.exceptions)
