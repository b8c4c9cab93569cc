"""What a server is started with. Each file in golden/ is one case, as `hepspawner preview` shows it."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import hepspawner
from hepspawner.apptainer import HOST_PATH, PROXIES
from hepspawner.backends.local import LocalBackend
from hepspawner.choice import ChoiceError, Offer, Who
from hepspawner.session import SECRET, Request, build_session, describe, is_secret, literal, summary
from hepspawner.site.load import load_site

TOKEN = "0123456789abcdef-the-token"


def session(image, options=None, *, user="alice", server="", site=None, backend=None, hub=None, **more):
    """The session of a site with one image and one backend."""
    given = {
        "images": [{"name": "ml-base", "title": "ATLAS ML base", **image}],
        "backends": {"farm": {"type": "local", **(backend or {})}},
        "mounts": [],
        **(site or {}),
    }
    loaded = load_site(given)
    choice = Offer(loaded, Who(user)).choose(options or {})
    base_url = f"/user/{user}/{server + '/' if server else ''}"
    hub_environment = {
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_API_URL": "http://hub:8081/hub/api",
        "JUPYTERHUB_USER": user,
        "JUPYTERHUB_SERVER_NAME": server,
        "JUPYTERHUB_SERVICE_PREFIX": base_url,
        **(hub or {}),
    }
    return build_session(
        Request(
            site=loaded,
            backend=loaded.backends["farm"],
            choice=choice,
            user=user,
            server=server,
            base_url=base_url,
            hub_environment=hub_environment,
            session="0f0f0f",
            **more,
        )
    )


SANDBOX = {"path": "/cvmfs/unpacked.cern.ch/ml-base"}
GPUS = {"gpus": {"a100": {"title": "NVIDIA A100", "max": 4}, "mi300": {"title": "AMD MI300", "vendor": "amd"}}}

CASES = {
    "sandbox": lambda: session(SANDBOX),
    "sif": lambda: session({"path": "/data/images/ml-base.sif"}),
    "path-with-colon": lambda: session({"path": "/cvmfs/unpacked.cern.ch/yesw2000/ml-base:alma9-python311"}),
    "prefix": lambda: session({"prefix": "/opt/jupyter"}),
    "gpu-nvidia": lambda: session(SANDBOX, {"gpu": "a100", "gpus": 2}, backend=GPUS),
    "gpu-amd": lambda: session(SANDBOX, {"gpu": "mi300"}, backend=GPUS),
    "gpu-prefix": lambda: session({"prefix": "/opt/jupyter"}, {"gpu": "a100"}, backend=GPUS),
    "setup": lambda: session({**SANDBOX, "setup": "source /opt/setup.sh\nexport A='b c'\n"}, args=["--debug"]),
    "mounts": lambda: session(
        {**SANDBOX, "mounts": [{"source": "/scratch:2", "target": "/data/scratch", "optional": True}]},
        site={"mounts": ["/cvmfs:/cvmfs:ro", "/data", {"source": "/opt", "optional": True, "read_only": True}]},
        backend={"mounts": [{"source": "/farm/data", "target": "/data"}]},
    ),
    "custom-image": lambda: session(
        SANDBOX,
        {"custom_image": "/home/alice/images/mine.sif"},
        site={"custom_images": {"allow": ["/home/{username}/*"]}},
    ),
    "reference": lambda: session(
        {**SANDBOX, "environment": {"A": "b"}},
        {"custom_image": "docker://ghcr.io/x/y"},
        site={"custom_images": {"allow": ["docker://ghcr.io/*"]}},
        backend={"environment": {"APPTAINER_CACHEDIR": "/scratch/@cache"}},
    ),
    "pinned": lambda: session(SANDBOX, {"image": "ml-base@8e1e32f4ab12cd34"}),
    "environment": lambda: session(
        {
            **SANDBOX,
            "environment": {"C": "image", "OMP_NUM_THREADS": "1", "JUPYTERHUB_USER": "mallory", "MY_PASSWORD": "x"},
        },
        site={"environment": {"A": "site", "B": "site", "C": "site", "USER": "the site's"}},
        backend={
            "environment": {"B": "backend", "C": "backend"},
            "cpus": {"default": 4, "max": 8},
            "memory": {"default": "2G", "max": "4G"},
            "runtime": {"default": "8h", "max": "1d"},
        },
    ),
    "default-url": lambda: session({**SANDBOX, "default_url": "/lab/tree/start.ipynb"}),
    "named-server": lambda: session(SANDBOX, server="gpu-work"),
    "jupyter-path": lambda: session({**SANDBOX, "jupyter_path": "/opt/conda/share/jupyter"}),
    "own-command": lambda: session(
        {**SANDBOX, "command": ["/opt/start me", "--x"]}, command=["not-this"], args=["--debug"], bind="0.0.0.0"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    golden(f"session-{name}.txt", describe(CASES[name]()))


def test_the_preview_of_a_backend_shows_its_command_too(golden, facility):
    backend = LocalBackend("cpu", facility.backends["cpu"].model_copy(update={"python": "/usr/bin/python3"}), None)
    text = backend.preview(CASES["sandbox"]())
    golden("preview-local.txt", text.replace(str(Path(hepspawner.__file__).parents[1]), "…"))


# --- what golden files cannot say


def test_a_backend_that_runs_images_itself_is_left_to_it():
    mounts = ["/data:/mnt/data", {"source": "/opt", "optional": True}]
    made = session({**SANDBOX, "setup": "source /opt/setup.sh"}, site={"mounts": mounts}, runs_images="places")
    assert made.container_image == SANDBOX["path"] and "apptainer" not in describe(made)
    order = made.order()
    assert order["argv"][:2] == ["/bin/bash", "-c"] and order["argv"][-1] == "jupyterhub-singleuser"
    assert order["environment"]["JUPYTERHUB_API_TOKEN"] == TOKEN and "PATH" not in order["environment"]
    assert order["inherit"] == {"*": "*"} and order["environment"]["HOME"] == "@HOME@" and not order["files"]
    assert order["requires"] == [{"path": "/mnt/data", "what": "mount"}]
    assert session({"prefix": "/opt/jupyter"}, runs_images="places") == CASES["prefix"]()


def test_a_backend_that_asks_registries_is_given_references():
    path = "/cvmfs/unpacked.cern.ch/registry.hub.docker.com/a/b:c"
    pinned = f"quay.io/a/b@sha256:{'ab' * 32}"
    for keys, reference in (({"path": path}, "docker.io/a/b:c"), ({"path": "/x", "oci": pinned}, pinned)):
        made = session(keys, runs_images="references")
        assert made.container_image == reference and made.found is None and "apptainer" not in describe(made)
        assert made.environment["HEPSPAWNER_IMAGE_DIGEST"] == reference.partition("sha256:")[2]
    with pytest.raises(ValueError, match="is in no registry"):
        session({"path": "/x"}, runs_images="references")


def test_a_backend_that_runs_images_itself_is_told_the_digest():
    place = f"/cvmfs/u.ch/.images/ab/{'c' * 62}"
    made = session(SANDBOX, runs_images="places", places=[place])
    assert made.container_image == place and made.environment["HEPSPAWNER_IMAGE_DIGEST"] == "ab" + "c" * 62


def test_an_image_that_left_its_site_is_not_run_without_its_settings():
    loaded = load_site({"images": [{"name": "x", **SANDBOX}], "backends": {"farm": {"type": "local"}}})
    choice = replace(Offer(loaded, Who("alice")).choose({}), image="gone")
    request = Request(loaded, loaded.backends["farm"], choice, "alice", "", "/user/alice/", {}, places=["/cvmfs/x"])
    with pytest.raises(ValueError, match="the site has no image gone"):
        build_session(request)


def test_nothing_of_the_hubs_environment_gets_in(monkeypatch):
    for name in (
        "PATH",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "JUPYTER_CONFIG_DIR",
        "JUPYTERHUB_CRYPT_KEY",
        "CONDA_PREFIX",
        "HOME",
    ):
        monkeypatch.setenv(name, f"/of/the/hub/{name}")
    for make in CASES.values():
        order = make().order()
        assert "/of/the/hub" not in json.dumps(order)
        assert set(order["inherit"]) <= {
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            "ROCR_VISIBLE_DEVICES",
            "HIP_VISIBLE_DEVICES",
            "GPU_DEVICE_ORDINAL",
            "ZE_AFFINITY_MASK",
            *(PROXIES if "pull" in (order["image"] or {}) else ()),
        }
    assert "PYTHONPATH" not in CASES["prefix"]().environment
    assert CASES["prefix"]().environment["PATH"] == f"/opt/jupyter/bin:{HOST_PATH}"


@pytest.mark.parametrize("name", CASES)
def test_secrets_are_in_the_environment_alone_and_never_shown(name):
    made = CASES[name]()
    assert TOKEN in made.environment.values()
    assert TOKEN not in json.dumps({**made.order(), "environment": {}})
    assert TOKEN not in describe(made)
    assert SECRET in describe(made)
    assert TOKEN not in str(made.without_secrets())


@pytest.mark.parametrize(
    "name",
    [
        "JUPYTERHUB_API_TOKEN",
        "JPY_API_TOKEN",
        "client_secret",
        "PGPASSWORD",
        "PASSWD",
        "SSH_KEY",
        "APIKEY",
        "AWS_ACCESS_KEY_ID",
    ],
)
def test_variables_that_are_not_shown(name):
    assert is_secret(name) and is_secret(f"APPTAINERENV_{name}")


@pytest.mark.parametrize("name", ["JUPYTERHUB_USER", "PATH", "OMP_NUM_THREADS", "JUPYTERHUB_SERVICE_URL", "HOME"])
def test_variables_that_are_shown(name):
    assert not is_secret(name)


HOSTILE = "a\nb, c\"d'e$(id)`id`\\ %s {x} ☕"


def test_hostile_values_are_data():
    made = session(
        {**SANDBOX, "environment": {"X": HOSTILE}, "setup": f"echo {shlex.quote(HOSTILE)}"},
        user="a$(id) b",
        hub={"Y": HOSTILE},
        args=[HOSTILE],
    )
    order = json.loads(json.dumps(made.order()))
    assert order["environment"]["APPTAINERENV_X"] == order["environment"]["APPTAINERENV_Y"] == HOSTILE
    assert order["environment"]["APPTAINERENV_USER"] == "a$(id) b"
    # the server's own argument is a word of its own, and is no text of the shell's
    assert order["argv"][-1] == HOSTILE
    assert order["argv"][-5:-2] == ["-c", f'echo {shlex.quote(HOSTILE)}\nexec "$@"', "setup"]


def test_hostile_paths_are_data():
    mount = {"source": '/da,ta:"1"\'s $(id)', "target": "/in: side,x"}
    path = '/images/a:b,"c" $(id)/--nv'
    made = session({"path": path, "mounts": [mount]})
    words = [word for word in made.argv if isinstance(word, str)]
    assert words[-2:] == ["@IMAGE@", "jupyterhub-singleuser"]
    assert made.found["places"] == [path]
    assert '''type=bind,"source=/da,ta:""1""'s $(id)","destination=/in: side,x"''' in words


@pytest.mark.parametrize("server", ["", "a", "ü ☕/..", "x" * 500, "../../.ssh/rc"])
def test_the_log_is_one_file_in_its_folder(server):
    log = session(SANDBOX, server=server).log
    folder, _, name = log.rpartition("/")
    assert folder == "~/.local/state/hepspawner"
    assert len(name) < 255 and name.endswith(".log")


def test_logs_of_servers_are_apart():
    assert len({session(SANDBOX, server=server).log for server in ("", "a", "b", "a b", "a%20b", "server")}) == 6


def test_an_image_that_was_found_elsewhere_is_run_there():
    made = session({"path": ["/first", "/second"]}, places=["/third"], also=["/first"])
    assert (made.found["places"], made.found["also"]) == (["/third"], ["/first"])
    assert session({"path": ["/first", "/second"]}).found["places"] == ["/first", "/second"]
    assert session({"prefix": "/opt/jupyter"}).order()["image"] is None


def test_an_image_without_a_path_is_not_offered():
    with pytest.raises(ChoiceError, match="there is no image that you may use here"):
        session({"oci": "docker.io/x/y:z"})


def test_what_must_be_there_and_what_may_be_missing():
    made = CASES["mounts"]()
    assert made.requires == [
        {"path": "/cvmfs", "what": "mount"},
        {"path": "/farm/data", "what": "mount"},
    ]
    optional = [word["when"] for word in made.argv if isinstance(word, dict) and word.get("note")]
    assert optional == ["/opt", "/scratch:2"]


def test_a_mount_below_another_comes_after_it():
    mounts = ["/a/b/c", "/x:/a", "/y:/a/b"]
    targets = [mount.target for mount in session(SANDBOX, site={"mounts": mounts}).mounts]
    assert targets == ["/a", "/a/b", "/a/b/c"]


def test_the_limit_of_time_reaches_launcher_and_server():
    made = CASES["environment"]()
    assert made.order()["runtime"] == made.runtime == 8 * 3600
    assert made.environment["APPTAINERENV_HEPSPAWNER_DEADLINE"] == "@DEADLINE@"
    assert "APPTAINERENV_HEPSPAWNER_DEADLINE" not in CASES["sandbox"]().environment


def test_a_site_may_set_threads_itself():
    assert CASES["environment"]().environment["APPTAINERENV_OMP_NUM_THREADS"] == "1"
    made = session(SANDBOX, backend={"cpus": {"default": 4, "max": 8}})
    assert made.environment["APPTAINERENV_OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(
    "options, line",
    [
        ({}, "ATLAS base on The farm with 1 core, 2G, 8h, partition short"),
        ({"cpus": 4, "runtime": "90m"}, "ATLAS base on The farm with 4 cores, 2G, 90m, partition short"),
        ({"image": "trainer", "gpu": "a100", "gpus": 2}, "trainer on The GPUs with 2 × NVIDIA A100, 4 cores, 8G"),
        (
            {"custom_image": "/cvmfs/unpacked/x", "partition": "long"},
            "/cvmfs/unpacked/x on The farm with 1 core, 2G, 8h, partition long",
        ),
        ({"backend": "secret-backend"}, "ATLAS base on secret-backend with 1 core"),
    ],
)
def test_a_choice_in_a_line(insider, facility, options, line):
    assert summary(insider.choose(options), facility) == line


def test_what_looks_like_a_placeholder_in_data_stays_data():
    assert literal("a@PORT@b@HOME@x@PORTx@ @AT@") == "a@AT@PORT@b@AT@HOME@x@PORTx@ @AT@AT@"
    filled = re.sub("@(PORT|HOME|AT)@", lambda m: {"AT": "@", "PORT": "1", "HOME": "2"}[m[1]], literal("@PORT@HOME@"))
    assert filled == "@PORT@HOME@"
