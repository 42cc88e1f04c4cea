"""aiohttp with a background task."""
import asyncio

from aiohttp import web

words, beats = [], [0]


async def beat(app):
    async def run():
        while True:
            await asyncio.sleep(0.5)
            beats[0] += 1

    app["beat"] = asyncio.create_task(run())


async def home(request):
    before = beats[0]
    await asyncio.sleep(0.7)
    return web.Response(text="aiohttp answers" if beats[0] > before else "the heart stands still")


async def keep(request):
    words.append("kept")
    return web.Response(text="ok")


async def show(request):
    return web.Response(text="words: " + " ".join(words))


app = web.Application()
app.add_routes([web.get("/", home), web.get("/keep", keep), web.get("/words", show)])
app.on_startup.append(beat)
web.run_app(app, host="127.0.0.1", port=7003, print=None)
