"""The launcher as it runs on a node: a real process, real servers, and a small hub over real HTTP.

HEPSPAWNER_NODE_PYTHON names another Python (3.6 on) to run the launcher and its servers with.
"""

import http.client
import http.server
import importlib.util
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.machine import free_port

LAUNCHER = Path(__file__).resolve().parents[2] / "hepspawner" / "node" / "launcher.py"
PYTHON = os.environ.get("HEPSPAWNER_NODE_PYTHON", sys.executable)
TICKET, KEY, TOKEN = "ticket-8d1f", "key-77aa", "token-c0de"
PATIENCE = 15  # seconds that a test waits for something that has to happen; not spent where it does

SERVE = """
import http.server, os, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(STATUS)
        self.end_headers()
    def log_message(self, *_):
        pass
class Server(http.server.HTTPServer):
    allow_reuse_address = False
    address_family = socket.AF_INET6 if ":" in "HOST" else socket.AF_INET
    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "x", self.server_address[1]
Server(("HOST", int(os.environ["PORT"])), Handler).serve_forever()
"""
# Something that left the server's tree and its group, and that does not heed SIGTERM.
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open("daemon.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("daemon.new", "daemon.pid")
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists("daemon.pid"):
    time.sleep(0.01)
"""


def eventually(condition, what="it", seconds=PATIENCE):
    """What `condition()` returns once it is true; fails where it does not become so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"{what} did not happen within {seconds:g} s")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def serve(host="127.0.0.1", status=200):
    return SERVE.replace("HOST", host).replace("STATUS", str(status))


def get(port, path="/"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()


class Listener(http.server.ThreadingHTTPServer):
    """An HTTP server in a thread of the tests."""

    def __init__(self, handler, port=0):
        super().__init__(("127.0.0.1", port), handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Hub:
    """The hub's side of docs/protocol.md, with faults on demand.

    `faults`: for "claim" and each event a list of what the next requests meet: a status, or "lose" (the
    request is taken in, but no answer sent). `before_claim(body)` runs just before a claim is answered.
    """

    def __init__(self, order, port=0, **faults):
        self.order, self.claims, self.reports, self.squatters = order, [], [], []
        self.faults, self.before_claim = faults, lambda body: None
        hub = self

        class Handler(Quiet):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = hub.take(self.path, body)
                if status:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(json.dumps(answer).encode())

            def do_GET(self):  # a server asks for its own port to be taken
                hub.squat(int(self.path.strip("/")))
                super().do_GET()

        self.listener = Listener(Handler, port)
        self.url = f"http://127.0.0.1:{self.listener.port}/hub/api"

    def take(self, path, body):
        kind = "claim" if path == "/hub/api/hepspawner/claim" else body["event"]
        assert kind == "claim" or path == "/hub/api/hepspawner/report", path
        (self.claims if kind == "claim" else self.reports).append(body)
        if self.faults.get(kind):
            fault = self.faults[kind].pop(0)
            return (0, {}) if fault == "lose" else (fault, {"message": "no \x1b[1mtoday {}".format(body.get("ticket"))})
        if kind != "claim":
            return 200, {}
        if body["claimant"] != self.claims[0]["claimant"]:
            return 403, {"message": "claimed already"}
        self.before_claim(body)
        return 200, self.order

    def squat(self, port):
        """Takes a port, and answers HTTP on it, so that only its owner tells it from the server."""
        self.squatters.append(Listener(Quiet, port))

    def events(self, kind=None):
        return [report for report in list(self.reports) if kind in (None, report["event"])]

    def close(self):
        for listener in [self.listener, *self.squatters]:
            listener.close()


class Run:
    """A launcher at work."""

    def __init__(self, job, directory, environment, argv=()):
        self.stderr = directory / "stderr"
        with open(self.stderr, "wb") as stderr:
            self.process = subprocess.Popen(
                list(argv) or [PYTHON, "-I", str(LAUNCHER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )
        self.process.stdin.write(job if isinstance(job, bytes) else json.dumps(job).encode())
        self.process.stdin.close()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def ended(self):
        """The exit status; whatever the test, a secret is never printed and stdout stays empty."""
        status = self.process.wait(PATIENCE)
        said = self.process.stdout.read().decode() + self.stderr.read_text()
        assert not any(secret in said for secret in (TICKET, KEY, TOKEN)), said
        return status

    def said(self):
        return self.stderr.read_text()


class Node:
    """The directories of one test, and what it started."""

    def __init__(self, path):
        self.path, self.scratch, self.work = path, path / "scratch", path / "work"
        self.scratch.mkdir()
        self.work.mkdir()
        self.runs, self.hubs = [], []

    def order(self, script, **more):
        """A claim's answer that runs a Python script."""
        return dict(
            {
                "argv": [PYTHON, "-I", "-c", script],
                "environment": {"PORT": "@PORT@", "TOKEN": TOKEN},
                "inherit": {},
                "requires": [],
                "directory": str(self.work),
                "log": str(self.path / "logs" / "server.log"),
                "ready": "/user/alice/api",
                "runtime": None,
                "grace": 5,
                "key": KEY,
            },
            **more,
        )

    def hub(self, order, *more, **faults):
        self.hubs.append(Hub(order, *more, **faults))
        return self.hubs[-1]

    def job(self, hub, **more):
        return dict(
            {
                "session": "s1",
                "ticket": TICKET,
                "expires": time.time() + 60,
                "address": None,
                "hub": hub if isinstance(hub, str) else hub.url,
                "scratch": str(self.scratch),
            },
            **more,
        )

    def launch(self, hub, environment=(), argv=(), job=None, **more):
        environment = dict({"PATH": os.environ["PATH"]}, **dict(environment))
        self.runs.append(Run(self.job(hub, **more) if job is None else job, self.path, environment, argv))
        return self.runs[-1]

    def daemon(self):
        return int((self.work / "daemon.pid").read_text())

    def close(self):
        for run in self.runs:
            if run.process.poll() is None:
                run.process.terminate()
                run.process.terminate()
                try:
                    run.process.wait(10)
                except subprocess.TimeoutExpired:
                    run.process.kill()
                    run.process.wait()
            run.process.stdout.close()
        for hub in self.hubs:
            hub.close()


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.close()


def run_to_end(node, script, **more):
    """Runs a script as the server to its end: (exit status of the launcher, exit report, hub)."""
    hub = node.hub(node.order(script, **more))
    status = node.launch(hub).ended()
    (report,) = hub.events("exit")
    return status, report, hub


def up(node, hub, **more):
    """A launcher whose server is up, and the report of that."""
    run = node.launch(hub, **more)
    (report,) = eventually(lambda: hub.events("ready"), "ready")
    return run, report


# --- the way through ---


def test_a_session_from_claim_to_stop(node):
    hub = node.hub(node.order(serve()))
    run, ready = up(node, hub, environment={"http_proxy": "http://127.0.0.1:1"})
    (claim,) = hub.claims
    assert claim == {"ticket": TICKET, "claimant": claim["claimant"], "host": "127.0.0.1", "port": claim["port"]}
    assert (ready["host"], ready["port"]) == ("127.0.0.1", claim["port"])
    assert get(ready["port"]) == 200
    run.stop()
    assert run.ended() == 143
    assert [report["event"] for report in hub.reports] == ["starting", "ready", "exit"]
    assert {(report["session"], report["key"]) for report in hub.reports} == {("s1", KEY)}
    starting, _, end = hub.reports
    assert starting["notes"] == []
    assert (end["reason"], end["code"]) == ("stopped", 143)
    assert 0 < end["seconds"] < PATIENCE
    assert run.said() == ""


@pytest.mark.parametrize("address, host", [("hostname", socket.getfqdn()), ("interface:lo", "127.0.0.1")])
def test_the_address_may_be_named_by_what_the_node_knows(node, address, host):
    hub = node.hub(node.order(serve()))
    run, ready = up(node, hub, address=address)
    assert hub.claims[0]["host"] == ready["host"] == host
    run.stop()


def test_the_address_of_the_job_is_the_one_reported(node):
    hub = node.hub(node.order(serve("0.0.0.0")))
    _, ready = up(node, hub, address="node7.example")
    assert ready["host"] == hub.claims[0]["host"] == "node7.example"


@pytest.mark.parametrize("host", ["::", "::1"])
def test_a_server_on_ipv6(node, host):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    hub = node.hub(node.order(serve(host)))
    _, ready = up(node, hub)
    assert ready["port"] == hub.claims[0]["port"]


def test_not_ready_before_http_is_answered_well(node):
    flag = node.path / "up"
    script = serve().replace("send_response(200)", f"send_response(200 if os.path.exists({str(flag)!r}) else 503)")
    script = script.replace("def do_GET(self):", "def do_GET(self):\n        print('asked', self.path, flush=True)")
    hub = node.hub(node.order(script))
    node.launch(hub)
    log = node.path / "logs" / "server.log"
    eventually(lambda: log.exists() and log.read_text().count("asked /user/alice/api") > 1, "a second look")
    assert hub.events("ready") == []
    flag.touch()
    eventually(lambda: hub.events("ready"), "ready")


def test_secrets_are_in_no_command_line(node):
    hub = node.hub(node.order(serve()))
    run, _ = up(node, hub)
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            pass
    assert any(str(LAUNCHER).encode() in line for line in lines)
    for secret in (TICKET, KEY, TOKEN):
        assert not any(secret.encode() in line for line in lines)
    run.stop()
    run.ended()
    assert not any(secret in (node.path / "logs" / "server.log").read_text() for secret in (TICKET, KEY, TOKEN))


# --- the claim ---


def test_the_claim_is_retried_while_the_hub_is_away(node):
    with socket.socket() as away:
        away.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        away.bind(("127.0.0.1", 0))
        away.listen(5)
        away.settimeout(PATIENCE)
        port = away.getsockname()[1]
        node.launch(f"http://127.0.0.1:{port}/hub/api")
        away.accept()[0].close()
    hub = node.hub(node.order(serve()), port, claim=[503, 429])
    eventually(lambda: hub.events("ready"), "ready")
    assert len({claim["claimant"] for claim in hub.claims}) == 1
    assert len(hub.claims) == 3


def test_an_answer_that_is_lost_is_asked_for_again(node):
    hub = node.hub(node.order(serve()))
    hub.faults["claim"] = ["lose"]
    up(node, hub)
    first, second = hub.claims
    assert first == second


def test_a_second_launcher_with_the_ticket_is_refused(node):
    hub = node.hub(node.order(serve()))
    up(node, hub)
    second = node.launch(hub)
    assert second.ended() == 77
    assert "claimed already" in second.said()


def test_a_refused_claim(node):
    hub = node.hub(node.order(serve()))
    hub.faults["claim"] = [403]
    run = node.launch(hub)
    assert run.ended() == 77
    assert "403 no today" in run.said() and "\x1b" not in run.said()
    assert len(hub.claims) == 1 and hub.reports == []


def test_a_ticket_that_is_expired_is_not_shown(node):
    hub = node.hub(node.order(serve()))
    assert node.launch(hub, expires=time.time() - 1).ended() == 75
    assert hub.claims == []


def test_asking_ends_when_the_ticket_expires(node):
    hub = node.hub(node.order(serve()))
    hub.faults["claim"] = [503] * 100
    began = time.time()
    assert node.launch(hub, expires=began + 0.7).ended() == 75
    assert len(hub.claims) > 1
    assert began + 0.7 <= time.time() < began + 5


def test_sigterm_before_the_claim_ends_it_at_once(node):
    with socket.socket() as silent:  # takes connections, answers nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        silent.settimeout(PATIENCE)
        run = node.launch(f"http://127.0.0.1:{silent.getsockname()[1]}/hub/api")
        silent.accept()[0].close()
        began = time.monotonic()
        run.stop()
        assert run.ended() == 143
        assert time.monotonic() - began < 3
    assert run.said() == ""


@pytest.mark.parametrize(
    "job, complaint",
    [
        (b"", "malformed job"),
        (b"[]", "no JSON object"),
        (b"\xff", "malformed job"),
        (b'{"session": "s", "ticket": 3, "hub": "x"}', "lacks ticket, expires"),
    ],
)
def test_a_malformed_job(node, job, complaint):
    run = node.launch(None, job=job)
    assert run.ended() == 64
    assert complaint in run.said() and run.said().count("\n") == 1


# --- ports ---


def test_a_port_that_was_taken_is_replaced(node):
    hub = node.hub(node.order(serve()))
    hub.before_claim = lambda body: hub.squat(body["port"])
    run, ready = up(node, hub)
    taken = hub.claims[0]["port"]
    assert get(taken) == 200  # the squatter would have passed for the server
    assert ready["port"] != taken and get(ready["port"]) == 200
    assert [f"port {taken} was taken" in note for note in hub.events("starting")[-1]["notes"]] == [True]
    run.stop()
    run.ended()
    assert [report["port"] for report in hub.events("ready")] == [ready["port"]]


def test_a_squatter_is_never_reported_as_the_server(node):
    hub = node.hub(node.order("import time; time.sleep(600)"))
    hub.before_claim = lambda body: hub.squat(body["port"])
    run = node.launch(hub)
    eventually(lambda: len(hub.events("starting")) == 2, "the start on another port")
    run.stop()
    run.ended()
    assert hub.events("ready") == []


def test_a_start_fails_where_the_one_port_is_taken_at_which_it_is_reached(node):
    hub = node.hub(node.order(serve()))
    taken = free_port()
    hub.squat(taken)
    run = node.launch(hub, port=taken, port_needed=True)
    assert run.ended() == 1
    assert hub.claims[0]["port"] == taken and hub.events("ready") == []
    (end,) = hub.events("exit")
    assert end["reason"] == "failed" and f"port {taken} was taken" in end["message"]
    assert "can be reached at no other" in end["message"]


def test_ports_taken_again_and_again(node):
    hub = node.hub(None)
    ask = "import os, urllib.request\nurllib.request.urlopen('http://127.0.0.1:%d/' + os.environ['PORT'])\n"
    hub.order = node.order(ask % hub.listener.port + serve())
    run = node.launch(hub)
    assert run.ended() == 1
    (end,) = hub.events("exit")
    assert end["reason"] == "failed" and end["message"].count("was taken by another process") == 6
    assert len(hub.events("starting")) == len(hub.squatters) == 6
    assert len({squatter.port for squatter in hub.squatters}) == 6
    assert "Address already in use" in end["log"]


def test_a_server_that_listened_and_failed_is_not_started_again(node):
    # It ends its connection first, so that the port stays bound (TIME_WAIT) though nobody else has it.
    script = serve().replace("self.send_response(200)", "os._exit(5)")
    status, end, hub = run_to_end(node, script)
    assert (status, end["reason"], len(hub.events("starting"))) == (5, "exited", 1)
    assert hub.events("ready") == []


# --- how a server ends ---


def test_exit_code_and_last_lines(node):
    script = """
import sys
for number in range(60):
    print("line", number)
print("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07bell\\x07 \\x00nul\\ttab")
print("x" * 2000)
sys.stdout.flush()
sys.stdout.buffer.write(b"caf\\xc3\\xa9 \\xff\\n")
sys.stdout.flush()
print("the end", file=sys.stderr)
sys.exit(3)
"""
    status, end, _hub = run_to_end(node, script)
    assert (status, end["code"], end["reason"]) == (3, 3, "exited")
    lines = end["log"].split("\n")
    assert len(lines) == 40 and lines[0] == "line 24"
    assert lines[-4:] == ["red bell nul\ttab", "x" * 500, "caf\xe9 \ufffd", "the end"]
    assert "message" not in end


def test_the_last_lines_are_8_kb_at_most(node):
    script = "import sys\nsys.stdout.buffer.write((u'\\u00e9' * 499 + '\\n').encode() * 50 + b'end')"
    _, end, _ = run_to_end(node, script)
    assert 8000 < len(end["log"].encode()) <= 8192 and end["log"].endswith("end")


def test_a_server_killed_by_a_signal(node):
    status, end, _ = run_to_end(node, "import os; os.kill(os.getpid(), 9)")
    assert (status, end["code"], end["reason"]) == (137, 137, "exited")


def test_what_the_server_leaves_behind_is_ended(node):
    began = time.monotonic()
    status, end, _ = run_to_end(node, DAEMON + "raise SystemExit(4)")
    assert (status, end["reason"]) == (4, "exited")
    assert not alive(node.daemon())
    assert end["seconds"] < time.monotonic() - began - 0.9, "the server's time is not the leftovers'"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_other_signals_stop_too(node, number):
    hub = node.hub(node.order(serve()))
    run, _ = up(node, hub)
    run.stop(number)
    assert run.ended() == 143
    assert hub.events("exit")[0]["reason"] == "stopped"


def test_stopping_ends_the_whole_tree(node):
    hub = node.hub(node.order(DAEMON + serve()))
    run, ready = up(node, hub)
    assert alive(node.daemon())
    run.stop()
    assert run.ended() == 143
    assert hub.events("exit")[0]["reason"] == "stopped"
    assert not alive(node.daemon())
    with pytest.raises(OSError):
        get(ready["port"])


STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"


def test_grace_and_then_the_kill(node):
    hub = node.hub(node.order(STUBBORN + serve(), grace=0.5))
    run, _ = up(node, hub)
    began = time.monotonic()
    run.stop()
    assert run.ended() == 137
    assert time.monotonic() - began >= 0.5
    (end,) = hub.events("exit")
    assert (end["code"], end["reason"], end["log"]) == (137, "stopped", "no")


def test_a_second_sigterm_kills_at_once(node):
    hub = node.hub(node.order(STUBBORN + serve(), grace=600))
    run, _ = up(node, hub)
    run.stop()
    eventually(lambda: "no" in (node.path / "logs" / "server.log").read_text(), "the polite request")
    assert run.process.poll() is None
    run.stop()
    assert run.ended() == 137
    assert hub.events("exit")[0]["reason"] == "stopped"


def test_the_polite_request_lets_a_server_end_in_its_own_way(node):
    script = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + serve()
    hub = node.hub(node.order(script, grace=600))
    run, _ = up(node, hub)
    run.stop()
    assert run.ended() == 0
    assert hub.events("exit")[0]["code"] == 0


def test_the_runtime_ends_the_server(node):
    order = node.order("import os\nprint(os.environ['DEADLINE'], flush=True)\n" + serve(), runtime=1)
    order["environment"]["DEADLINE"] = "@DEADLINE@"
    hub = node.hub(order)
    began = time.time()
    status = node.launch(hub).ended()
    (end,) = hub.events("exit")
    assert (status, end["code"], end["reason"]) == (143, 143, "runtime")
    assert 1 <= end["seconds"] + 0.1 < PATIENCE
    assert int(began + 1) <= int(end["log"]) <= time.time() + 1


def test_where_the_batch_system_keeps_the_time_its_warning_ends_the_server(node):
    order = node.order("import os\nprint(os.environ['DEADLINE'], flush=True)\n" + serve(), runtime=0, warning=-3600)
    order["environment"]["DEADLINE"] = "@DEADLINE@"
    hub = node.hub(order)
    began = time.time()
    run, _ = up(node, hub)
    assert get(hub.events("ready")[0]["port"]) == 200  # its time was over at once: an admin may have given more
    run.process.send_signal(signal.SIGUSR1)
    assert run.ended() == 143
    (end,) = hub.events("exit")
    assert end["reason"] == "runtime"
    assert int(began) + 3600 <= int(end["log"]) <= time.time() + 3600


@pytest.mark.parametrize("event", ["starting", "ready"])
def test_a_session_that_is_over_ends_the_server(node, event):
    hub = node.hub(node.order("import os; open('pid', 'w').write(str(os.getpid()))\n" + serve()), **{event: [410]})
    assert node.launch(hub).ended() == 143
    assert hub.events(event) and hub.events("exit") == []
    assert event == "starting" or not alive(int((node.work / "pid").read_text()))
    assert list(node.scratch.iterdir()) == []


def test_reports_are_tried_again(node):
    hub = node.hub(node.order(serve()))
    hub.faults.update(starting=[503], ready=["lose"], exit=[502, 429])
    run = node.launch(hub)
    eventually(lambda: len(hub.events("ready")) == 2 and not hub.faults["ready"], "ready")
    run.stop()
    run.ended()
    assert [report["event"] for report in hub.reports] == ["starting"] * 2 + ["ready"] * 2 + ["exit"] * 3


def test_the_exit_report_does_not_wait_for_the_others(node):
    hub = node.hub(node.order("pass"), starting=[503] * 100)
    assert node.launch(hub).ended() == 0
    assert hub.events("starting") and hub.reports[-1]["event"] == "exit"


def test_a_signal_ends_the_trying_of_the_exit_report(node):
    hub = node.hub(node.order("pass"))
    hub.faults["exit"] = [503] * 100
    run = node.launch(hub)
    eventually(lambda: len(hub.events("exit")) > 1, "a second try")
    run.stop()
    assert run.ended() == 0
    assert "did not take the exit report" in run.said()


# --- what the server gets ---


def test_the_environment_is_exact(node):
    script = "import sys\nsys.stdout.buffer.write(open('/proc/self/environ', 'rb').read().replace(b'\\0', b'\\n'))"
    order = node.order(script, runtime=100)
    order["environment"] = {"A": "@PORT@ @SCRATCH@ @HOME@", "D": "@DEADLINE@", "B": "@OTHER@ \xe9", "C": ""}
    order["inherit"] = {"CUDA_VISIBLE_DEVICES": "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID": "JOB", "ABSENT": "ABSENT"}
    hub = node.hub(order)
    before = time.time()
    run = node.launch(
        hub, environment={"CUDA_VISIBLE_DEVICES": "3", "SLURM_JOB_ID": "@PORT@", "LEAK": "1", "LC_ALL": "C"}
    )
    assert run.ended() == 0
    (end,) = hub.events("exit")
    got = dict(line.split("=", 1) for line in end["log"].split("\n"))
    port, scratch, home = got.pop("A").split(" ")
    assert int(port) == hub.claims[0]["port"]
    assert Path(scratch).parent == node.scratch
    assert home == os.path.expanduser("~" + pwd.getpwuid(os.getuid()).pw_name)
    assert before + 99 <= int(got.pop("D")) <= time.time() + 100
    assert got == {"B": "@OTHER@ \xe9", "C": "", "CUDA_VISIBLE_DEVICES": "3", "JOB": "@PORT@"}


def test_the_job_may_be_in_a_file_and_name_its_port(node):
    hub, port = node.hub(node.order("import os; print(os.environ['PORT'])")), free_port()
    file = node.path / "job"
    file.write_text(json.dumps(node.job(hub, port=port)))
    assert node.launch(hub, argv=[PYTHON, "-I", "-S", str(LAUNCHER), str(file)]).ended() == 0
    assert hub.events("exit")[0]["log"] == str(port) == str(hub.claims[0]["port"])


def test_the_home_outside_of_the_container_is_taken_where_it_is_there(node):
    order = node.order("import os; print(os.environ['HOME'])")
    order["environment"]["HOME"] = "@HOME@"
    there, own = node.work / "home", os.path.expanduser("~" + pwd.getpwuid(os.getuid()).pw_name)
    there.mkdir()
    for home, expected in ((str(there), str(there)), ("/not/bound", own), (None, own)):
        hub = node.hub(order)
        node.launch(hub, home=home).ended()
        assert hub.events("exit")[0]["log"] == expected


def test_a_home_that_is_needed_has_to_be_there(node):
    hub = node.hub(node.order("print('started')"))
    node.launch(hub, home="/not/mounted", home_needed=True).ended()
    (end,) = hub.events("exit")
    assert end["reason"] == "missing" and "home /not/mounted cannot be written" in end["message"]


def test_a_launcher_in_the_container_hands_on_its_environment(node):
    order = node.order("import os; print(os.environ['IMAGE'], os.environ['A'], os.environ['B'])")
    order["environment"] |= {"A": "@PORT@"}
    order["inherit"] = {"*": "*"}
    hub = node.hub(order)
    assert node.launch(hub, environment={"IMAGE": "@HOME@", "A": "the image's", "B": "b"}).ended() == 0
    assert hub.events("exit")[0]["log"] == f"@HOME@ {hub.claims[0]['port']} b"


def test_no_deadline_is_an_empty_one(node):
    order = node.order("import os; print(repr(os.environ['D']))")
    order["environment"]["D"] = "@DEADLINE@"
    hub = node.hub(order)
    node.launch(hub).ended()
    assert hub.events("exit")[0]["log"] == "''"


def test_open_files_signals_and_session_of_the_server(node):
    script = """
import os, signal
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)))
print(os.read(0, 1), os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
print(os.getcwd())
"""
    _, end, _ = run_to_end(node, script)
    assert end["log"].split("\n") == ["[0, 1, 2]", "b'' True True", str(node.work)]


def test_a_directory_that_cannot_be_entered(node):
    _, end, hub = run_to_end(node, "import os; print(os.getcwd())", directory="/nonexistent/place")
    assert end["log"].endswith("\n/")
    (note,) = hub.events("starting")[0]["notes"]
    assert "/nonexistent/place" in note and "No such file" in note


def test_scratch_is_made_and_removed(node):
    keep = node.path / "keep"
    keep.mkdir()
    (keep / "file").touch()
    script = """
import os
scratch = os.environ["SCRATCH"]
print(scratch, oct(os.stat(scratch).st_mode & 0o777))
os.symlink(os.environ["KEEP"], scratch + "/link")
os.mkdir(scratch + "/deep")
open(scratch + "/deep/file", "w").close()
"""
    order = node.order(script)
    order["environment"].update(SCRATCH="@SCRATCH@", KEEP=str(keep))
    hub = node.hub(order)
    assert node.launch(hub).ended() == 0
    path, mode = hub.events("exit")[0]["log"].split()
    assert path.startswith(str(node.scratch / "hepspawner-")) and mode == "0o700"
    assert list(node.scratch.iterdir()) == []
    assert (keep / "file").exists()


def test_scratch_from_tmpdir(node):
    order = node.order("import os; print(os.environ['SCRATCH'])")
    order["environment"]["SCRATCH"] = "@SCRATCH@"
    hub = node.hub(order)
    other = node.path / "other"
    other.mkdir()
    node.launch(hub, environment={"TMPDIR": str(other)}, scratch=None).ended()
    assert hub.events("exit")[0]["log"].startswith(str(other))


# --- what is missing ---


def test_a_missing_requirement_is_named(node):
    image = str(node.path / "no.sif")
    status, end, hub = run_to_end(node, "pass", requires=[{"path": image, "what": "image"}])
    assert (status, end["code"], end["reason"], end["seconds"]) == (1, None, "missing", 0)
    assert end["message"] == f"image {image} does not exist on {socket.gethostname()}"
    assert hub.events("starting") == [] and list(node.scratch.iterdir()) == []


def test_missing_parts_of_the_command_are_left_out_and_noted(node):
    order = node.order("import sys; print(sys.argv[1:])")
    order["argv"] += [
        {"when": str(node.work), "argv": ["--bind", "@SCRATCH@"]},
        "x",
        {"when": "/nonexistent/cvmfs", "argv": ["--bind", "cvmfs"], "note": True},
        {"when": "/nonexistent/quiet", "argv": ["quiet"]},
        {"when": str(node.work), "unless": str(node.path), "argv": ["not where that is"]},
        {"when": str(node.work), "unless": "/nonexistent", "argv": ["y"]},
    ]
    order["requires"] = [{"path": str(node.work), "what": "directory"}]
    hub = node.hub(order)
    assert node.launch(hub).ended() == 0
    note = "left out: /nonexistent/cvmfs does not exist on " + socket.gethostname()
    assert hub.events("starting")[0]["notes"] == [note]
    first, second = hub.events("exit")[0]["log"].split("\n")
    assert first == "hepspawner: " + note
    assert second.startswith(f"['--bind', '{node.scratch}/hepspawner-") and second.endswith("', 'x', 'y']")


def test_files_are_made_in_the_scratch_directory(node):
    code = "import os, sys; f = sys.argv[1]; print(open(f).read(), oct(os.stat(f).st_mode))"
    order = node.order(code, files={"token": "a\nb", "../escape": "x"})
    order["argv"].append("@SCRATCH@/token")
    hub = node.hub(order)
    assert node.launch(hub).ended() == 0
    assert hub.events("exit")[0]["log"] == "a\nb 0o100600"
    assert list(node.scratch.iterdir()) == []


HANGING = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("launcher", sys.argv[1])
launcher = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launcher)
really = os.stat
def hang(path, *more, **named):
    if path == b"/hanging":
        open(sys.argv[2], "w").close()
        time.sleep(600)
    return really(path, *more, **named)
os.stat = hang
launcher.PATHS = float(sys.argv[3])
sys.exit(launcher.main())
"""


def test_a_requirement_whose_file_system_hangs(node):
    hub = node.hub(node.order("pass", requires=[{"path": "/hanging", "what": "image"}]))
    run = node.launch(hub, argv=[PYTHON, "-c", HANGING, str(LAUNCHER), str(node.path / "asked"), "0.3"])
    assert run.ended() == 1
    (end,) = hub.events("exit")
    assert end["reason"] == "missing"
    assert end["message"] == (
        "image /hanging: the file system did not answer within 0.3 s on node " + socket.gethostname()
    )


def test_a_part_of_the_command_whose_file_system_hangs(node):
    order = node.order("import sys; print(sys.argv[1:])")
    order["argv"].append({"when": "/hanging", "argv": ["--bind"], "note": True})
    hub = node.hub(order)
    run = node.launch(hub, argv=[PYTHON, "-c", HANGING, str(LAUNCHER), str(node.path / "asked"), "0.3"])
    assert run.ended() == 0
    assert hub.events("exit")[0]["log"].endswith("\n[]")
    assert "did not answer" in hub.events("starting")[0]["notes"][0]


def test_sigterm_while_a_file_system_hangs(node):
    hub = node.hub(node.order("pass", requires=[{"path": "/hanging", "what": "image"}]))
    run = node.launch(hub, argv=[PYTHON, "-c", HANGING, str(LAUNCHER), str(node.path / "asked"), "600"])
    eventually((node.path / "asked").exists, "the look at the path")
    run.stop()
    assert run.ended() == 143
    (end,) = hub.events("exit")
    assert (end["reason"], end["code"]) == ("stopped", None)


def test_a_command_that_cannot_be_started(node):
    status, end, _hub = run_to_end(node, "pass", argv=["/nonexistent/jupyterhub-singleuser"])
    assert (status, end["code"], end["reason"]) == (1, None, "failed")
    assert "/nonexistent/jupyterhub-singleuser could not be started on" in end["message"]
    assert "No such file" in end["message"]
    assert list(node.scratch.iterdir()) == []


def test_the_command_is_found_by_the_path_of_its_own_environment(node):
    tool = node.path / "bin" / "some-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 7\n")
    tool.chmod(0o755)
    status, end, _ = run_to_end(node, "", argv=["some-tool"], environment={"PATH": str(tool.parent)})
    assert (status, end["code"]) == (7, 7)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"key": None}, "lacks key"),
        ({"ready": 3}, "lacks ready"),
        ({"argv": []}, "could not be started"),
        ({"environment": {"A": 3}}, "launcher: TypeError"),
        ({"argv": [{"when": "/"}]}, "launcher: KeyError"),
    ],
)
def test_an_answer_that_makes_no_sense(node, change, message):
    status, end, _ = run_to_end(node, "pass", **change)
    assert (status, end["reason"]) == (1, "failed")
    assert message in end["message"]


def test_no_scratch_directory(node):
    hub = node.hub(node.order("pass"))
    assert node.launch(hub, scratch="/nonexistent/scratch").ended() == 1
    (end,) = hub.events("exit")
    assert end["reason"] == "failed" and "/nonexistent/scratch" in end["message"]


# --- the log ---


def test_the_log_is_private_and_the_last_one_kept(node):
    log = node.path / "logs" / "server.log"
    for number in (1, 2):
        run_to_end(node, f"print('run {number}')")
    assert log.read_text() == "run 2\n" and stat.S_IMODE(log.stat().st_mode) == 0o600
    assert log.with_name("server.log.1").read_text() == "run 1\n"


def test_a_log_that_cannot_be_written_goes_to_scratch(node):
    (node.path / "file").touch()
    order = node.order("import os; print(os.path.realpath('/proc/self/fd/1'))", log=str(node.path / "file" / "log"))
    hub = node.hub(order)
    assert node.launch(hub).ended() == 0
    (note,) = hub.events("starting")[0]["notes"]
    assert note.startswith("log {} on".format(order["log"]))
    assert hub.events("exit")[0]["log"].split("\n")[-1].startswith(str(node.scratch / "hepspawner-"))


@pytest.mark.parametrize("kind", ["file", "dangling", "fifo"])
def test_a_log_is_not_written_through_a_link(node, kind):
    log, target = node.path / "log", node.path / "target"
    if kind == "file":
        target.write_text("precious")
    if kind == "fifo":
        os.mkfifo(str(log))
    else:
        log.symlink_to(target)
    _, end, hub = run_to_end(node, "print('hello')", log=str(log))
    assert end["log"].endswith("\nhello") and len(hub.events("starting")[0]["notes"]) == 1
    assert (target.read_text() == "precious") if kind == "file" else not target.exists()
    assert log.is_fifo() if kind == "fifo" else log.is_symlink()


def test_no_log(node):
    _, end, hub = run_to_end(node, "print('hello')", log=None)
    assert end["log"] == "hello" and hub.events("starting")[0]["notes"] == []


# --- whose socket it is ---


@pytest.fixture(scope="module")
def launcher():
    spec = importlib.util.spec_from_file_location("launcher", str(LAUNCHER))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "below, others, uid, ours",
    [
        ({11: True, 12: None}, {20: False}, -1, True),  # seen below the launcher
        ({11: False}, {20: False}, 0, False),  # all below seen, none has it
        ({11: False, 12: None}, {20: False, 21: None}, 0, True),  # hidden, and the account is ours
        ({11: False, 12: None}, {20: False}, -1, False),  # hidden, but somebody else's account
        ({11: None}, {20: True}, 0, False),
    ],
)  # hidden, but seen at another process of ours
def test_whose_socket(launcher, monkeypatch, below, others, uid, ours):
    answers = {**below, **others}
    monkeypatch.setattr(launcher, "processes", lambda: dict.fromkeys(answers, (1, b"S")))
    monkeypatch.setattr(launcher, "descendants", lambda table: list(below))
    monkeypatch.setattr(launcher, "holds", lambda pid, inode: answers[pid])
    assert launcher.is_ours(4711, os.getuid() + uid, 11) is ours


def test_who_listens(launcher):
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        for one, address in ((four, "127.0.0.1"), (six, "::1")):
            expected = [(os.fstat(one.fileno()).st_ino, os.getuid(), address)]
            port = one.getsockname()[1]
            assert (
                launcher.told_listeners(port) == launcher.listed_listeners(port) == launcher.listeners(port) == expected
            )
    assert launcher.listeners(port) == []


def test_an_unreadable_requirement(launcher, monkeypatch):
    monkeypatch.setattr(launcher.os, "access", lambda path, mode: mode == os.F_OK)
    assert launcher.trouble("/", os.R_OK, "alice") == " may not be read by alice on " + socket.gethostname()
    assert launcher.trouble("/", os.F_OK, "alice") == ""
