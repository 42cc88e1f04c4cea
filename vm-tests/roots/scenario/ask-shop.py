"""Asks the shop until every one of its eight workers has answered."""

import sys
import time
import urllib.request

seen = set()
end = time.monotonic() + 60
while len(seen) < 8:
    if time.monotonic() > end:
        sys.exit(f"only workers {seen} answered")
    try:
        with urllib.request.urlopen("http://127.0.0.1:8084/", timeout=20) as answer:
            seen.add(answer.read().split()[1])
    except OSError:
        time.sleep(0.2)
print(*sorted(seen))
