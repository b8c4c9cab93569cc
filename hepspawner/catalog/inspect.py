"""Looks into an image: its server, its kernels, what they hang on. Facts only; `findings` draws the conclusions.

Runs as a program of its own, in a child that can be killed, or inside of a container by the image's Python, so:
standard library only, Python 3.6. Takes what to look at as JSON in its one argument, writes what it found as JSON.
Nothing of the image is run or imported.
"""

import glob
import json
import os
import re
import stat
import struct
import sys

_LINKS = 40
_KERNELS = 200
_LIBRARIES = 300
_BYTES = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Root:
    """The file system of an image, whose absolute links begin at its own root."""

    def __init__(self, top):
        self.top = top.rstrip("/")

    def real(self, path):
        """The path in the image with its links resolved; None where a link leads to nothing."""
        parts, done, links = path.split("/")[::-1], "", 0
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            here = done + "/" + part
            try:
                is_link = stat.S_ISLNK(os.lstat(self.top + here).st_mode)
                target = os.readlink(self.top + here) if is_link else None
            except OSError:
                return None
            if target is None:
                done = here
                continue
            links += 1
            if links > _LINKS:
                return None
            done = "" if target.startswith("/") else done
            parts += target.split("/")[::-1]
        return done or "/"

    def on_disk(self, path):
        """Where a path of the image is for this process; None where it is not."""
        real = self.real(path)
        return None if real is None else self.top + real

    def read(self, path, most=_BYTES):
        """The beginning of a file; None where it cannot be read."""
        place = self.on_disk(path)
        try:
            if place is None or not stat.S_ISREG(os.stat(place).st_mode):
                return None
            with open(place, "rb") as file:
                return file.read(most)
        except OSError:
            return None

    def runs(self, path):
        """Whether a path is a program."""
        place = self.on_disk(path)
        return place is not None and os.path.isfile(place) and os.access(place, os.X_OK)

    def names(self, path):
        """What is in a directory; nothing where it cannot be read."""
        place = self.on_disk(path)
        try:
            return sorted(os.listdir(place)) if place is not None else []
        except OSError:
            return []

    def program(self, name, path):
        """Where a command is found by a PATH; None where it is not."""
        if "/" in name:
            return name if self.runs(name) else None
        places = [folder.rstrip("/") + "/" + name for folder in path.split(":") if folder.startswith("/")]
        return next((place for place in places if self.runs(place)), None)


def path_of(root):
    """The PATH that Apptainer's scripts in the image make."""
    path = _PATH
    for name in root.names("/.singularity.d/env"):
        text = (root.read("/.singularity.d/env/" + name) or b"").decode("utf-8", "replace")
        for value in re.findall(r"(?m)^\s*(?:export\s+)?PATH=(.*)$", text):
            value = value.strip().strip("\"'")
            path = path.join(re.split(r"\$\{PATH[^}]*\}|\$PATH", value))
    return path


def python_of(root, program, path):
    """The interpreter in a script's first line; None where it has none."""
    line = (root.read(program, 512) or b"").partition(b"\n")[0].decode("utf-8", "replace")
    words = line[2:].split() if line.startswith("#!") else []
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return (root.program(words[0], path) or words[0]) if words else None
    return words[0] if words else None


def site_of(root, python):
    """(prefix, version as in `python3.11`, names in site-packages) of an interpreter, by its path or its real one."""
    prefix = python.rpartition("/bin/")[0]
    for place in (prefix, (root.real(python) or "").rpartition("/bin/")[0]):
        versions = [name for name in root.names(place + "/lib") if re.match(r"python\d+\.\d+$", name)]
        named = re.search(r"python\d+\.\d+$", root.real(python) or "")
        chosen = [name for name in versions if named and name == named.group()] or versions[-1:]
        if chosen:
            return place, chosen[0], root.names(f"{place}/lib/{chosen[0]}/site-packages")
    return prefix, "", []


def version_of(package, names):
    """The version of a package by the names in site-packages; "" where it is not there."""
    match = next(filter(None, (re.match(package + r"-(\d[^-]*)\.(?:dist|egg)-info", name) for name in names)), None)
    return match.group(1) if match else ""


def kernels_of(root, folders, path):
    """The kernelspecs: name, file, argv, and what is wrong with reading it or finding its command."""
    found = []
    for folder in folders:
        for name in root.names(folder)[:_KERNELS]:
            file = f"{folder}/{name}/kernel.json"
            kernel = {"name": name, "file": file, "argv": [], "wrong": ""}
            text = root.read(file)
            if text is None:
                broken = root.real(folder + "/" + name) is None or "kernel.json" in root.names(folder + "/" + name)
                if not broken:
                    continue
                kernel["wrong"] = "dangling"
            else:
                try:
                    argv = json.loads(text.decode("utf-8")).get("argv")
                    kernel["argv"] = [str(word)[:500] for word in argv][:50]
                except (ValueError, TypeError, AttributeError):
                    kernel["wrong"] = "malformed"
                words = kernel["argv"]
                if not words:
                    kernel["wrong"] = "malformed"
                else:
                    if words[0].endswith("/env"):
                        words = words[:1] + [word for word in words[1:] if not word.startswith("-") and "=" not in word]
                    missing = [
                        word for word in words[: 2 if words[0].endswith("/env") else 1] if not root.program(word, path)
                    ]
                    kernel["missing"] = missing[0] if missing else ""
            found.append(kernel)
    return found


def rpaths(data):
    """The directories in an ELF file's RPATH and RUNPATH; none where it is no 64-bit ELF file, or a broken one."""
    if data[:4] != b"\x7fELF" or data[4:5] != b"\x02":
        return []
    order = "<" if data[5:6] == b"\x01" else ">"
    try:
        (start,) = struct.unpack_from(order + "Q", data, 32)
        size, count = struct.unpack_from(order + "HH", data, 54)
        headers = [struct.unpack_from(order + "IIQQQQ", data, start + i * size) for i in range(count)]
        loads = [(vaddr, offset, length) for kind, _, offset, vaddr, _, length in headers if kind == 1]
        entries = {}
        for kind, _, offset, _, _, length in headers:
            if kind == 2:  # PT_DYNAMIC
                for at in range(offset, offset + length, 16):
                    tag, value = struct.unpack_from(order + "QQ", data, at)
                    entries.setdefault(tag, value)
                    if tag == 0:
                        break
        table = entries.get(5, 0)
        texts = next(
            (offset + table - vaddr for vaddr, offset, length in loads if vaddr <= table < vaddr + length), None
        )
        found = []
        for tag in (15, 29):
            if tag in entries and texts is not None:
                at = texts + entries[tag]
                found += data[at : data.index(b"\0", at)].decode("utf-8", "replace").split(":")
        return [one for one in found if one]
    except (struct.error, ValueError):
        return []


def libraries_of(root, prefix, version):
    """{fixed directory in an RPATH: (a file that names it, whether the directory is there)}, from a few libraries."""
    top = root.on_disk(f"{prefix}/lib/{version}")
    files = []
    for pattern in ("lib-dynload/*.so", "site-packages/*.so", "site-packages/*/*.so", "site-packages/*/*/*.so"):
        if top is not None and len(files) < _LIBRARIES:
            files += sorted(glob.glob(glob.escape(top) + "/" + pattern))
    found = {}
    for file in files[:_LIBRARIES]:
        try:
            with open(file, "rb") as opened:
                folders = rpaths(opened.read(4 * _BYTES))
        except OSError:
            continue
        for folder in folders:
            if folder.startswith("/") and folder not in found:
                found[folder] = [file[len(root.top) :], root.real(folder) is not None]
    return found


def look(order):
    """All that is told of the image at `root`, whose server is `command`; `kernels`: more directories of them."""
    root = Root(order["root"])
    path = os.environ.get("PATH", _PATH) if order.get("inside") else path_of(root)
    facts = {"path": path, "server": root.program(order["command"], path)}
    if order.get("only_server"):
        return facts
    facts["there"] = {name: root.real(name) is not None for name in ("/cvmfs", "/bin/sh", "/bin/bash")}
    python = python_of(root, facts["server"], path) if facts["server"] else root.program("python3", path)
    facts["python"] = python
    facts["python_runs"] = bool(python and root.runs(python))
    prefix, version, names = site_of(root, python or "/usr/bin/python3")
    facts["python_version"] = version[len("python") :]
    facts["packages"] = {name: version_of(name, names) for name in ("jupyterhub", "jupyterlab", "ipykernel")}
    folders = ["/usr/local/share/jupyter/kernels", "/usr/share/jupyter/kernels", prefix + "/share/jupyter/kernels"]
    folders = [one.rstrip("/") + "/kernels" for one in order.get("kernels", ())] or folders
    facts["kernels"] = kernels_of(root, list(dict.fromkeys(folders)), path)
    facts["rpaths"] = libraries_of(root, prefix, version)
    return facts


if __name__ == "__main__":
    json.dump(look(json.loads(sys.argv[1])), sys.stdout)
