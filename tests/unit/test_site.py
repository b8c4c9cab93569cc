"""Reading a site file: what is good is understood, and what is bad is said so that an admin can mend it."""

import asyncio
import json
import logging
import os
import pwd
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner import backends
from hepspawner.backends.local import LocalConfig
from hepspawner.site import live
from hepspawner.site.live import LiveSite
from hepspawner.site.load import SiteError, load_site
from hepspawner.site.model import Image, Mount, Site

GOOD = "images: [{name: a, path: /x}]\nbackends: {here: {type: local}}\n"


@pytest.fixture
def problem(write_site, tmp_path):
    """The problems of a text, a line for each, without the file's name."""

    def read(text):
        with pytest.raises(SiteError) as caught:
            load_site(write_site(text))
        return str(caught.value).replace(f"{tmp_path}/", "")

    return read


# --- files that are none


def test_a_missing_file(tmp_path):
    with pytest.raises(SiteError) as caught:
        load_site(tmp_path / "site.yaml")
    assert str(caught.value) == f"{tmp_path}/site.yaml: cannot be read: No such file or directory"


def test_a_directory(tmp_path):
    with pytest.raises(SiteError, match="cannot be read: Is a directory"):
        load_site(tmp_path)


@pytest.mark.needs("users")
def test_an_unreadable_file(public_path, engines):
    path = public_path / "site.yaml"
    path.write_text(GOOD)
    path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "hepspawner.site.load", path],
        user=pwd.getpwnam(engines["users"][0]).pw_uid,
        capture_output=True,
        cwd=public_path,
        check=True,
    )
    problem = {"message": "cannot be read: Permission denied", "file": str(path), "line": None, "key": ""}
    assert json.loads(done.stdout) == {"problems": [problem]}


def test_a_file_that_is_too_large(problem):
    assert problem("#" * (20 * 2**20 + 1)) == "site.yaml: is larger than 20 MiB"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file(problem, text):
    assert "is empty: a site needs at least images and backends" in problem(text) or "must be a mapping" in problem(
        text
    )


@pytest.mark.parametrize(
    "text, line",
    [
        (b"\x00\x01\x02\xff", 1),
        (GOOD.encode() + b"\x7fELF\x02\x01\x01\x00", 3),
        (GOOD.encode() + b"# caf\xe9\n", 3),  # Latin-1
        (bytes(range(256)) * 100, None),
    ],
)
def test_a_binary_file(problem, text, line):
    words = problem(text)
    assert "is not YAML" in words
    assert words.count("\n") == 0
    assert line is None or words.startswith(f"site.yaml:{line}: ")


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("images:\n\t- name: a\n", 2, "cannot start any token"),
        ("images: [a, b\nbackends: {}\n", 2, "did not find expected ',' or ']'"),
        ("images: 'a\n", 2, "while scanning a quoted scalar"),
        ("images: {a: b\n", 2, "is not YAML"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("images: [*nobody]\n", 1, "found undefined alias"),
        (GOOD + "---\n" + GOOD, 3, "expected a single document"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(problem, text, line, words):
    told = problem(text)
    assert told.startswith(f"site.yaml:{line}: is not YAML: ")
    assert words in told


@pytest.mark.parametrize("text", ["- a\n- b\n", "just a text\n", "17\n", "[]"])
def test_what_is_no_mapping(problem, text):
    assert problem(text) == "site.yaml:1: must be a mapping with the keys images and backends"


# --- files that are out to hurt


def layers(first, layer, count=12):
    """YAML whose every line has ten aliases of the line before."""
    lines = [first]
    for i in range(1, count):
        here, before = f"a{i}", f"*a{i - 1}"
        lines.append(layer.format(here=here, ten=", ".join([before] * 10)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text, words",
    [
        (layers("a0: &a0 [lol]", "{here}: &{here} [{ten}]"), "has more than 500000 values, aliases counted"),
        (layers("a0: &a0 {{}}", "{here}: &{here} {{<<: [{ten}]}}"), "has more than 500000 values, aliases counted"),
        ("a: &a [*a, *a, *a]\n", "is nested too deeply"),
        ("a: &a {b: *a, c: *a}\n", "is nested too deeply"),
        ("a: &a {<<: *a, b: *a}\n", "is nested too deeply"),
        ("[" * 1_000_000, "is nested too deeply"),
        ("{a: " * 100_000, "is nested too deeply"),
        ("- " * 100_000, "is nested too deeply"),
        ("? " * 100_000, "is nested too deeply"),
        ("[" + "0," * 600_000 + "]", "has more than 500000 values"),
    ],
    ids=["laughs", "merged laughs", "self", "self in mapping", "self merged", "[", "{", "-", "?", "many"],
)
def test_bombs_neither_hang_nor_eat_memory_nor_crash(problem, text, words):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert words in problem(GOOD + text if text[0] == "a" else text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


def test_the_tags_of_python_run_nothing(problem):
    words = problem("images: [!!python/object/apply:os.system [exit 1], !!python/name:os.system x]\nbackends: 1\n")
    assert "site.yaml:1: images[0]: 'exit 1': must be a mapping" not in words
    assert "could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'" in words


def test_long_keys_and_values_are_cut(problem):
    words = problem(f"? {'k' * 100_000}\n: 1\nimages: {'v' * 100_000}\nbackends: {{here: {{type: local}}}}\n")
    assert len(words) < 500
    assert "'vvvvvv" in words and "kkkkkk" in words


def test_a_message_is_one_line_whatever_the_file_holds(problem):
    words = problem(GOOD + '"a\\nb": 1\n"c\\e[31m": 1\n')
    assert words.splitlines() == [
        "site.yaml:3: 'a\\nb': is no key here; there are: images, custom_images, backends, mounts, environment",
        "site.yaml:4: 'c\\x1b[31m': is no key here; there are: images, custom_images, backends, mounts, environment",
    ]


# --- single mistakes


@pytest.mark.parametrize(
    "text, told",
    [
        # names of keys
        ("imges: []\n" + GOOD, "site.yaml:1: imges: is no key here; did you mean images?"),
        ("backends: {here: {type: local}}\n", "site.yaml:1: images: is missing"),
        ("images: [{name: a, path: /x}]\n", "site.yaml:1: backends: is missing"),
        (GOOD.replace("path", "pth"), "site.yaml:1: images[0].pth: is no key here; did you mean path?"),
        (
            GOOD.replace("type", "typ"),
            "must say which type of backend this is; there are: htcondor, kubernetes, local, slurm",
        ),
        (GOOD.replace("local}", "local, cpu: {max: 1}}"), "backends.here.cpu: is no key here; did you mean cpus?"),
        (
            GOOD.replace("local}", "local, cpus: {maximum: 2, max: 1}}"),
            "site.yaml:2: backends.here.cpus.maximum: is no key here; did you mean max?",
        ),
        (
            GOOD + "custom_images: {allow: [/a], group: [x]}\n",
            "custom_images.group: is no key here; did you mean groups?",
        ),
        # types
        (GOOD + "mounts: /cvmfs\n", "site.yaml:3: mounts: '/cvmfs': must be a list"),
        (GOOD + "environment: [A]\n", "site.yaml:3: environment: must be a mapping"),
        ("images: {a: /x}\nbackends: {here: {type: local}}\n", "site.yaml:1: images: must be a list"),
        ("images: []\nbackends: {here: {type: local}}\n", "site.yaml:1: images: must not be empty"),
        ("images: [{name: a, path: /x}]\nbackends: {}\n", "site.yaml:2: backends: must not be empty"),
        ("images: [{name: a, path: /x}]\nbackends: [here]\n", "site.yaml:2: backends: must be a mapping"),
        ("images: [{name: a, path: /x}]\nbackends: {here: local}\n", "must be a mapping with at least the key type"),
        (GOOD.replace("local}", "local, cpus: {max: eight}}"), "cpus.max: 'eight': must be a whole number"),
        (GOOD.replace("local}", "local, cpus: {max: 1.5}}"), "cpus.max: 1.5: must be a whole number"),
        (GOOD.replace("local}", "local, cpus: {max: yes}}"), "cpus.max: True: must be a whole number"),
        (GOOD.replace("local}", "local, cpus: {max: 0}}"), "cpus.max: 0: input should be greater than or equal to 1"),
        # texts that YAML reads as something else
        (
            GOOD.replace("path: /x", "path: /x, title: 3.11"),
            "images[0].title: 3.11: is read by YAML as a number, not as",
        ),
        (
            GOOD.replace("path: /x", "path: /x, tags: [on]"),
            "images[0].tags[0]: True: is read by YAML as yes or no, not as",
        ),
        (GOOD.replace("path: /x", "path: /x, title: 2024-01-01"), "2024-01-01: is read by YAML as a date, not as text"),
        (
            GOOD.replace("name: a", "name: 7"),
            "images[0].name: 7: is read by YAML as a number, not as text: put it in quotes",
        ),
        (GOOD + "environment: {OMP: 1}\n", "site.yaml:3: environment.OMP: 1: is read by YAML as a number, not as text"),
        (GOOD + "3: x\n", "3: a key must be a text: put it in quotes"),
        # values
        (
            GOOD.replace("local", "slrum"),
            "backends.here.type: 'slrum': is no type of backend that is installed; there are: ",
        ),
        (GOOD.replace("local", "locla"), "did you mean local?"),
        (GOOD.replace("path: /x", "path: x"), "images[0].path: 'x': must be an absolute path"),
        (GOOD.replace("path: /x", "path: /a/../b"), "images[0].path: '/a/../b': may not contain .."),
        (GOOD.replace("path: /x", 'path: "/a\\nb"'), "images[0].path: '/a\\nb': may not contain control characters"),
        (GOOD.replace("path: /x", "path: [/x, y]"), "images[0].path[1]: 'y': must be an absolute path"),
        (GOOD.replace("path: /x", "path: []"), "images[0]: says not where it is: give path, prefix or oci"),
        (GOOD.replace("path: /x", "path: /x, prefix: /y"), "images[0]: has a prefix and a path or oci: a prefix is"),
        (
            GOOD.replace("path: /x", "path: /x, gpu: requird"),
            "allowed are: none, optional, required; did you mean required?",
        ),
        (
            GOOD.replace("name: a", "name: a b"),
            "images[0].name: 'a b': a name has up to 128 letters, digits and . _ : + @ -",
        ),
        (GOOD.replace("path: /x", 'path: /x, title: "a\\nb"'), "images[0].title: 'a\\nb': must be a single line"),
        (GOOD.replace("here", "here there"), "backends.here there: 'here there': a name has up to 128"),
        (GOOD + "environment: {a-b: x}\n", "site.yaml:3: environment: 'a-b' is no name of an environment variable"),
        (
            GOOD.replace("path: /x", "path: /x, backends: [her]"),
            "images[0].backends[0]: 'her' is no backend of this site; ",
        ),
        (
            GOOD.replace("path: /x", "path: /x, gpu: required"),
            "site.yaml:1: images[0].gpu: 'required', but no backend that may run this image has gpus",
        ),
        (
            GOOD.replace("images: [", "images: [{name: a, path: /y}, "),
            "site.yaml:1: images[1].name: 'a' is the name of images[0] already",
        ),
        (
            GOOD.replace("local}", "local, hub_url: hub}"),
            "hub_url: 'hub': must be http://host:port or https://host:port",
        ),
        (
            GOOD.replace("local}", "local, gpus: {t4: {vendor: nvdia}}}"),
            "allowed are: nvidia, amd; did you mean nvidia?",
        ),
        # amounts
        (GOOD.replace("local}", "local, cpus: {default: 9, max: 8}}"), "cpus: the default 9 is more than max, 8"),
        (
            GOOD.replace("local}", "local, memory: {default: 9G, max: 8G}}"),
            "memory: the default 9G is more than max, 8G",
        ),
        (
            GOOD.replace("local}", "local, runtime: {default: 2d, max: 8h}}"),
            "runtime: the default 2d is more than max, 8h",
        ),
        (
            GOOD.replace("local}", "local, memory: {default: 2, max: 8G}}"),
            "memory.default: 2: has no unit: write 512M or 8G",
        ),
        (
            GOOD.replace("local}", "local, runtime: {default: 8, max: 1d}}"),
            "runtime.default: 8: has no unit: write 30m or 8h",
        ),
        (
            GOOD.replace("local}", "local, memory: {default: 2 gigs, max: 8G}}"),
            "'2 gigs': write a number and a unit: 512M, 8G",
        ),
        (GOOD.replace("local}", "local, poll_interval: 30}"), "poll_interval: 30: has no unit: write 30m or 8h"),
        (GOOD.replace("local}", "local, memory: {default: .inf, max: 1G}}"), "memory.default: inf: has no unit"),
        (
            GOOD.replace("local}", f"local, memory: {{default: 0x{'f' * 5000}, max: 1G}}}}"),
            "a huge number: has no unit",
        ),
        # mounts
        (GOOD + "mounts: [/a:b]\n", "site.yaml:3: mounts[0]: 'b': must be an absolute path"),
        (GOOD + "mounts: [a]\n", "mounts[0]: 'a': must be an absolute path"),
        (
            GOOD + "mounts: ['/a:/b:rx']\n",
            "write source[:target[:ro]], or {source, target, read_only} for a path with a colon",
        ),
        (GOOD + "mounts: ['/a:/b:ro:z']\n", "write source[:target[:ro]], or {source, target, read_only}"),
        (GOOD + "mounts: [{target: /a}]\n", "site.yaml:3: mounts[0].source: is missing"),
        (
            GOOD + "mounts: [{source: /a, readonly: true}]\n",
            "mounts[0].readonly: is no key here; did you mean read_only?",
        ),
        (GOOD + "mounts: [{source: /a, read_only: maybe}]\n", "mounts[0].read_only: 'maybe': must be true or false"),
        # YAML's own
        (GOOD + "mounts: []\nmounts: []\n", "site.yaml:4: mounts: stands twice, first in line 3"),
        (GOOD.replace("name: a", "name: a, name: b"), "site.yaml:1: images[0].name: stands twice"),
        (GOOD + "2001-99-99: x\n", "site.yaml:1: cannot be read: month must be in 1..12"),
        (
            GOOD.replace("path: /x", "path: /x, title: 2001-99-99"),
            "images[0].title: cannot be read: month must be in 1..12",
        ),
        (
            GOOD.replace("{name", "{<<: 7, name"),
            "images[0]: cannot be read: expected a mapping or list of mappings for merging",
        ),
        (
            GOOD.replace("/x", "!thing /x"),
            "images[0].path: cannot be read: could not determine a constructor for the tag",
        ),
        (GOOD.replace("{name", "{? [a, b] : c, name"), "images[0].?: is no key here"),
    ],
)
def test_a_mistake_is_told_in_a_line(problem, text, told):
    words = problem(text)
    assert told in words
    assert words.count("\n") == 0, "one message for one mistake"
    assert words.startswith("site.yaml:")


def test_the_line_is_that_of_the_mistake(problem):
    text = (
        "images:\n  - name: a\n    path: /x\n\n  - name: b\n    path:\n      - /x\n      - y\n" + GOOD.splitlines()[1]
    )
    assert problem(text) == "site.yaml:8: images[1].path[1]: 'y': must be an absolute path"


def test_everything_that_is_wrong_is_told_in_one_go(golden, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent / "golden")
    with pytest.raises(SiteError) as caught:
        load_site("broken-site.yaml")
    golden("broken-site.txt", f"{caught.value}\n")


def test_a_dict_is_checked_like_a_file():
    with pytest.raises(SiteError) as caught:
        load_site({"images": [{"name": "a", "path": "x"}], "backends": {"here": {"type": "local"}}, "mount": []})
    assert str(caught.value).splitlines() == [
        "c.HEPSpawner.site: images[0].path: 'x': must be an absolute path",
        "c.HEPSpawner.site: mount: is no key here; did you mean mounts?",
    ]


class Plugin:
    """An entry point that cannot be loaded."""

    def __init__(self, error):
        self.error = error

    def load(self):
        raise self.error


@pytest.mark.parametrize(
    "error", [ImportError("no module named slurmlib"), AttributeError("no Backend in it"), ZeroDivisionError()]
)
def test_a_broken_plugin_is_told_and_hurts_nobody_else(problem, monkeypatch, error):
    monkeypatch.setattr(backends, "backend_types", lambda: {"mine": Plugin(error), **real})
    assert (
        problem(GOOD.replace("local", "mine")) == f"site.yaml:2: backends.here.type: 'mine': cannot be loaded: {error}"
    )
    assert problem(GOOD.replace("local", "mien")).endswith("; did you mean mine?")


real = backends.backend_types()


# --- what is good

DESIGN = """
images:
  - name: ml-base                      # unique; what links and API calls use
    title: ATLAS ML base               # default: the name
    description: NumPy, scikit-learn, XGBoost
    group: ATLAS                       # a heading in the form
    tags: [alma9, python3.11]
    path: /cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/ml-base:alma9-python311
    oci: docker.io/yesw2000/ml-base:alma9-python311
    gpu: optional
    groups: [usatlas]
    backends: [big, small]
    jupyter_path: /opt/conda/share/jupyter
    environment: {CUDA_CACHE_DISABLE: "1"}
    mounts: [/data]
    setup: source /opt/setup.sh        # shell lines, run in the container before the server
    command: [jupyterhub-singleuser]
    default_url: /lab
  - name: host
    prefix: /opt/jupyter               # no container
  - name: either
    path: [/cvmfs/first:v1/, /cvmfs//second.sif]
custom_images:
  allow: ["/cvmfs/unpacked.cern.ch/*", "/home/{username}/*"]
  groups: [usatlas]
backends:
  big:
    type: local
    title: SDCC HTC
    groups: []
    cpus: {default: 1, max: 8}
    memory: {default: 2G, max: 16G}
    runtime: {default: 8h, max: 4d}
    gpus: {a100: {title: NVIDIA A100, max: 4}}
    poll_interval: 30s
  small: {type: local}
mounts: [/cvmfs]
environment: {}
"""


def test_the_site_of_the_design(write_site):
    site = load_site(write_site(DESIGN))
    base, host, either = site.images
    assert base.label == "ATLAS ML base" and host.label == "host"
    assert base.places == ["/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/ml-base:alma9-python311"]
    assert base.mounts == [Mount(source="/data", target="/data")]
    assert base.environment == {"CUDA_CACHE_DISABLE": "1"}
    assert host.places == ["/opt/jupyter"]
    assert either.places == ["/cvmfs/first:v1", "/cvmfs/second.sif"]
    assert site.custom_images.allow == ["/cvmfs/unpacked.cern.ch/*", "/home/{username}/*"]
    big = site.backends["big"]
    assert isinstance(big, LocalConfig)
    assert (big.cpus.default, big.cpus.max) == (1, 8)
    assert (big.memory.default, big.memory.max) == (2 * 1024**3, 16 * 1024**3)
    assert (big.runtime.default, big.runtime.max) == (8 * 3600, 4 * 86400)
    assert (big.gpus["a100"].title, big.gpus["a100"].max, big.gpus["a100"].vendor) == ("NVIDIA A100", 4, "nvidia")
    assert big.groups == [] and site.backends["small"].groups is None
    assert site.mounts == [Mount(source="/cvmfs", target="/cvmfs")]


def test_what_is_not_said_has_a_sensible_default(write_site):
    site = load_site(write_site(GOOD))
    assert site.mounts == [Mount(source="/cvmfs", target="/cvmfs", read_only=True, optional=True)]
    assert site.custom_images is None
    assert site.images[0].gpu == "optional" and site.images[0].command == ["jupyterhub-singleuser"]
    assert site.backends["here"].poll_interval == 30


@pytest.mark.parametrize(
    "written, mount",
    [
        ("/data", Mount(source="/data", target="/data")),
        ("/data:/d", Mount(source="/data", target="/d")),
        ("/data:/d:ro", Mount(source="/data", target="/d", read_only=True)),
        ("/data:/d:rw", Mount(source="/data", target="/d")),
        ("/data/", Mount(source="/data", target="/data")),
        ({"source": "/d:ata", "read_only": True}, Mount(source="/d:ata", target="/d:ata", read_only=True)),
        ({"source": "/d", "target": "/a:b", "optional": True}, Mount(source="/d", target="/a:b", optional=True)),
        ({"source": "/with, comma"}, Mount(source="/with, comma", target="/with, comma")),
    ],
)
def test_mounts(written, mount):
    site = load_site(
        {"images": [{"name": "a", "path": "/x"}], "backends": {"h": {"type": "local"}}, "mounts": [written]}
    )
    assert site.mounts == [mount]


def test_anchors_and_merge_keys(write_site):
    text = """
images:
  - &base {name: a, path: /x, title: One, environment: &env {A: "1", B: "2"}}
  - {<<: *base, name: b}
  - {<<: [{title: First}, *base], name: c, environment: {<<: *env, B: "3"}}
backends: {here: {type: local}}
"""
    a, b, c = load_site(write_site(text)).images
    assert (b.name, b.title, b.path) == ("b", "One", ["/x"])
    assert (c.title, c.environment) == ("First", {"A": "1", "B": "3"})
    assert a.environment == {"A": "1", "B": "2"}


def test_unicode_is_text(write_site):
    site = load_site(write_site(GOOD.replace("path: /x", "path: /données/プール, title: Größe ☕")))
    assert site.images[0].title == "Größe ☕" and site.images[0].path == ["/données/プール"]


def test_nothing_of_a_site_can_be_changed(facility):
    with pytest.raises(ValueError, match="frozen"):
        facility.images[0].title = "x"


def test_a_thousand_images_are_no_trouble(write_site):
    entry = "  - {{name: i{0}, path: '/cvmfs/unpacked/i{0}:v1', title: Image {0}, tags: [a, b], gpu: none}}\n"
    text = "images:\n" + "".join(entry.format(i) for i in range(1000)) + "backends: {here: {type: local}}\n"
    assert len(load_site(write_site(text)).images) == 1000


# --- the way of a site from the process that reads it to the hub


def there_and_back(site):
    return Site.model_validate(json.loads(json.dumps(site.plain())))


def test_a_site_survives_the_way_from_the_reading_process(write_site, facility):
    for site in (load_site(write_site(DESIGN)), facility, load_site(write_site(GOOD))):
        back = there_and_back(site)
        assert back == site
        # whether an image named its command decides whose is taken
        assert [i.model_fields_set for i in back.images] == [i.model_fields_set for i in site.images]
        assert {name: type(b) for name, b in back.backends.items()} == {
            name: type(b) for name, b in site.backends.items()
        }


paths = st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1).map(
    lambda text: "/" + text.replace("..", "x")
)
texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
images = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z0-9][a-z._:+@-]{0,9}", fullmatch=True),
        "path": st.lists(paths, min_size=1, max_size=3),
    },
    optional={
        "description": texts,
        "environment": st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), texts, max_size=2),
        "mounts": st.lists(
            st.fixed_dictionaries({"source": paths}, optional={"target": paths, "read_only": st.booleans()})
        ),
        "command": st.lists(texts, min_size=1),
        "setup": texts,
    },
)
sizes = st.from_regex(r"[1-9][0-9]{0,3}(\.[0-9]{1,3})?[MG]", fullmatch=True)


@given(st.lists(images, min_size=1, max_size=3, unique_by=lambda image: image["name"]), sizes)
def test_any_site_survives_it(images, size):
    backend = {"type": "local", "memory": {"default": "1M", "max": size}, "poll_interval": "90s"}
    site = load_site({"images": images, "backends": {"here": backend}})
    assert there_and_back(site) == site


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.integers(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_garbage_is_refused_in_words(data):
    for key in ("images", "backends", "mounts", "environment", "custom_images"):
        site = {"images": [{"name": "a", "path": "/x"}], "backends": {"here": {"type": "local"}}, key: data}
        try:
            load_site(site)
            told = []
        except SiteError as error:
            told = error.problems
        assert all(one.message and "\n" not in str(one) and len(str(one)) < 1000 for one in told)


# --- following the file


class Follower:
    """A LiveSite of a file, what it logs and what it tells on."""

    def __init__(self, path, caplog):
        self.path, self.caplog = Path(path), caplog
        caplog.set_level(logging.INFO)
        self.live = LiveSite(str(path), logging.getLogger("test"))
        self.told = []
        self.live.on_change = self.told.append

    async def change(self, text):
        self.path.write_text(text)
        await self.live.reload(str(self.path))

    @property
    def errors(self):
        return [record.getMessage() for record in self.caplog.records if record.levelname == "ERROR"]


@pytest.fixture
def follower(write_site, caplog):
    return Follower(write_site(GOOD), caplog)


async def test_a_change_is_picked_up(follower):
    follower.live.load()
    assert [image.name for image in follower.live.site.images] == ["a"]
    await follower.change(GOOD.replace("name: a", "name: b"))
    assert [image.name for image in follower.live.site.images] == ["b"]
    assert [site.images[0].name for site in follower.told] == ["a", "b"]
    assert follower.errors == []


async def test_a_broken_change_keeps_the_last_good_site_until_it_is_mended(follower):
    follower.live.load()
    good = follower.live.site
    await follower.change(GOOD.replace("path", "pth"))
    assert follower.live.site is good
    problems = [str(problem) for problem in follower.live.problems]
    assert f"{follower.path}:1: images[0].pth: is no key here; did you mean path?" in problems
    (error,) = follower.errors
    assert "cannot be used; the last good one is kept" in error and "did you mean path?" in error
    await follower.change(GOOD.replace("name: a", "name: mended"))
    assert follower.live.site.images[0].name == "mended" and follower.live.problems == []
    assert [site.images[0].name for site in follower.told] == ["a", "mended"]


async def test_a_hub_that_starts_on_a_broken_site_takes_the_mended_one(write_site, caplog):
    follower = Follower(write_site("nonsense"), caplog)
    follower.live.load()
    assert follower.live.site is None and follower.told == []
    assert "no server can be started until it is mended" in follower.errors[0]
    await follower.change(GOOD)
    assert follower.live.site and follower.live.problems == []


async def test_a_file_that_goes_away_keeps_the_last_good_site(follower):
    follower.live.load()
    follower.path.unlink()
    await follower.live.reload(str(follower.path))
    assert follower.live.site
    assert [str(problem) for problem in follower.live.problems] == [
        f"{follower.path}: cannot be read: No such file or directory"
    ]


async def test_a_reading_process_that_dies_or_hangs_keeps_the_last_good_site(follower, monkeypatch, tmp_path):
    follower.live.load()
    hanging = tmp_path / "fifo.yaml"
    os.mkfifo(hanging)
    monkeypatch.setattr(live, "_READ_TIMEOUT", 0.2)
    await follower.live.reload(str(hanging))
    assert "could not be read within" in follower.live.problems[0].message
    monkeypatch.setattr(live.sys, "executable", "/bin/false")
    await follower.live.reload(str(follower.path))
    assert "the reading process failed" in follower.live.problems[0].message
    assert follower.live.site
    monkeypatch.undo()
    await follower.live.reload(str(follower.path))
    assert follower.live.problems == []


async def test_the_file_is_watched_and_each_change_told_once(follower, monkeypatch):
    monkeypatch.setattr(live, "_INTERVAL", 0.001)
    follower.live.load()
    looked, reloads = asyncio.Event(), []
    real_identity, real_reload = live._identity, follower.live.reload

    def identity(path):
        loop.call_soon_threadsafe(looked.set)
        return real_identity(path)

    async def reload(path):
        await real_reload(path)
        reloads.append(path)

    async def looks(times):
        for _ in range(times):
            looked.clear()
            await looked.wait()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(live, "_identity", identity)
    monkeypatch.setattr(follower.live, "reload", reload)
    task = asyncio.create_task(follower.live.follow())
    try:
        await looks(3)
        assert reloads == [], "nothing changed"
        # as careful editors do: another file in its place
        new = follower.path.with_suffix(".new")
        new.write_text("broken: [")
        new.rename(follower.path)
        while not follower.errors:
            await looks(1)
        await looks(5)
        assert len(reloads) == len(follower.errors) == 1
    finally:
        task.cancel()


async def test_a_dict_is_not_followed(facility):
    live_site = LiveSite({"images": [], "backends": {}}, logging.getLogger("test"))
    await live_site.follow()  # ends at once
    assert live_site.name == "c.HEPSpawner.site"


def test_the_form_of_an_image_that_is_only_an_oci_reference():
    image = Image(name="k", oci="docker.io/x/y:z")
    assert image.places == []
