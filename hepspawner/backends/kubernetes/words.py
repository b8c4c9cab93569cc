"""Kubernetes' words in a physicist's. Pure; `docs/kubernetes.md` shows the table."""

import re
from collections.abc import Mapping

from ..base import JobStatus, Phase
from ..exits import LAUNCHER_EXITS
from .pod import CONTAINER
from .reading import Event, Pod, Seen, State

_ADMINS = "Tell the site's admins."
_AGAIN = "Start it again."
_SIZE = "Ask for less, or for another GPU, or try again later."
_MOST = 300
_SECRET = 5.0
"""Seconds that a pod may wait for its Secret; the kubelet looks again and again."""
_CLAIM = 30.0
"""Seconds in which the scheduler may not have heard yet of a claim that was made right before the pod."""

# Why a container cannot start: it will not, however long one waits.
_HOPELESS = {
    "ImagePullBackOff": ("its image cannot be pulled", "Choose another image, or tell the site's admins."),
    "ErrImageNeverPull": ("its image is not on the node, and the site does not have it pulled", _ADMINS),
    "InvalidImageName": ("its image has a name that cannot be one", "Choose another image, or tell the site's admins."),
    "CreateContainerConfigError": ("its container cannot be made: something that it needs is missing", _ADMINS),
    "CreateContainerError": ("its container cannot be made", _ADMINS),
    "RunContainerError": ("its container cannot be started", _ADMINS),
    "CrashLoopBackOff": ("its container ends again and again", _ADMINS),
    "StartError": ("its container could not be started", "The image may lack Python, or tell the site's admins."),
    "ContainerCannotRun": ("its container could not be started", "The image may lack Python, or tell the admins."),
}
_MISSING = re.compile(r'persistentvolumeclaim "([^"]*)" not found')
# Since 1.24 a further sentence tells why no other pod is thrown out for it.
_NODES = re.compile(r"^(\d+)/(\d+) nodes are available: (.*?)(?:\. .*)?$", re.DOTALL)
# Of "0/3 nodes are available: …" what each part means; the number before it says for how many nodes.
_NO_ROOM = (
    (re.compile(r"Insufficient cpu"), "have too few free cores"),
    (re.compile(r"Insufficient memory"), "have too little free memory"),
    (re.compile(r"Insufficient (?:ephemeral-storage)"), "have too little free disk"),
    (re.compile(r"Insufficient (\S+/\S+?)\.?$"), "have no {} free"),
    (re.compile(r"(?:had|had untolerated) taint"), "are kept for others"),
    (re.compile(r"were unschedulable"), "are closed by an admin"),
    (re.compile(r"didn't match"), "are not of the kind that was asked for"),
    (re.compile(r"volume node affinity conflict"), "cannot reach its volume"),
)


def waiting_of(message: str) -> str:
    """What the scheduler says, in words, and its own beside them: ``0/3 nodes are available: 3 Insufficient cpu.``"""
    message = message.strip()
    said = message[:_MOST]
    if missing := _MISSING.search(message):
        return f"its volume {missing[1]} is not there ({said})"
    if "unbound immediate PersistentVolumeClaims" in message:
        return f"its volume is not made yet ({said})"
    if not (match := _NODES.match(message)):
        return f"Kubernetes says: {said}"
    parts = []
    for part in match[3].split(", "):
        number, _, text = part.strip().partition(" ")
        for pattern, words in _NO_ROOM:
            if number.isdigit() and (found := pattern.search(text)):
                parts.append(f"{number} {words.format(*found.groups())}")
                break
    if not parts:
        return f"none of {match[2]} nodes can have it ({said})"
    return f"none of {match[2]} nodes has room: {', '.join(parts)} ({said})"


def status_of(seen: Seen, now: float, patience: float) -> JobStatus:
    """What a pod does. `patience`: seconds that it may wait for a node, and then there for its volumes."""
    pod = seen.pod
    if pod.ended:
        return end_of(pod, seen.events)
    if pod.server is not None and pod.server.kind == "running":
        why = "it is being ended" if pod.leaving else ""
        return JobStatus(Phase.RUNNING, why, host=pod.node)
    failed = next((one for one in pod.others if one[1].kind == "terminated" and one[1].exit_code), None)
    if failed and pod.phase == "Failed":
        return end_of(pod)
    if pod.node:
        return _on_node(pod, seen.events, now - (pod.scheduled or pod.created) > patience)
    return _without_node(pod, seen.events, now - pod.created, patience)


def is_half_made(seen: Seen) -> bool:
    """Whether a pod lacks its Secret long after that should have been made: whoever made the pod ended in between."""
    trouble = _trouble(seen.events, *_VOLUMES)
    lacks = trouble is not None and f'secret "{seen.pod.name}" not found' in trouble.message
    return trouble is not None and lacks and trouble.at - seen.pod.created > _SECRET


HALF_MADE = JobStatus(Phase.QUEUED, "the hub ended before all was made that it needs", None, _AGAIN, True)


_VOLUMES = ("FailedMount", "FailedAttachVolume")


def _trouble(events: Mapping[str, Event], *reasons: str) -> Event | None:
    """What is wrong with volumes or the network, as long as it is: after them comes the image."""
    trouble = next((events[reason] for reason in reasons if reason in events), None)
    later = [one for one in (events.get("Pulling"), events.get("Pulled")) if one and trouble and one.at >= trouble.at]
    return None if later else trouble


def _without_node(pod: Pod, events: Mapping[str, Event], age: float, patience: float) -> JobStatus:
    said = pod.unscheduled or getattr(events.get("FailedScheduling"), "message", "")
    if not said:
        return JobStatus(Phase.QUEUED, "the scheduler has not looked at it yet")
    words = waiting_of(said)
    if "TriggeredScaleUp" in events:
        words = f"a node is being started for it; {words}"
    missing = bool(_MISSING.search(said))
    late = age > (min(_CLAIM, patience) if missing else patience)
    advice = _ADMINS if missing or "PersistentVolumeClaims" in said else _SIZE
    return JobStatus(Phase.QUEUED, words, None, advice if late else "", late)


def _on_node(pod: Pod, events: Mapping[str, Event], late: bool) -> JobStatus:
    for name, state in (*pod.others, (CONTAINER, pod.server or State("waiting"))):
        if state.kind == "waiting" and state.reason in _HOPELESS:
            text, advice = _HOPELESS[state.reason]
            where = "" if name == CONTAINER else f" (container {name})"
            said = _said(state.message or getattr(events.get("Failed"), "message", ""), state.reason)
            return JobStatus(Phase.QUEUED, f"{text}{where} ({said})", None, advice, True, host=pod.node)
    on = f"on node {pod.node}"
    begun = any(state.kind != "waiting" for _, state in pod.others)  # with all volumes, on the network
    trouble = None if begun else _trouble(events, *_VOLUMES)
    if trouble is not None:
        text = f"a volume cannot be mounted {on} ({_said(trouble.message)})"
        never = "hostPath type check failed" in trouble.message or late
        return JobStatus(Phase.QUEUED, text, None, _ADMINS if never else "", never, host=pod.node)
    trouble = None if begun else _trouble(events, "FailedCreatePodSandBox")
    if trouble is not None:
        text = f"the node cannot make its network yet ({_said(trouble.message)})"
        return JobStatus(Phase.QUEUED, text, None, _ADMINS if late else "", late, host=pod.node)
    steps = {one.reason: one for one in events.values()}
    pulling, pulled = steps.get("Pulling"), steps.get("Pulled")
    if pod.server is not None and pod.server.reason == "ErrImagePull":
        return JobStatus(Phase.QUEUED, f"its image cannot be pulled yet {on}; it is tried again", host=pod.node)
    if pulling and not (pulled and pulled.at >= pulling.at):
        return JobStatus(Phase.QUEUED, f"its image is being pulled {on}", host=pod.node)
    if "SuccessfulAttachVolume" in steps and not pulled:
        return JobStatus(Phase.QUEUED, f"its volumes were attached {on}", host=pod.node)
    return JobStatus(Phase.QUEUED, f"its container is being started {on}", host=pod.node)


def _said(message: str, reason: str = "") -> str:
    text = " ".join(message.split())[:_MOST]
    return f"{reason}: {text}" if reason and text else reason or text


_NODE_TROUBLE = ("NodeNotReady", "TaintManagerEviction")


def end_of(pod: Pod, events: Mapping[str, Event] | None = None) -> JobStatus:
    """How a pod ended, after such events."""
    where = f" {pod.node}" if pod.node else ""

    def ended(text: str, advice: str = _AGAIN, code: int | None = None) -> JobStatus:
        return JobStatus(Phase.ENDED, text, code, advice, host=pod.node)

    if pod.reason == "Evicted":
        advice = "Ask for more memory or disk, or start it again."
        return ended(f"its node{where} needed the room and evicted it ({_said(pod.message)})", advice)
    if pod.reason in ("NodeLost", "NodeShutdown", "Shutdown", "Terminated"):
        return ended(f"its node{where} went away ({_said(pod.message, pod.reason)})")
    if pod.reason == "Preempting":
        return ended(f"a pod of higher priority took its place ({_said(pod.message)})")
    if pod.reason.startswith("UnexpectedAdmissionError") or pod.reason.startswith("OutOf"):
        return ended(f"its node{where} has no room for it after all ({_said(pod.message, pod.reason)})")
    bad = [one for one in pod.others if one[1].kind == "terminated" and one[1].exit_code]
    name, state = bad[0] if bad and (pod.server is None or pod.server.kind != "terminated") else ("", pod.server)
    if state is None or state.kind != "terminated":
        if pod.leaving and any(one in (events or {}) for one in _NODE_TROUBLE):
            return ended(f"its node{where} went away")
        if pod.leaving:
            return ended("its pod was deleted", "Ask the site's admins if it was not you.")
        return ended(f"its pod ended{f' ({_said(pod.message, pod.reason)})' if pod.reason else ''}")
    return _container_end(pod, name, state, ended)


def _container_end(pod: Pod, name: str, state: State, ended: object) -> JobStatus:
    assert callable(ended)
    code = state.exit_code
    whose = f"its container {name}" if name else "the server's container"
    if state.reason == "OOMKilled":
        result: JobStatus = ended("it needed more memory than was asked for (OOMKilled)", "Ask for more memory.", code)
    elif state.reason in _HOPELESS:
        text, advice = _HOPELESS[state.reason]
        result = ended(f"{text} ({_said(state.message, state.reason)})", advice, code)
    elif pod.leaving and not name and code in (0, 137, 143):
        result = ended("its pod was deleted", "Ask the site's admins if it was not you.")
    elif code in LAUNCHER_EXITS and not name:
        result = ended(*LAUNCHER_EXITS[code], code)
    elif code:
        how = f"was killed by signal {code - 128}" if 128 < code <= 192 else f"ended with exit code {code}"
        result = ended(f"{whose} {how}", _ADMINS if name else _AGAIN, code)
    else:
        result = ended(f"{whose} ended", _AGAIN, 0)
    return result


def last_words(pod: Pod) -> list[str]:
    """The last lines of the logs of containers that failed, now or before, as Kubernetes keeps them."""
    states = [*(state for _, state in pod.others), *([pod.server] if pod.server else [])]
    ends = [one if one.kind == "terminated" else one.before for one in states]
    return [line for one in ends if one and one.exit_code for line in one.message.splitlines()]


# What the API server says when it refuses → what is wrong, for the user. The first that is found counts.
_REFUSALS = (
    ("exceeded quota", "as much as the namespace allows is in use ({})", "Stop a server of yours, or ask for less."),
    ("is forbidden: User", "the hub may not do that in Kubernetes ({})", ""),
    ("is forbidden", "the cluster's rules do not allow it ({})", ""),
    ("not found", "Kubernetes lacks something that it needs ({})", ""),
    ("is invalid", "Kubernetes does not take such a pod ({})", ""),
)


def refusal(message: str) -> str:
    """Why the API server made no pod, in words."""
    said = " ".join(message.split())[:500]
    for part, text, advice in _REFUSALS:
        if part in message:
            return f"{text.format(said)}{'. ' + advice.rstrip('.') if advice else ''}"
    return f"Kubernetes says: {said}"
