#!/usr/bin/env python3
"""mkimage.py OUT.tar NAME ROOTDIR [--cmd A B …] [--entrypoint A …] [--workdir D]: a docker-archive of one layer, made
without a registry, for `ctr -n k8s.io images import OUT.tar`."""

import argparse
import hashlib
import io
import json
import tarfile

DAY = "2021-01-01T00:00:00Z"


def roots(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file as root's, without a time: the same folder always makes the same image."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    return entry


parser = argparse.ArgumentParser(description=__doc__)
for name in ("out", "name", "root"):
    parser.add_argument(name)
parser.add_argument("--cmd", nargs="+")
parser.add_argument("--entrypoint", nargs="+")
parser.add_argument("--workdir", default="/")
given = parser.parse_args()

buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as archive:
    archive.add(given.root, arcname=".", filter=roots)
layer = buffer.getvalue()
digest = hashlib.sha256(layer).hexdigest()
image = {
    "architecture": "amd64",
    "os": "linux",
    "created": DAY,
    "config": {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": given.cmd,
        "Entrypoint": given.entrypoint,
        "WorkingDir": given.workdir,
        "User": "",
    },
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    "history": [{"created": DAY, "created_by": "mkimage.py"}],
}
config = json.dumps(image).encode()
name = hashlib.sha256(config).hexdigest() + ".json"
manifest = json.dumps([{"Config": name, "RepoTags": [given.name], "Layers": [f"{digest}/layer.tar"]}]).encode()
with tarfile.open(given.out, "w") as archive:
    for path, content in ((name, config), (f"{digest}/layer.tar", layer), ("manifest.json", manifest)):
        info = tarfile.TarInfo(path)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
