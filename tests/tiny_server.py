"""A single-user server of a few lines, for tests that need none but one that starts in no time.

    tiny serve           answers at once
    tiny wait FILE       answers when FILE is gone
    tiny crash           says why and ends with exit code 3

Its answers, below its own prefix: facts (its process), hub (what the hub's API says to its token), die (it ends),
daemon (it starts a process that leaves its session and ignores SIGTERM), unsaved (once SIGTERM comes it needs two
seconds, and then asks the hub for /user?saved=1); everything else: {}.
"""

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


def facts() -> dict:
    return {
        "pid": os.getpid(),
        "sid": os.getsid(0),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "cwd": os.getcwd(),
        "argv": sys.argv[1:],
        "environment": dict(os.environ),
    }


def ask_hub(query: str = "") -> dict:
    """Who the hub says that this server's token belongs to."""
    url = os.environ["JUPYTERHUB_API_URL"] + "/user" + query
    request = urllib.request.Request(url, headers={"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return {"status": 200, "name": json.load(answer)["name"]}
    except urllib.error.HTTPError as error:
        return {"status": error.code}


def daemon() -> dict:
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.write(write, str(os.getpid()).encode())
            os.close(write)
            while True:
                time.sleep(3600)
        os._exit(0)
    os.close(write)
    return {"pid": int(os.read(read, 20))}


unsaved = threading.Event()


def change() -> dict:
    unsaved.set()
    return {}


def save(number: int, _: object) -> None:
    """The handler of SIGTERM."""
    if unsaved.is_set():
        time.sleep(2)  # Kubernetes gives a second in any case
        ask_hub("?saved=1")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        answer = {"facts": facts, "hub": ask_hub, "daemon": daemon, "unsaved": change}.get(name, dict)()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if name == "die":
            print("tiny: the last words <of> the server, token " + os.environ["JUPYTERHUB_API_TOKEN"], flush=True)
            os._exit(7)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    mode = sys.argv[1]
    if mode == "crash":
        print("tiny: this server cannot start\nRuntimeError: the flux capacitor is empty")
        sys.exit(3)
    while mode == "wait" and os.path.exists(sys.argv[2]):
        time.sleep(0.01)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # not one of a test that runs this as its server
        signal.signal(signal.SIGTERM, save)
    url = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    ThreadingHTTPServer((url.hostname, url.port), Handler).serve_forever()


main()
