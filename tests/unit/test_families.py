"""Images that are one thing in several makings, told by their tags."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.catalog.families import families
from hepspawner.site.model import Image

HUB = "/cvmfs/unpacked.cern.ch/registry.hub.docker.com"


def image(path, **keys):
    return Image(**{"name": path.rpartition("/")[2].replace("/", "-"), "path": f"{HUB}/{path}", **keys})


def shown(images):
    """Titles, facets and labels of families."""
    return [
        (one.title, {facet.name: facet.values for facet in one.facets}, [member.label for member in one.members])
        for one in families(images)
    ]


def labels(*tags, **keys):
    """How the tags of one repository are told apart."""
    (family,) = families(image(f"atlas/base:{tag}", **keys) for tag in tags)
    return [member.label for member in family.members]


def test_tags_of_a_repository_are_one_family():
    tags = ("centos7-python38", "alma9-python39", "alma9-python311", "centos7-python39")
    assert shown(image(f"atlas/base:{tag}") for tag in tags) == [
        (
            "base",
            {"Operating system": ("alma9", "centos7"), "Python": ("Python 3.11", "Python 3.9", "Python 3.8")},
            ["alma9 · Python 3.11", "alma9 · Python 3.9", "centos7 · Python 3.9", "centos7 · Python 3.8"],
        )
    ]


def test_cpu_and_gpu_are_one_family():
    kinds = ("tf-cpu:alma9-python39", "tf-gpu:alma9-python39", "tf-gpu:alma9-python311")
    assert shown(image(f"atlas/{kind}") for kind in kinds) == [
        (
            "tf",
            {"Python": ("Python 3.11", "Python 3.9"), "Processor": ("CPU", "GPU")},
            ["Python 3.11 · GPU", "Python 3.9 · CPU", "Python 3.9 · GPU"],
        )
    ]


@pytest.mark.parametrize(
    "tags, expected",
    [
        (("1.0-ubuntu22.04", "1.0-ubuntu-24.04"), ["ubuntu24.04", "ubuntu22.04"]),
        (("6.30.04-alma9", "6.36.00-alma9", "latest"), ["alma9 · 6.36.00", "alma9 · 6.30.04", "– · latest"]),
        (("v2-cuda12.4-py311", "v2-cpu-py311", "v2-cu118-py310"), None),
        (("py3", "python-3.12", "py27"), ["Python 3", "Python 3.12", "Python 2.7"]),
        (("9", "10", "2"), ["10", "9", "2"]),
        (("a_b", "a-b"), ["a-b", "a_b"]),  # they say the same: the tags themselves tell them apart
        (("rocm6.2", "cpu", "gpu-cuda12.4"), ["CPU", "CUDA 12.4", "ROCm 6.2"]),
    ],
    ids=str,
)
def test_what_tags_say(tags, expected):
    expected = expected or ["Python 3.11 · CPU", "Python 3.11 · CUDA 12.4", "Python 3.10 · CUDA 11.8"]
    assert labels(*tags) == expected


def test_a_registry_with_a_port_has_no_tag():
    one, other = (image(f"host:5005/group/{name}") for name in ("one", "other"))
    assert [family.title for family in families([one, other])] == ["one", "other"]


def test_a_collection_is_shown_in_its_order():
    names = ("saturn", "mercury", "Jupyter", "venus", "mars", "earth")
    ((title, facets, _),) = shown(image(f"escape/{name}:v1") for name in names)
    assert (title, facets) == ("escape", {"Level": ("Mercury", "Venus", "Earth", "Mars", "Jupyter", "Saturn")})
    ((title, _, told),) = shown(image(f"org/escape-{name}:v{i}") for i in (1, 2) for name in ("mars", "earth"))
    assert (title, told) == ("escape", ["Earth · v2", "Earth · v1", "Mars · v2", "Mars · v1"])


def test_a_level_alone_is_no_collection():
    images = [image("data/jupyter:v1"), image("data/base:v1"), image("data/jupyter:v2")]
    assert [one.title for one in families(images)] == ["jupyter", "base:v1"]


def test_levels_of_a_site_stay_as_they_come():
    images = [image(f"x/{name}", family="Courses", level=level) for name, level in (("a", "small"), ("b", "large"))]
    assert shown(images) == [("Courses", {"Level": ("small", "large")}, ["small", "large"])]


def test_a_family_that_is_written_out():
    cpu = Image(name="cpu", prefix="/sw/a", family="Torch", gpu="none")
    gpu = Image(name="gpu", prefix="/sw/b", family="Torch", gpu="required", tags=["cuda 12.4"])
    assert shown([gpu, cpu]) == [("Torch", {"Processor": ("CPU", "CUDA 12.4")}, ["CPU", "CUDA 12.4"])]
    named = [Image(name=name, prefix=f"/{name}", family="Stacks", title=f"LCG {name}") for name in ("107", "108")]
    assert shown(named) == [("Stacks", {"Image": ("LCG 108", "LCG 107")}, ["LCG 108", "LCG 107"])]


def test_images_with_titles_of_their_own_stay_apart():
    images = [image("atlas/base:a", title="For courses"), image("atlas/base:b", title="For analyses")]
    assert [one.title for one in families(images)] == ["For courses", "For analyses"]


def test_titles_that_differ_in_the_tag_are_one():
    images = [image(f"atlas/base:{tag}", title=f"ATLAS base ({tag})") for tag in ("alma9", "alma8")]
    assert [one.title for one in families(images)] == ["ATLAS base"]


def test_groups_are_never_mixed():
    images = [image("atlas/base:a", group="A"), image("atlas/base:b", group="B")]
    assert len(families(images)) == 2


word = st.one_of(
    st.sampled_from(["alma9", "py311", "cuda", "cpu", "venus", "jupyter", "latest", "12.4", "ubuntu", "–", "·", ""]),
    st.text(max_size=6),
)
tag = st.lists(word, max_size=4).map("-".join)


@given(st.lists(st.tuples(word, tag, word, st.sampled_from(["", "", "F"]), word), max_size=12))
def test_whatever_tags_say_every_image_is_there_once_and_told_apart(given_images):
    images = []
    for i, (name, tag, title, family, level) in enumerate(given_images):
        keys = {"title": title, "family": family, "level": level}
        keys = {key: "".join(filter(str.isprintable, text)) for key, text in keys.items()}
        images.append(
            Image.model_construct(**{**Image(name=f"i{i}", path="/x").__dict__, "path": [f"/c/{name}:{tag}"], **keys})
        )
    found = families(images)
    assert sorted(member.image.name for one in found for member in one.members) == sorted(one.name for one in images)
    for one in found:
        assert len({member.values for member in one.members}) == len(one.members)
        for member in one.members:
            assert len(member.values) == len(one.facets)
            assert all(value in facet.values for value, facet in zip(member.values, one.facets, strict=True))
        ranks = [
            [facet.values.index(value) for value, facet in zip(member.values, one.facets, strict=True)]
            for member in one.members
        ]
        assert all(first < second for first, second in pairwise(ranks))
