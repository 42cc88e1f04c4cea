"""A page as a site has it, and two views that show and change what only this process's memory knows."""

import os
import secrets
import time

from django.contrib.auth.models import User
from django.http import JsonResponse
from django.shortcuts import render

# One of each per worker: gunicorn loads the application after its fork.
INSTANCE = secrets.token_hex(8)
count = 0


def home(request):
    return render(request, "home.html", {"users": User.objects.count(), "count": count})


def state(request):
    # With several requests under way, the pause makes every worker take one.
    time.sleep(min(float(request.GET.get("pause_ms", 0)), 1000) / 1000)
    return JsonResponse({"pid": os.getpid(), "instance": INSTANCE, "count": count})


def bump(request):
    """Adds `by`, but only in the worker that was meant."""
    global count
    if int(request.GET.get("pid", 0)) == os.getpid():
        count += int(request.GET["by"])
    return state(request)
