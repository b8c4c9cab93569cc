"""Running a cell in a user's server, as JupyterLab does: REST and a websocket, through the proxy."""

import json
import uuid
from typing import Any

import websocket

from tests.realhub import RealHub

_SECONDS = 60


def run_cell(hub: RealHub, user: str, code: str) -> str:
    """What a cell prints in a new kernel of the user's server, which is ended then."""
    token = hub.user_token(user)
    base, headers = f"{hub.url}/user/{user}/api/kernels", {"Authorization": f"token {token}"}
    made = hub.http.post(base, headers=headers, json={}, timeout=_SECONDS)
    assert made.status_code == 201, made.text
    kernel = made.json()["id"]
    address = f"{base.replace('http', 'ws', 1)}/{kernel}/channels"
    channel = websocket.create_connection(
        address, timeout=_SECONDS, header=headers, suppress_origin=True, http_no_proxy=["*"]
    )
    try:
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": user, "session": "s"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
        message = {"header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {}, "content": content}
        channel.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        return _output(channel, header["msg_id"])
    finally:
        channel.close()
        hub.http.delete(f"{base}/{kernel}", headers=headers, timeout=_SECONDS)


def _output(channel: Any, asked: str) -> str:
    text = ""
    while True:
        message = json.loads(channel.recv())
        if message["parent_header"].get("msg_id") != asked:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        assert kind != "error", content
        if kind == "stream":
            text += content["text"]
        elif kind == "status" and content["execution_state"] == "idle":
            return text


def kernels(hub: RealHub, user: str) -> list[str]:
    """What the launcher of JupyterLab offers: the kernels by the names that people see."""
    headers = {"Authorization": f"token {hub.user_token(user)}"}
    specs = hub.http.get(f"{hub.url}/user/{user}/api/kernelspecs", headers=headers, timeout=_SECONDS).json()
    return sorted(one["spec"]["display_name"] for one in specs["kernelspecs"].values())
