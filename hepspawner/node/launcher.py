"""Starts one server on a node and tells the hub about it: claim, start, watch, report, end.

Reads a job (one JSON object) on standard input, or in a file; docs/protocol.md is the contract. Standard library only,
Python 3.6, one file: it is sent to nodes as it stands. Ticket, key and the claimed environment are secrets:
they reach neither a command line nor anything that is printed.

The main thread alone handles signals, children and state. What may block (HTTP, a stat on an automounted
path) runs in a Task, a daemon thread that wakes the main thread when it is done.
"""
import contextlib
import json
import os
import pwd
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

# Many launchers may start at once on one node: http, urllib, tempfile and shutil would double what each costs.

ANSWER = 4 * 1024 * 1024  # bytes read of an answer (and of the job), at most
TIMEOUT = 10.0            # seconds for one HTTP request
PATHS = 20.0              # seconds in which a path has to answer a stat; the first one may have to mount it
RESTARTS = 5              # times that the server is started again because its port was taken
FOREIGN = 1.0             # seconds that somebody else listens on our port before the server is given another
LEFTOVERS = 1.0           # seconds between SIGTERM and SIGKILL for what an ended server left behind
KILLING = 5.0             # seconds to wait for the killed; a process stuck in the kernel outlives even this
EXIT_REPORT = 60.0        # seconds for which the exit report is tried
ROOTS = (b"usr", b".singularity.d")  # what the root directory of a system has, one of them
PULLING = 1.0             # seconds between looks at what Apptainer says of a pull
STOPPED, NO_SERVER, BAD_JOB, UNCLAIMED, REFUSED = 128, 1, 64, 75, 77  # exit statuses; STOPPED + signal

NODE, BEGAN = socket.gethostname(), time.time()
URL = re.compile(r"(https?)://(\[[^]/]+\]|[^:/]+)(?::(\d+))?(/.*)?$")
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[@-Z\\-_])")
PULL = re.compile(r"(?m)^(?:INFO: +(.+)|(?:Copying|Getting|Writing) .+)$")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Failure(Exception):
    """The server cannot be started. `reason` is that of the exit report, the text its message."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


def say(text):
    """One line on stderr, which may be gone."""
    with contextlib.suppress(OSError, ValueError):
        print("hepspawner: " + text, file=sys.stderr, flush=True)


def printable(text):
    """`text` without escape sequences and control characters other than newline and tab."""
    return CONTROLS.sub("", ESCAPES.sub("", text))


def raw(text):
    """`text` as the bytes that the system gets: UTF-8 whatever the node's locale is."""
    return text.encode("utf-8", "surrogateescape")


def words(error):
    """What an exception says, without the paths and values that it may carry."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def split(url):
    """(scheme, host, port, path) of a URL. Raises ValueError."""
    match = URL.match(url)
    if not match:
        raise ValueError("no address of a hub")
    scheme, host, port, path = match.groups()
    return scheme, host.strip("[]"), int(port or (443 if scheme == "https" else 80)), path or "/"


def exchange(url, method, body=b""):
    """One HTTP request, straight, whatever proxies the environment names. Returns (status, body of the answer).

    Raises OSError or ValueError where no whole answer came.
    """
    scheme, host, port, path = split(url)
    head = ("%s %s HTTP/1.0\r\nHost: %s:%d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d"
            "\r\n\r\n" % (method, path, "[%s]" % host if ":" in host else host, port, len(body)))
    connection = socket.create_connection((host, port), TIMEOUT)
    with contextlib.closing(connection):
        if scheme == "https":
            import ssl  # dear, and rarely wanted
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
        end = time.monotonic() + TIMEOUT
        connection.sendall(head.encode() + body)
        answer = b""
        while len(answer) <= ANSWER:
            connection.settimeout(max(0.001, end - time.monotonic()))
            chunk = connection.recv(65536)
            if not chunk:
                break
            answer += chunk
    top, gap, rest = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", top)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", top)
    if not (gap and status) or (length and len(rest) < int(length.group(1))):
        raise ValueError("the answer was cut short, or is no HTTP")
    return int(status.group(1)), rest


def post(url, body):
    """Sends `body` as JSON. Returns (status, answer): a dict, or for a status from 300 on the hub's message.

    Raises OSError or ValueError where no usable answer came.
    """
    status, rest = exchange(url, "POST", json.dumps(body).encode())
    if status < 300:
        answer = json.loads(rest.decode())
        if not isinstance(answer, dict):
            raise ValueError("the answer is no JSON object")
        return 200, answer
    text = rest.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["message"]
    return status, printable(str(text))[:500]


def persist(attempt, until, cancelled):
    """Repeats `attempt` (see `post`) with backoff while the hub is away, fails or asks for patience.

    No attempt begins after `until` (seconds since the epoch) or once the event `cancelled` is set; then the
    status returned is 0 and the answer says what was wrong with the last attempt.
    """
    delay, problem = 0.1, "it was too late to ask"
    while time.time() < until and not cancelled.is_set():
        try:
            status, answer = attempt()
            if status < 500 and status != 429:
                return status, answer
            problem = "%d %s" % (status, answer)
        except (OSError, ValueError) as error:
            problem = str(error)
        # The jitter keeps the sessions of a restarted hub from coming back all at once.
        cancelled.wait(max(0, min(delay * (0.5 + os.urandom(1)[0] / 512), until - time.time())))
        delay = min(2 * delay, 10.0)
    return 0, problem


def outward(hub):
    """The address that this node uses toward the URL `hub`. Raises OSError."""
    with socket.create_connection(split(hub)[1:3], TIMEOUT) as connection:
        return connection.getsockname()[0]


def reachable(address, hub):
    """The address of this node: `hostname` and `interface:NAME` are looked up, None is outward. Raises OSError."""
    if not address:
        return outward(hub)
    if address == "hostname":
        return socket.getfqdn()
    kind, _, name = address.partition(":")
    if kind != "interface":
        return address
    import fcntl
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # SIOCGIFADDR
        return socket.inet_ntoa(fcntl.ioctl(probe, 0x8915, struct.pack("256s", raw(name)[:15]))[20:24])


def bindable(port):
    """A port that can be bound now: `port`, or any where it is 0. None where `port` is taken."""
    with socket.socket() as probe:
        # As servers do, so that connections of an ended server do not count as a taken port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
        try:
            probe.bind(("", port))
        except OSError:
            return None
        return probe.getsockname()[1]


def listeners(port):
    """The sockets that listen on `port` here: a list of (inode, uid, IP to connect to)."""
    try:
        return told_listeners(port)
    except (OSError, struct.error):
        return listed_listeners(port)


def told_listeners(port):
    """The same by sock_diag(7), in 0.05 ms. Raises OSError where the kernel does not tell."""
    found = []
    for family, loopback, size in ((socket.AF_INET, "127.0.0.1", 4), (socket.AF_INET6, "::1", 16)):
        # nlmsghdr (SOCK_DIAG_BY_FAMILY, a dump), then inet_diag_req_v2 (TCP, state LISTEN, source port)
        ask = struct.pack("=IHHIIBBBBI", 72, 20, 0x301, 1, 0, family, 6, 0, 0, 1 << 10) + struct.pack("!H46x", port)
        with contextlib.closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)) as kernel:
            kernel.settimeout(TIMEOUT)
            kernel.sendto(ask, (0, 0))
            kind, answer = 20, b""
            while kind == 20:
                answer = answer or kernel.recv(65536)
                length, kind = struct.unpack_from("=IH", answer)
                if kind == 20:  # inet_diag_msg
                    uid, inode = struct.unpack_from("=II", answer, 80)
                    address = answer[24:24 + size]
                    found.append((inode, uid, socket.inet_ntop(family, address) if any(address) else loopback))
                answer = answer[(length + 3) & ~3:]
        if kind != 3:  # NLMSG_DONE
            raise OSError("no list of listeners")
    return found


def listed_listeners(port):
    """The same from /proc, for kernels without sock_diag: to print it they walk all connections, for 13 ms and more."""
    found = []
    line = re.compile(rb"^ *\d+: ([0-9A-F]+):%04X [0-9A-F]+:0000 0A (.*)$" % port, re.MULTILINE)
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        try:
            with open(table, "rb") as file:
                text = file.read()
        except OSError:
            continue  # a kernel without IPv6
        for match in line.finditer(text):
            # An address is printed as 32 bit words in the byte order of the machine.
            digits, fields = match.group(1), match.group(2).split()
            address = b"".join(struct.pack("=I", int(digits[i:i + 8], 16)) for i in range(0, len(digits), 8))
            loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
            found.append((int(fields[5]), int(fields[3]),
                          socket.inet_ntop(family, address) if any(address) else loopback))
    return found


def processes():
    """All processes of the node that can be seen: {pid: (pid of the parent, state letter)}."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    # The command's name, in parentheses, may hold anything, spaces and parentheses too.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue  # it has just ended
            table[int(name)] = (int(parent), state)
    return table


def descendants(table):
    """The pids in `table` (see `processes`) that are below this process."""
    children = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    below = list(children.get(os.getpid(), ()))
    for pid in below:  # grows while it is walked
        below.extend(children.get(pid, ()))
    return below


def holds(pid, inode):
    """Whether process `pid` has the socket open; None where it does not let us see."""
    try:
        for fd in os.listdir("/proc/%d/fd" % pid):
            try:
                if os.readlink("/proc/%d/fd/%s" % (pid, fd)) == "socket:[%d]" % inode:
                    return True
            except FileNotFoundError:
                continue  # closed meanwhile
    except PermissionError:
        return None
    except OSError:
        pass
    return False


def is_ours(inode, uid, server):
    """Whether the listening socket belongs to a process below the launcher, `server` or another.

    Where one of those hides what it has open (a setuid container runtime), a socket of our account that no
    process in sight holds is taken for its.
    """
    if holds(server, inode):
        return True  # most often, and much cheaper
    table = processes()
    below = descendants(table)
    # (A zombie hides what it had open too, but has nothing open any more.)
    answers = [holds(pid, inode) for pid in below if table[pid][1] != b"Z"]
    if any(answers) or None not in answers:
        return any(answers)
    return uid == os.getuid() and not any(holds(pid, inode) for pid in set(table).difference(below))


def answers_http(address, port, path):
    """Whether the server there answers a GET of `path` with a status below 500; pauses where it does not."""
    with contextlib.suppress(OSError, ValueError):
        host = "[%s]" % address if ":" in address else address
        if exchange("http://%s:%d%s" % (host, port, path), "GET")[0] < 500:
            return True
    time.sleep(0.2)
    return False


def trouble(path, mode, user):
    """What is wrong with `path`, to be read after it ("" where nothing is). Hangs as long as the file system does."""
    try:
        os.stat(raw(path))
        return "" if os.access(raw(path), mode) else " may not be read by %s on %s" % (user, NODE)
    except (FileNotFoundError, NotADirectoryError):
        return " does not exist on " + NODE
    except PermissionError:
        return " may not be read by %s on %s" % (user, NODE)
    except (OSError, ValueError) as error:
        return ": %s on %s" % (words(error), NODE)


def identify(path, user):
    """What an image's path is: (kind, real path, what is wrong with it as `trouble` says). Hangs as that does."""
    problem = trouble(path, os.R_OK, user)
    if problem:
        kinds = {" does": "missing", " may ": "unreadable"}
        return kinds.get(problem[:5], "no answer"), "", problem
    try:
        real = os.path.realpath(raw(path))
        if os.path.isdir(real):  # no listing: on CVMFS it costs more than some stats
            kind = "sandbox" if any(os.path.lexists(os.path.join(real, name)) for name in ROOTS) else ""
        else:
            with open(real, "rb") as file:
                kind = "sif" if file.read(41)[32:] == b"SIF_MAGIC" else ""
        wrong = " is not an image: neither a SIF nor the root directory of a system, on " + NODE
        return kind or "not an image", real.decode("utf-8", "surrogateescape"), "" if kind else wrong
    except OSError as error:
        return "no answer", "", ": %s on %s" % (words(error), NODE)


def new_log(path):
    """A descriptor to append to and read a new file `path` (0600); an old one becomes `.1`. Raises OSError."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.replace(path, path + b".1")
    # O_EXCL: neither through a link nor into a file that somebody else put there meanwhile.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def kills_for_memory():
    """How many processes of our cgroup the kernel killed because their memory was used up; 0 where it does not tell."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/cgroup") as file:
            groups = dict(line.rstrip("\n").split(":", 2)[1:] for line in file)
        old = next((path for names, path in groups.items() if "memory" in names.split(",")), None)
        place = ("/sys/fs/cgroup/memory%s/memory.oom_control" % old if old is not None
                 else "/sys/fs/cgroup%s/memory.events" % groups.get("", ""))
        with open(place) as file:
            return int(dict(line.split() for line in file).get("oom_kill", 0))
    return 0


def last_lines(fd):
    """The last 40 lines of the log, printable, each cut at 500 characters, together 8 kB at most."""
    start = max(0, os.fstat(fd).st_size - 65536)
    text = printable(os.pread(fd, 65536, start).decode("utf-8", "replace"))
    text = "\n".join(line[:500] for line in text.rstrip("\n").split("\n")[-40:])
    return text.encode()[-8192:].decode("utf-8", "ignore")


class Task(threading.Thread):
    """One call that may block: `result` is its value once `finished`; then `wake` is called."""

    def __init__(self, wake, call):
        super().__init__(daemon=True)
        self.wake, self.call = wake, call
        self.result, self.finished = None, False
        self.start()

    def run(self):
        try:
            self.result = self.call()
        finally:
            self.finished = True
            self.wake()


class Watch:
    """Signals, ended children and finished tasks: whatever the main thread waits for wakes it here.

    `signals`: the requests to stop, in order. `pid`: the server; `code`: how it ended, None while it runs;
    `ended`: when (monotonic).
    """

    def __init__(self):
        self.signals, self.claimed, self.warned = [], False, False
        self.pid = self.code = self.ended = None
        self.out, self.into = os.pipe()
        os.set_blocking(self.into, False)
        signal.set_wakeup_fd(self.into)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.asked_to_stop)
        signal.signal(signal.SIGUSR1, self.time_is_nearly_up)

    def time_is_nearly_up(self, number, _):
        """The handler of the batch system's warning."""
        if not self.claimed:
            sys.exit(STOPPED + number)
        self.warned = True

    def asked_to_stop(self, number, _):
        """The handler. Before the claim there is nothing to put in order."""
        if not self.claimed:
            sys.exit(STOPPED + number)
        self.signals.append(number)

    @property
    def hurry(self):
        """Whether a signal came twice. (Two kinds do not count: some systems send HUP along with TERM.)"""
        return len(self.signals) > len(set(self.signals))

    def wake(self):
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyhow
            os.write(self.into, b"\0")

    def wait(self, seconds):
        """Returns at the next event, or after `seconds`. Reaps, also the orphans that became ours."""
        if select.select([self.out], [], [], max(0.0, min(seconds, 3600.0)))[0]:
            os.read(self.out, 65536)
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(-1, os.WNOHANG)
            while pid:
                if pid == self.pid:
                    self.ended = time.monotonic()
                    self.code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                pid, status = os.waitpid(-1, os.WNOHANG)

    def until(self, condition, seconds):
        """Waits until `condition()` holds, for `seconds` at most. Returns whether it came to hold."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end:
                return False
            self.wait(end - time.monotonic())
        return True


class Session:
    """One claimed session, from the look at the node to the exit report."""

    def __init__(self, watch, job, order, host, port):
        self.watch, self.job, self.order, self.host, self.port = watch, job, order, host, port
        self.notes, self.scratch, self.log, self.places = [], None, None, {}
        self.began, self.end_at = None, None  # the server's start; the end of its runtime (monotonic)
        self.listened = self.up = False  # the server listens on its port; it answers HTTP there
        self.taken = self.gone = False   # somebody else has the port; the hub disowned the session
        self.foreign = self.probe = self.sending = None  # since when somebody else listens there; Tasks
        self.queue, self.over, self.kills = [], threading.Event(), kills_for_memory()
        self.image, self.pulls = {}, (order.get("image") or {}).get("pull")  # what is reported of it; its reference
        self.told, self.pulled = None, 0  # what was reported last of its pull, and when
        try:
            account = pwd.getpwuid(os.getuid())
            self.user, self.home = account.pw_name, account.pw_dir
        except KeyError:
            self.user, self.home = str(os.getuid()), os.environ.get("HOME", "/")
        if job.get("home") and os.access(raw(job["home"]), os.W_OK):
            self.home = job["home"]

    def run(self):
        """Returns the exit status of the launcher."""
        message = None
        try:
            self.prepare()
            reason = self.serve()
        except Failure as failure:
            reason, message = failure.reason, str(failure)
        except Exception as error:  # whatever it is, nothing may stay behind and the hub has to hear of it
            reason, message = "failed", "launcher: %s: %s" % (type(error).__name__, words(error))
        if reason == "exited" and self.watch.code == STOPPED + signal.SIGKILL and kills_for_memory() > self.kills:
            reason = "memory"
        self.finish(0)
        self.report_exit(reason, message)
        if self.watch.code is not None:
            return self.watch.code
        return STOPPED + self.watch.signals[0] if reason == "stopped" else NO_SERVER

    def prepare(self):
        """Looks at the paths, makes the scratch directory, enters the directory, opens the log. Raises Failure."""
        for key, kind in (("argv", list), ("environment", dict), ("ready", str), ("key", str)):
            if not isinstance(self.order.get(key), kind):
                raise Failure("failed", "the hub's answer to the claim lacks " + key)
        if self.job.get("home_needed") and self.home != self.job.get("home"):
            raise Failure("missing", "home %s cannot be written by %s on %s" % (self.job.get("home"), self.user, NODE))
        self.places = {"AT": "@", "HOME": self.home, "IMAGE": "", "DIGEST": ""}
        self.look_at_image(self.order.get("image"))
        self.look_at_paths()
        parent = self.job.get("scratch") or os.environ.get("TMPDIR") or "/tmp"
        try:
            self.scratch = os.path.join(parent, "hepspawner-" + os.urandom(8).hex())
            os.mkdir(raw(self.scratch), 0o700)
            for name, text in (self.order.get("files") or {}).items():
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with open(os.open(raw(os.path.join(self.scratch, os.path.basename(name))), flags, 0o600), "wb") as file:
                    file.write(raw(text))
        except OSError as error:
            raise Failure("failed", "no scratch directory in %s on %s: %s" % (parent, NODE, words(error)))
        runtime, warning = self.order.get("runtime"), self.order.get("warning")
        # Where the batch system keeps the time it began before us, and an admin may have it change its mind.
        self.end_at = time.monotonic() + (float("inf") if runtime is None or warning is not None else runtime)
        deadline = time.time() + (runtime or 0) if warning is None else BEGAN + (runtime or 0) - warning
        self.places.update(SCRATCH=self.scratch, PORT=str(self.port),
                           DEADLINE="" if runtime is None else str(int(deadline)))
        directory = self.below_home(self.order.get("directory") or "~")
        try:
            os.chdir(raw(directory))
        except (OSError, ValueError) as error:
            self.notes.append("directory %s on %s: %s" % (directory, NODE, words(error)))
            os.chdir("/")
        self.open_log()

    def look_at_image(self, image):
        """Settles which of the image's places is taken, and the real directory behind its link. Raises Failure."""
        if not image or not image.get("places"):
            return
        tasks = [(place, Task(self.watch.wake, lambda place=place: identify(place, self.user)))
                 for place in image["places"] + image.get("also", [])]

        def settled():  # what stands after a place that is good has not to be waited for
            for _, task in tasks:
                if not task.finished or not (task.result or "-")[-1]:
                    return task.finished
            return True

        self.watch.until(lambda: self.watch.signals or settled(), PATHS)
        if self.watch.signals:
            raise Failure("stopped", "stopped before the server was started")
        slow = ("no answer", "", ": the file system did not answer within %g s on node %s" % (PATHS, NODE))
        seen = [(place,) + (task.result or slow) for place, task in tasks if task.finished or not settled()]
        mine = [one for one in seen if one[0] in image["places"]]
        self.image = {"images": [one[:3] for one in seen]}
        good = next((one for one in mine if not one[3]), None)
        if good is None:
            raise Failure("missing", "image " + "; ".join(one[0] + one[3] for one in mine))
        self.image.update(place=good[0], real=good[2])
        digest = re.search(image.get("digest") or "$^", good[2])
        self.places.update(IMAGE=good[2], DIGEST=digest.group(1).replace("/", "") if digest else "")
        if good is not mine[0] and not image.get("also"):
            self.notes.append("image taken from %s: %s%s" % (good[0], mine[0][0], mine[0][3]))

    def look_at_paths(self):
        """Settles `argv`: leaves out, with a note, what hangs on a missing path. Raises Failure."""
        required = {item["path"]: item.get("what", "path") for item in self.order.get("requires") or ()}
        items = [{"argv": [item]} if isinstance(item, str) else dict(item) for item in self.order["argv"]]
        for item in items:
            item.update((key, self.fill(item[key])) for key in ("when", "unless") if key in item)
        tasks = {path: Task(self.watch.wake, lambda path=path, mode=mode: trouble(path, mode, self.user))
                 for path, mode in [(item[key], os.F_OK) for item in items for key in ("when", "unless") if key in item]
                 + [(path, os.R_OK) for path in required]}
        self.watch.until(lambda: self.watch.signals or all(task.finished for task in tasks.values()), PATHS)
        if self.watch.signals:
            raise Failure("stopped", "stopped before the server was started")
        slow = ": the file system did not answer within %g s on node %s" % (PATHS, NODE)
        problems = {path: task.result if task.finished else slow for path, task in tasks.items()}
        for path in required:
            if problems[path]:
                raise Failure("missing", "%s %s%s" % (required[path], path, problems[path]))
        absent = [item["when"] for item in items if problems.get(item.get("when"))]
        self.notes.extend("left out: %s%s" % (item["when"], problems[item["when"]])
                          for item in items if item.get("when") in absent and item.get("note"))
        self.argv = [part for item in items if item.get("when") not in absent and problems.get(item.get("unless"), "-")
                     for part in item["argv"]]

    def below_home(self, path):
        """`path` with `~` expanded; one that is relative begins at the account's home too."""
        return os.path.join(self.home, path[2:] if path.startswith("~/") else path.lstrip("~"))

    def fill(self, text):
        return re.sub("@(PORT|SCRATCH|HOME|DEADLINE|IMAGE|DIGEST|AT)@",
                      lambda match: self.places.get(match.group(1), match.group()), text)

    def open_log(self):
        wanted = self.order.get("log")
        fallback = raw(os.path.join(self.scratch, "server.log"))
        try:
            self.log = new_log(raw(self.below_home(self.fill(wanted))) if wanted else fallback)
        except (OSError, ValueError) as error:
            self.notes.append("log %s on %s: %s" % (wanted, NODE, words(error)))
            self.log = new_log(fallback)
        for note in self.notes:
            self.note_in_log(note)

    def note_in_log(self, note):
        with contextlib.suppress(OSError):  # a full disk is the server's to complain of
            os.write(self.log, raw("hepspawner: %s\n" % note))

    def serve(self):
        """Runs the server, on another port where its own was taken. Returns the reason of its end. Raises Failure."""
        for _ in range(1 + RESTARTS):
            if self.watch.signals:
                return "stopped"
            self.start()
            reason = self.until_reason()
            self.finish(LEFTOVERS if reason == "taken" else self.order.get("grace") or 0)
            beaten = reason == "exited" and not self.listened and (self.foreign or not bindable(self.port))
            if reason != "taken" and not beaten:
                return reason
            self.notes.append("port %d was taken by another process on %s" % (self.port, NODE))
            self.note_in_log(self.notes[-1])
            if self.job.get("port_needed"):
                raise Failure("failed", self.notes[-1] + ", and the server can be reached at no other")
            self.port = bindable(0)
        raise Failure("failed", "; ".join(self.notes[-1 - RESTARTS:]))

    def start(self):
        """Starts the server on `port`. Raises Failure."""
        self.places["PORT"] = str(self.port)
        inherit = self.order.get("inherit") or {}
        environment = dict(os.environb) if "*" in inherit else {}
        environment.update((raw(name), raw(self.fill(value))) for name, value in self.order["environment"].items())
        environment.update((raw(theirs), os.environb[raw(ours)])
                           for ours, theirs in inherit.items() if raw(ours) in os.environb)
        argv = [self.fill(part) for part in self.argv]
        try:
            server = subprocess.Popen([raw(part) for part in argv], env=environment, stdin=subprocess.DEVNULL,
                                      stdout=self.log, stderr=self.log, start_new_session=True)
        except (OSError, ValueError, IndexError) as error:
            raise Failure("failed", "%s could not be started on %s: %s" % ("".join(argv[:1]), NODE, words(error)))
        server.returncode = 0  # keeps Popen from waiting for it: that is the watch's
        self.watch.pid, self.watch.code, self.began = server.pid, None, time.monotonic()
        self.foreign, self.probe, self.taken = None, None, False
        self.send("starting", notes=list(self.notes), **self.image)

    def until_reason(self):
        """Waits until the server has ended (`exited`) or has to be ended, and returns why."""
        while True:
            self.pump()
            left = self.end_at - time.monotonic()
            if self.watch.signals:
                return "stopped"
            if self.gone:
                return "refused"
            if self.watch.code is not None:
                return "exited"
            if left <= 0 or self.watch.warned:
                return "runtime"
            if self.taken:
                return "taken"
            self.watch.wait(left if self.up else min(left, self.look()))
            if self.pulls and not (self.up or self.listened or self.queue or self.sending):
                self.look_at_pull()

    def look(self):
        """Looks whether the server is up, and reports it. Returns the seconds until the next look."""
        if self.probe and not self.probe.finished:
            return TIMEOUT
        if self.probe and self.probe.result:
            self.up = True
            self.send("ready", host=self.host, port=self.port, **self.image)
            return 0
        now, self.probe = time.monotonic(), None
        found = listeners(self.port)
        ours = [address for inode, uid, address in found if is_ours(inode, uid, self.watch.pid)]
        if ours:
            self.listened, self.foreign, self.taken = True, None, False
            self.probe = Task(self.watch.wake, lambda: answers_http(ours[0], self.port, self.order["ready"]))
        elif found:
            self.foreign = self.foreign or now
            self.taken = now - self.foreign > FOREIGN
        # On a node with very many sockets a look is dear: a tenth of one core is the most we take.
        return max(10 * (time.monotonic() - now), 0.02 if now - self.began < 2 else 0.1)

    def look_at_pull(self):
        """Reports what Apptainer said last of the image that it pulls."""
        if time.monotonic() - self.pulled < PULLING:
            return
        lines = [match.group(1) or match.group() for match in PULL.finditer(last_lines(self.log))]
        if lines and lines[-1] != self.told:
            self.told, self.pulled = lines[-1], time.monotonic()
            self.send("pulling", text=self.told)

    def finish(self, grace):
        """Ends the server (SIGTERM to its group, then `grace` seconds) and all that is below the launcher."""
        watch = self.watch
        if watch.pid and watch.code is None:
            with contextlib.suppress(OSError):
                os.killpg(watch.pid, signal.SIGTERM)
            watch.until(lambda: watch.code is not None or watch.hurry, grace)
        if watch.code is not None:
            self.sweep(signal.SIGTERM, LEFTOVERS)
        self.sweep(signal.SIGKILL, KILLING)
        watch.until(lambda: watch.pid is None or watch.code is not None, 1.0)

    def sweep(self, number, seconds):
        """Sends a signal to everything below the launcher, newcomers too, until nothing is left or time is up."""
        told, end = set(), time.monotonic() + seconds
        while time.monotonic() < end and not (self.watch.hurry and number == signal.SIGTERM):
            table = processes()
            below = descendants(table)
            for pid in set(below) - told:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            told.update(below)
            if all(table[pid][1] == b"Z" for pid in below):
                return
            self.watch.wait(0.02)

    def send(self, event, **more):
        """Queues a report; reports go out one after the other."""
        self.queue.append(dict(more, event=event, session=self.job["session"], key=self.order.get("key")))
        self.pump()

    def pump(self):
        """Takes note of the report that was sent and sends the next one."""
        if self.sending and self.sending.finished:
            self.gone = self.gone or self.sending.result[0] == 410
            self.sending = None
        if self.queue and not self.sending:
            body = self.queue.pop(0)
            self.sending = Task(self.watch.wake, lambda: persist(lambda: self.post_report(body), 1e12, self.over))

    def post_report(self, body):
        return post(self.job["hub"].rstrip("/") + "/hepspawner/report", body)

    def report_exit(self, reason, message):
        """The last report, and meanwhile the end of the scratch directory. A further signal ends the trying."""
        log = last_lines(self.log) if self.log is not None else ""
        ran = (self.watch.ended or time.monotonic()) - self.began if self.began else 0
        body = {"session": self.job["session"], "key": self.order.get("key"), "event": "exit", "reason": reason,
                "code": self.watch.code, "seconds": round(ran, 3), "log": log}
        body.update(self.image)
        if message:
            say(message)
            body["message"] = message
        signals, before = len(self.watch.signals), self.sending
        self.over.set()

        def deliver():
            if before:
                before.join()  # an earlier report must not arrive after this one
            return persist(lambda: self.post_report(body), time.time() + EXIT_REPORT, threading.Event())

        # A hub that disowned the session (`refused`) is told nothing more.
        task = Task(self.watch.wake, deliver) if reason != "refused" else None
        if self.scratch:
            import shutil  # dear; the server is gone by now
            shutil.rmtree(self.scratch, ignore_errors=True)
        if task:
            self.watch.until(lambda: task.finished or len(self.watch.signals) > signals, EXIT_REPORT + 2 * TIMEOUT)
            if task.result is None or task.result[0] != 200:
                say("the hub did not take the exit report (%s)" % ((task.result and task.result[0]) or "no answer"))


def read_job(stream):
    """The job of a stream. Raises ValueError, whose text says what is wrong with it."""
    job = json.loads(stream.read(ANSWER).decode())
    if not isinstance(job, dict):
        raise ValueError("no JSON object")
    lacking = [key for key, kind in (("session", str), ("ticket", str), ("expires", (int, float)), ("hub", str))
               if not isinstance(job.get(key), kind)]
    if lacking:
        raise ValueError("lacks " + ", ".join(lacking))
    return job


def adopt_orphans():
    """Makes what escapes from below the server our child (PR_SET_CHILD_SUBREAPER), so that it can be ended."""
    try:
        import ctypes  # not every Python has it
        adopted = ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        adopted = False
    if not adopted:
        say("processes that leave the server's tree cannot be found again on " + NODE)


def main(path=None):
    """Claims and runs the session of the job in a file, or on standard input. Returns the exit status."""
    watch = Watch()
    try:
        job = read_job(os.fdopen(os.open(path, os.O_RDONLY), "rb") if path else sys.stdin.buffer)
    except (OSError, ValueError) as error:
        say("malformed job: %s" % error)
        return BAD_JOB
    adopt_orphans()
    body = {"ticket": job["ticket"], "claimant": os.urandom(16).hex(), "host": None,
            "port": job["port"] if job.get("port_needed") else bindable(job.get("port") or 0) or bindable(0)}

    def ask():
        body["host"] = body["host"] or reachable(job.get("address"), job["hub"])
        return post(job["hub"].rstrip("/") + "/hepspawner/claim", body)

    task = Task(watch.wake, lambda: persist(ask, job["expires"], threading.Event()))
    while not task.finished:
        watch.wait(3600)
    watch.claimed = True
    status, answer = task.result
    if status == 200:
        return Session(watch, job, answer, body["host"], body["port"]).run()
    answer = answer.replace(job["ticket"], "(ticket)")
    if status == 0:
        say("the session could not be claimed in time: " + answer)
        return UNCLAIMED
    say("the hub refused the claim: %d %s" % (status, answer))
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
