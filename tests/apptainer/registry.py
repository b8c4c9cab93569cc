"""A registry on this machine's loopback, with one small image that holds a server of a few lines."""

import gzip
import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MODULES = "json, signal, http.server, urllib.request, encodings.idna, encodings.latin_1"
_WHERE = """
import sys
import MODULES
print(*{module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)}, sep="\\n")
"""


class Registry:
    """Serves the image under any name with the tag `v1`. `open_gate`: until then its layer is not handed out."""

    def __init__(self, layer: bytes):
        zipped = gzip.compress(layer, 1, mtime=0)
        config = {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "OF_THE_IMAGE=yes"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        about = json.dumps(config).encode()
        kinds = {"config": (about, "config.v1+json"), "layer": (zipped, "layer.v1.tar+gzip")}
        parts = {
            name: {"mediaType": f"application/vnd.oci.image.{kind}", "digest": _digest(data), "size": len(data)}
            for name, (data, kind) in kinds.items()
        }
        self.manifests: dict[str, bytes] = {}
        self.blobs = {_digest(data): data for data in (about, zipped)}
        self._list("v1", parts["config"], parts["layer"])
        self.layer = parts["layer"]["digest"]
        self.gate, self.asked = threading.Event(), threading.Event()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                kind, name = self.path.rpartition("/")[0].rpartition("/")[2], self.path.rpartition("/")[2]
                if self.path == "/v2/":
                    self.answer(200, b"{}")
                elif kind == "manifests" and name in registry.manifests:
                    self.answer(200, registry.manifests[name], _MANIFEST)
                elif kind == "blobs" and name in registry.blobs:
                    if name == registry.layer and self.command == "GET":
                        registry.asked.set()
                        registry.gate.wait(120)
                    self.answer(200, registry.blobs[name], "application/octet-stream")
                else:
                    self.answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')

            do_HEAD = do_GET

            def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Content-Digest", _digest(body))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _list(self, tag: str, config: dict[str, Any], layer: dict[str, Any]) -> None:
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
        data = json.dumps(manifest).encode()
        self.manifests |= {tag: data, _digest(data): data}

    def add_sif(self, tag: str, sif: bytes) -> None:
        """Serves a SIF as well, as `apptainer push oras://` leaves it in a registry."""
        parts: list[dict[str, Any]] = []
        for data, kind in ((b"{}", "config.v1+json"), (sif, "layer.v1.sif")):
            self.blobs[_digest(data)] = data
            kind = f"application/vnd.sylabs.sif.{kind}"
            parts.append({"mediaType": kind, "digest": _digest(data), "size": len(data)})
        parts[1]["annotations"] = {"org.opencontainers.image.title": "image.sif"}
        self._list(tag, *parts)

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def small_image(engines: dict[str, Any], server: Path) -> bytes:
    """A layer with what a server's script needs, taken out of the rig's image."""
    image = os.path.realpath(engines["image"])
    userns = ["--userns"] if os.getuid() == 0 else []
    run = [engines["apptainer"], "exec", "--cleanenv", *userns, image]
    where = _WHERE.replace("MODULES", _MODULES)
    modules = _said([*run, "/usr/bin/python3", "-I", "-S", "-c", where])
    libraries = _said([*run, "/bin/sh", "-c", "ldd /usr/bin/python3 /bin/sh"])
    files = [word for line in modules for word in line.split()]
    files += [word for line in libraries for word in line.split() if word.startswith("/") and not word.endswith(":")]
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for path in dict.fromkeys([*files, "/usr/bin/python3", "/bin/sh"]):
            # as a file, whatever links lead to it
            archive.add(os.path.join(image, os.path.relpath(_real(image, path), "/")), path.lstrip("/"), filter=_plain)
        for name in ("tmp", "proc", "sys", "dev", "etc", "home", "root", "var/tmp"):
            _put(archive, name, None)
        _put(archive, "etc/passwd", b"")
        _put(archive, "tiny.py", server.read_bytes())
        script = b"#!/bin/sh\nexec /usr/bin/python3 -I -S /tiny.py serve\n"
        _put(archive, "usr/local/bin/jupyterhub-singleuser", script)
    return layer.getvalue()


def _said(argv: list[str]) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def _real(image: str, path: str) -> str:
    while True:
        for parent in [*reversed(Path(path).parents), Path(path)]:
            here = Path(image + str(parent))
            if here.is_symlink():
                rest = os.path.relpath(path, parent)
                path = os.path.normpath(os.path.join(parent.parent, os.readlink(here), rest))
                break
        else:
            return path


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    return entry


def _put(archive: tarfile.TarFile, name: str, data: bytes | None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type = 0o755, tarfile.DIRTYPE if data is None else tarfile.REGTYPE
    entry.size = len(data or b"")
    archive.addfile(entry, io.BytesIO(data or b""))
