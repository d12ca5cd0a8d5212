import asyncio
import sys


async def worker(name, queue, results):
    while True:
        item = await queue.get()
        await asyncio.sleep(0.001)
        results.append((name, item))
        queue.task_done()


async def failing():
    raise ValueError("nobody awaits this")


async def produce():
    for number in range(3):
        yield number
        await asyncio.sleep(0)


async def main():
    print(asyncio.current_task().get_name(), type(asyncio.get_running_loop()).__name__)
    queue, results = asyncio.Queue(), []
    workers = [asyncio.create_task(worker(n, queue, results)) for n in range(2)]
    for number in range(6):
        queue.put_nowait(number)
    await queue.join()
    print(sorted(item for _, item in results), [task.get_name() for task in workers])
    [task.cancel() for task in workers]
    print(await asyncio.gather(*workers, return_exceptions=True))
    print([n async for n in produce()])
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    print(await process.communicate(b"async child"), process.returncode)
    print(await asyncio.to_thread(sum, [1, 2, 3]))
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
    except TimeoutError:
        print("timed out")
    task = asyncio.create_task(failing())
    await asyncio.sleep(0.01)
    del task
    failing  # noqa
    asyncio.sleep(1)
    raise LookupError("main coroutine")


print(sys.version_info[:2], asyncio.get_event_loop_policy().__class__.__name__)
asyncio.run(main())
