"""Plain ASGI, under uvicorn."""
words = []


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/keep":
        words.append("kept")
    body = f"uvicorn answers; words: {' '.join(words)}\n".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
