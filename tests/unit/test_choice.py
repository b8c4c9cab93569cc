"""What a user may ask for: the rules, the words for what breaks them, and that nothing else gets through."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hepspawner.choice import Choice, ChoiceError, Field, Offer, Who, from_form
from hepspawner.site.load import load_site
from tests.unit.conftest import FACILITY, OWN_FIELDS, offer_with

G = 1024**3


def refused(offer, options):
    """The errors of options that are not allowed."""
    with pytest.raises(ChoiceError) as caught:
        offer.choose(options)
    return caught.value.errors


# --- what is good


def test_nothing_asked_for_starts_a_server(offer):
    for nothing in ({}, None):
        assert offer.choose(nothing) == Choice(
            backend="cpu", image="base", cpus=1, memory=2 * G, runtime=8 * 3600, extra={"partition": "short"}
        )


def test_everything_asked_for(offer):
    options = {
        "image": "base",
        "backend": "gpu",
        "cpus": "16",
        "memory": "32G",
        "gpu": "a100",
        "gpus": 2,
    }
    assert offer.choose(options) == Choice(
        backend="gpu", image="base", cpus=16, memory=32 * G, gpu="a100", gpus=2, runtime=None
    )


@pytest.mark.parametrize(
    "options, backend, gpu, gpus",
    [
        # no GPU asked for
        ({"image": "base"}, "cpu", None, 0),
        ({"image": "plain"}, "cpu", None, 0),
        ({"image": "base", "backend": "gpu"}, "gpu", None, 0),
        ({"image": "base", "backend": "gpu", "gpus": 0}, "gpu", None, 0),
        ({"image": "base", "backend": "cpu", "gpus": 0}, "cpu", None, 0),
        ({"image": "plain", "backend": "gpu", "gpus": "0"}, "gpu", None, 0),
        # the image needs one: the first kind, on the first backend that has any
        ({"image": "trainer"}, "gpu", "t4", 1),
        ({"image": "trainer", "gpu": "a100"}, "gpu", "a100", 1),
        ({"image": "trainer", "backend": "gpu", "gpu": "a100", "gpus": 4}, "gpu", "a100", 4),
        # asked for: the first backend that has it
        ({"gpu": "a100"}, "gpu", "a100", 1),
        ({"gpus": 1}, "gpu", "t4", 1),
        ({"image": "base", "gpu": "a100", "gpus": "3"}, "gpu", "a100", 3),
        # the image decides where
        ({"image": "on-gpu-only"}, "gpu", None, 0),
        # the backend decides what
        ({"backend": "gpu"}, "gpu", None, 0),
        # an image of one's own
        ({"custom_image": "/cvmfs/unpacked/x"}, "cpu", None, 0),
        ({"custom_image": "/cvmfs/unpacked/x", "gpus": 1}, "gpu", "t4", 1),
    ],
)
def test_images_gpus_and_backends(offer, options, backend, gpu, gpus):
    choice = offer.choose(options)
    assert (choice.backend, choice.gpu, choice.gpus) == (backend, gpu, gpus)
    assert choice.image == (None if "custom_image" in options else options.get("image", "base"))


def test_a_backend_alone_takes_an_image_that_runs_there():
    site = load_site(
        {
            "images": [{"name": "a", "path": "/a", "backends": ["x"]}, {"name": "b", "path": "/b"}],
            "backends": {"x": {"type": "local"}, "y": {"type": "local"}},
        }
    )
    assert Offer(site, Who("alice")).choose({"backend": "y"}).image == "b"


@pytest.mark.parametrize(
    "option, given, value",
    [
        ("cpus", 1, 1),
        ("cpus", "8", 8),
        ("cpus", " 8 ", 8),
        ("memory", "16G", 16 * G),
        ("memory", "1.5G", 3 * G // 2),
        ("memory", "128M", 128 * 1024**2),
        ("runtime", "4d", 345600),
        ("runtime", "1m", 60),
    ],
)
def test_values_within_the_range(offer, option, given, value):
    assert getattr(offer.choose({"backend": "cpu", option: given}), option) == value


def test_the_backends_own_fields(offer):
    assert offer.choose({"partition": "long", "nodes": 2}).extra == {"partition": "long", "nodes": 2}


def test_a_backend_that_offers_nothing_to_choose(insider):
    choice = insider.choose({"backend": "secret-backend"})
    assert (choice.cpus, choice.memory, choice.runtime, choice.gpu) == (1, None, None, None)


# --- what is not, in words


@pytest.mark.parametrize(
    "options, field, text",
    [
        # what does not exist
        ({"image": "bas"}, "image", "'bas' is not available to you; did you mean base?"),
        ({"image": "zzz"}, "image", "'zzz' is not available to you; allowed: base, plain, trainer, on-gpu-only"),
        ({"image": ""}, "image", "'' is not available to you; allowed: base, plain, trainer, on-gpu-only"),
        ({"image": 7}, "image", "7 is not available to you; allowed: base, plain, trainer, on-gpu-only"),
        (
            {"image": 10**5000},
            "image",
            "a huge number is not available to you; allowed: base, plain, trainer, on-gpu-only",
        ),
        ({"backend": "cpv"}, "backend", "'cpv' is not available; allowed: cpu, gpu"),
        ({"backend": "CPU"}, "backend", "'CPU' is not available; allowed: cpu, gpu"),
        (
            {"cpu": 1},
            "cpu",
            "is not an option on cpu; did you mean cpus?; there are: backend, cpus, custom_image, "
            "image, memory, nodes, partition, runtime",
        ),
        (
            {"partition": "shot"},
            "partition",
            "'shot' is not allowed on The farm; allowed: short, long; did you mean short?",
        ),
        # what does not go together
        ({"image": "trainer", "backend": "cpu"}, "backend", "'cpu' is not available for trainer; allowed: gpu"),
        ({"image": "on-gpu-only", "backend": "cpu"}, "backend", "'cpu' is not available for on-gpu-only; allowed: gpu"),
        ({"backend": "cpu", "gpu": "t4"}, "gpu", "cpu has no GPUs; there are GPUs on: gpu"),
        ({"backend": "cpu", "gpus": 1}, "gpus", "cpu has no GPUs; there are GPUs on: gpu"),
        (
            {"image": "plain", "gpu": "t4"},
            "gpu",
            "plain is an image without GPU software; choose no GPU, or another image",
        ),
        (
            {"image": "plain", "gpus": 1},
            "gpu",
            "plain is an image without GPU software; choose no GPU, or another image",
        ),
        ({"image": "trainer", "gpus": 0}, "gpu", "trainer needs a GPU; choose one of: t4, a100"),
        ({"gpu": "a100", "gpus": 0}, "gpus", "0 does not go with the GPU a100; allowed: 1 to 4"),
        ({"gpu": "t4", "gpus": 2}, "gpus", "2 is not allowed; allowed: 1 to 1 of NVIDIA T4"),
        ({"gpu": "a100", "gpus": 5}, "gpus", "5 is not allowed on The GPUs; allowed: 0 to 4"),
        (
            {"backend": "gpu", "gpu": "a10"},
            "gpu",
            "'a10' is not allowed on The GPUs; allowed: t4, a100; did you mean a100?",
        ),
        (
            {"backend": "gpu", "partition": "short"},
            "partition",
            "is not an option on gpu; there are: backend, cpus, custom_image, gpu, gpus, image, memory",
        ),
        (
            {"image": "base", "custom_image": "/cvmfs/unpacked/x"},
            "custom_image",
            "cannot stand beside image: give one of them",
        ),
        # amounts
        ({"cpus": 9}, "cpus", "9 is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": 0}, "cpus", "0 is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": -1}, "cpus", "-1 is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": "two"}, "cpus", "'two' is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": "1.5"}, "cpus", "'1.5' is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": "٣"}, "cpus", "'٣' is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": "0x4"}, "cpus", "'0x4' is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": 10**5000}, "cpus", "a huge number is not allowed on The farm; allowed: 1 to 8"),
        ({"cpus": 1.0}, "cpus", "1.0 is not allowed; allowed: a text or a whole number"),
        ({"cpus": True}, "cpus", "True is not allowed; allowed: a text or a whole number"),
        ({"cpus": float("nan")}, "cpus", "nan is not allowed; allowed: a text or a whole number"),
        ({"cpus": [1]}, "cpus", "a list is not allowed; allowed: a text or a whole number"),
        ({"nodes": 0}, "nodes", "0 is not allowed on The farm; allowed: 1 or more"),
        ({"memory": "17G"}, "memory", "'17G' is not allowed on The farm; allowed: 128M to 16G"),
        ({"memory": "1M"}, "memory", "'1M' is not allowed on The farm; allowed: 128M to 16G"),
        ({"memory": "4"}, "memory", "'4' cannot be read; write a number and a unit: 512M, 8G"),
        ({"memory": 4}, "memory", "4 has no unit; write 2G, for example"),
        ({"runtime": "5d"}, "runtime", "'5d' is not allowed on The farm; allowed: 1m to 4d"),
        ({"runtime": 3600}, "runtime", "3600 has no unit; write 8h, for example"),
        # shapes
        ([], "user_options", "must be a mapping of names to values"),
        ("image", "user_options", "must be a mapping of names to values"),
        ({"image": "x" * 5000}, "image", "is longer than 4096 characters"),
        ({"x" * 65: 1}, "user_options", f"'{'x' * 60}…' is not an option"),
        ({"a\nb": 1}, "user_options", "'a\\nb' is not an option"),
        ({7: 1}, "user_options", "7 is not an option"),
        ({str(i): i for i in range(41)}, "user_options", "has more than 40 options"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(offer, options, field, text):
    assert refused(offer, options) == {field: text}


def test_all_mistakes_are_told_at_once(offer, golden):
    options = {
        "image": "base",
        "cpus": 99,
        "memory": "1P",
        "gpu": "h100",
        "runtime": "1w",
        "colour": "red",
        "partition": "x",
    }
    errors = refused(offer, options)
    assert set(errors) == {"cpus", "memory", "gpu", "runtime", "colour", "partition"}
    golden("choice-errors.txt", "".join(f"{name}: {text}\n" for name, text in errors.items()))


# --- images of one's own


@pytest.mark.parametrize(
    "path, stands_for",
    [
        ("/cvmfs/unpacked/a/b:v1", "/cvmfs/unpacked/a/b:v1"),
        ("/cvmfs/unpacked//a/./b/", "/cvmfs/unpacked/a/b"),
        ("/home/alice/images/mine.sif", "/home/alice/images/mine.sif"),
        ("//cvmfs/unpacked/a", "/cvmfs/unpacked/a"),
        ("/cvmfs/unpacked/with, 'quotes\" $(and) ☕", "/cvmfs/unpacked/with, 'quotes\" $(and) ☕"),
        ("/cvmfs/unpacked/*", "/cvmfs/unpacked/*"),
    ],
)
def test_custom_images_that_are_allowed(offer, path, stands_for):
    assert offer.choose({"custom_image": path}).custom_image == stands_for


ALLOWED = "allowed: /cvmfs/unpacked/*, /home/alice/images/*"


@pytest.mark.parametrize(
    "path, text",
    [
        ("/etc/passwd", f"'/etc/passwd' is not allowed; {ALLOWED}"),
        ("/home/bob/images/x", f"'/home/bob/images/x' is not allowed; {ALLOWED}"),
        ("/cvmfs/unpackedX/a", f"'/cvmfs/unpackedX/a' is not allowed; {ALLOWED}"),
        ("/home/{username}/images/x", f"'/home/{{username}}/images/x' is not allowed; {ALLOWED}"),
        ("/CVMFS/unpacked/a", f"'/CVMFS/unpacked/a' is not allowed; {ALLOWED}"),
        ("/", f"'/' is not allowed; {ALLOWED}"),
        (7, f"7 is not allowed; {ALLOWED}"),
        ("/cvmfs/unpacked/../../etc", "'/cvmfs/unpacked/../../etc' may not contain .."),
        ("/cvmfs/unpacked/..", "'/cvmfs/unpacked/..' may not contain .."),
        ("cvmfs/unpacked/x", "'cvmfs/unpacked/x' must be an absolute path"),
        ("--nv", "'--nv' must be an absolute path"),
        ("docker://alpine", f"'docker://alpine' is not allowed; {ALLOWED}"),
        ("library://alpine", "'library://alpine' must be an absolute path"),
        ("", "'' must be an absolute path"),
        ("/cvmfs/unpacked/a\nb", "'/cvmfs/unpacked/a\\nb' may not contain control characters"),
        ("/cvmfs/unpacked/a\0", "'/cvmfs/unpacked/a\\x00' may not contain control characters"),
        ("/cvmfs/unpacked/\u202egpj", "'/cvmfs/unpacked/\\u202egpj' may not contain control characters"),
    ],
)
def test_custom_images_that_are_not(offer, path, text):
    assert refused(offer, {"custom_image": path}) == {"custom_image": text}


def custom(user, allow, groups=None):
    policy = {"allow": allow} | ({"groups": groups} if groups is not None else {})
    return Offer(load_site({**FACILITY, "custom_images": policy}), Who(user, frozenset({"staff"})))


@pytest.mark.parametrize("user", ["*", "a*", "?lice", "[a-z]lice", "al/ice", "..", "."])
def test_a_hostile_user_name_opens_nobody_elses_home(user):
    offer = custom(user, ["/home/{username}/*", "/cvmfs/*"])
    assert offer.custom == ["/cvmfs/*"]
    for path in ("/home/alice/x", "/home/x", "/home/al/ice/x", "/home/*/x", "/home/a/x"):
        assert refused(offer, {"custom_image": path})["custom_image"].endswith("is not allowed; allowed: /cvmfs/*")


@pytest.mark.parametrize("user", ["alice.b", "alice@cern.ch", "a b", "{username}", "ålice", "a$(id)", "a'\""])
def test_an_odd_user_name_opens_ones_own(user):
    offer = custom(user, ["/home/{username}/*"])
    assert offer.choose({"custom_image": f"/home/{user}/x.sif"}).custom_image == f"/home/{user}/x.sif"
    assert not offer.allows("/home/alice/x.sif")


def test_links_of_the_sites_own_part_may_be_followed():
    offer = custom("alice", ["/home/{username}/images/*"])
    assert offer.custom_roots == [("/home/alice", "/images/*")]
    assert offer.allows("/nfs/7/alice/images/x", {"/home/alice": "/nfs/7/alice"})
    assert not offer.allows("/nfs/7/bob/images/x", {"/home/alice": "/nfs/7/alice"})
    assert not offer.allows("/home/alice/images/x", {"/home/alice": "/nfs/7/alice"})


def test_images_of_ones_own_may_be_for_groups_alone():
    assert custom("alice", ["/cvmfs/*"], ["staff"]).custom == ["/cvmfs/*"]
    for groups in ([], ["others"]):
        offer = custom("alice", ["/cvmfs/*"], groups)
        assert refused(offer, {"custom_image": "/cvmfs/x"}) == {
            "custom_image": "images of your own are not allowed here"
        }


# --- groups


def test_groups_decide_what_is_seen(offer, insider):
    assert list(offer.images) == ["base", "plain", "trainer", "on-gpu-only"]
    assert list(offer.backends) == ["cpu", "gpu"]
    assert list(insider.images) == ["base", "plain", "trainer", "secret-image", "on-gpu-only", "on-secret-backend"]
    assert list(insider.backends) == ["cpu", "gpu", "secret-backend"]


def test_groups_decide_what_is_allowed(offer, insider):
    for options in ({"image": "secret-image"}, {"backend": "secret-backend"}, {"image": "on-secret-backend"}):
        assert insider.choose(options)
        refused(offer, options)


def test_an_empty_list_of_groups_lets_nobody_in():
    images = [{"name": "a", "path": "/a"}, {"name": "b", "path": "/b", "groups": []}]
    offer = Offer(load_site({"images": images, "backends": {"x": {"type": "local"}}}), Who("root", frozenset(), True))
    assert list(offer.images) == ["a"]


def test_a_user_for_whom_there_is_nothing():
    images = [{"name": "a", "path": "/a", "groups": ["g"]}]
    offer = Offer(load_site({"images": images, "backends": {"x": {"type": "local"}}}), Who("alice"))
    assert refused(offer, {}) == {"image": "there is no image that you may use here; ask the site's admins"}
    assert offer.preset({"cpus": 1})[0] == {}
    site = load_site({**FACILITY, "backends": {"x": {"type": "local", "groups": ["g"]}}, "images": images})
    offer = Offer(site, Who("alice"))
    assert refused(offer, {"custom_image": "/cvmfs/unpacked/a"}) == {
        "backend": "there is no backend that you may use here; ask the site's admins"
    }


# --- whatever is sent

nasty = st.sampled_from(
    [
        "",
        " ",
        "'",
        '"',
        "\n",
        "\x00",
        "$(id)",
        "`id`",
        ";",
        "٣",
        "８",
        "-1",
        "1e3",
        "nan",
        "@PORT@",
        "../..",
        "\u202e",
        "�",
        "secret-image",
        "secret-backend",
        "secret-imag",
        "secret-backen",
        "base",
        "cpu",
        "gpu",
        "a100",
        "1G",
        "8h",
        "x" * 5000,
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | nasty
    | st.booleans().map(lambda up: 10**5000 if up else -(10**5000))
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
names = st.sampled_from(
    [
        *("image", "custom_image", "backend", "cpus", "memory", "gpu", "gpus", "runtime", "partition", "nodes"),
        # JupyterHub's own, Python's own
        *("_xsrf", "next", "profile", "display_name", "self", "__class__", "env", "cmd", "user_options"),
    ]
)
garbage = st.dictionaries(names | st.text() | st.integers(), values, max_size=6) | values
# what is nearly right, so that the rules behind the first are reached
sensible = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["base", "plain", "trainer", "secret-image", "on-gpu-only", "on-secret-backend", "x"]),
        "custom_image": st.sampled_from(["/cvmfs/unpacked/x", "/home/alice/images/x", "/etc", 7]),
        "backend": st.sampled_from(["cpu", "gpu", "secret-backend", "x"]),
        "cpus": st.sampled_from([1, "2", 8, 9, "x"]),
        "memory": st.sampled_from(["1G", "1.001G", "16G", "17G", "1T", 1]),
        "gpu": st.sampled_from(["t4", "a100", "h100", 1]),
        "gpus": st.sampled_from([0, "0", 1, "2", 4, 5]),
        "runtime": st.sampled_from(["1m", "90m", "5d", 8]),
        "partition": st.sampled_from(["short", "long", "x"]),
        "colour": st.just("red"),
        "junk": values,
    },
)

ALICE = offer_with(load_site(FACILITY), Who("alice"), OWN_FIELDS)


def deep(layers=10_000):
    inner = []
    for _ in range(layers):
        inner = {"a": [inner]}
    return inner


def texts(error):
    return [str(error), *error.errors, *error.errors.values()]


def is_within_the_offer(choice, offer):
    """Whether every value of a choice is one that the form could have offered."""
    backend = offer.backends[choice.backend]
    assert (choice.image is None) != (choice.custom_image is None)
    if choice.image:
        image = offer.images[choice.image]
        assert choice.backend in offer.backends_of(image)
        assert {"none": choice.gpus == 0, "optional": True, "required": choice.gpus > 0}[image.gpu]
    else:
        assert any(choice.custom_image.startswith(root) for root in ("/cvmfs/unpacked/", "/home/alice/images/"))
        assert ".." not in choice.custom_image and choice.custom_image.isprintable()
    assert (choice.gpu is None) == (choice.gpus == 0)
    assert choice.gpu is None or 1 <= choice.gpus <= backend.gpus[choice.gpu].max
    for name in ("cpus", "memory", "runtime"):
        value, offered = getattr(choice, name), getattr(backend, name)
        assert (value is None) == (offered is None)
        assert value is None or (type(value) is int and 0 < value <= offered.max)
    assert set(choice.extra) <= {field.name for field in OWN_FIELDS.get(choice.backend, [])}
    assert choice.extra.get("partition", "short") in ("short", "long")
    return True


@given(garbage | sensible)
def test_whatever_is_sent_is_a_choice_of_the_offer_or_refused_in_words(options):
    check(options)


@pytest.mark.parametrize(
    "options",
    [
        deep(),
        {"image": deep(), "cpus": deep()},
        {"image": "x" * 10_000_000},
        {"custom_image": "/cvmfs/unpacked/" + "*" * 4000},
        {"x" * 10_000_000: 1},
        {f"option-{'x' * 50}{i}": "y" * 4000 for i in range(40)},
        {f"cpus{i}": 1 for i in range(40)},
        {f"option{i}": 1 for i in range(1_000_000)},
    ],
    ids=["deep", "deep values", "10 MB", "stars", "10 MB name", "40 long ones", "40 near ones", "a million"],
)
def test_the_extreme(options):
    check(options)
    kept, wrong = ALICE.preset(options)
    assert ALICE.choose(kept)
    assert bool(wrong) == (kept != options)
    assert len(from_form(options)) == len(options)


def check(options):
    try:
        choice = ALICE.choose(options)
    except ChoiceError as error:
        told = texts(error)
    else:
        assert is_within_the_offer(choice, ALICE)
        stored = json.loads(json.dumps(choice.options()))
        assert ALICE.choose(stored) == choice
        told = []
    assert all(0 < len(text) < 2000 for text in told)
    assert all(text.isprintable() for text in told)


def mentions(value, word):
    """Whether what was sent says a word itself, or the beginning of it."""
    try:
        return word[:-1] in json.dumps(value)
    except (RecursionError, TypeError, ValueError):
        return True


@given(garbage | sensible)
@example({"image": "secret-imag"})
@example({"image": "on-secret-backen"})
@example({"backend": "secret-backen"})
@example({"image": "zzz", "backend": "zzz", "gpu": "zzz"})
def test_no_error_tells_of_what_the_user_may_not_use(options):
    try:
        ALICE.choose(options)
        told = []
    except ChoiceError as error:
        told = texts(error)
    for word in ("secret-image", "secret-backend", "on-secret-backend"):
        assert not any(word in text for text in told) or mentions(options, word + "x")


form_values = st.lists(st.text() | nasty | st.binary() | values, max_size=3) | values


forms = sensible.map(lambda options: {k: [str(v)] for k, v in options.items() if k != "junk"})


@given(st.dictionaries(names | st.text(), form_values, max_size=6) | forms)
def test_whatever_a_form_sends_is_a_choice_or_refused(data):
    try:
        choice = ALICE.choose(from_form(data))
    except ChoiceError:
        return
    assert is_within_the_offer(choice, ALICE)


@given(garbage | sensible)
@example({"gpus": 3, "image": "plain", "cpus": 2})
def test_a_preset_never_fails_and_can_be_chosen(options):
    kept, wrong = ALICE.preset(options)
    assert ALICE.choose(kept)
    given_options = options if isinstance(options, dict) else {}
    assert all(given_options[name] == value for name, value in kept.items())
    dropped = {name for name, value in given_options.items() if name not in kept and value is not None}
    assert not dropped or wrong, "nothing is dropped without a word"
    assert all(text.isprintable() and len(text) < 2000 for text in wrong.values())


@given(sensible)
def test_what_can_be_chosen_is_kept_whole(options):
    try:
        ALICE.choose(options)
    except ChoiceError:
        return
    assert ALICE.preset(options) == ({name: value for name, value in options.items() if value is not None}, {})


@pytest.mark.parametrize(
    "options, kept",
    [
        ({"image": "base", "cpus": 99, "memory": "4G"}, {"image": "base", "memory": "4G"}),
        ({"image": "gone", "backend": "gpu", "cpus": 8}, {"backend": "gpu", "cpus": 8}),
        ({"image": "secret-image", "cpus": 2}, {"cpus": 2}),
        ({"image": "trainer", "backend": "cpu", "memory": "1G"}, {"image": "trainer", "memory": "1G"}),
        ({"image": "plain", "gpu": "t4", "gpus": 1, "cpus": 2}, {"image": "plain", "cpus": 2}),
        ({"image": "plain", "gpus": 1, "cpus": 2}, {"image": "plain", "cpus": 2}),
        ({"image": "base", "colour": "red", "partition": "long"}, {"image": "base", "partition": "long"}),
        ({"image": "base", "cpus": [1], "a\nb": 1, "memory": "4G"}, {"image": "base", "memory": "4G"}),
        ({"custom_image": "/etc", "cpus": 2}, {"cpus": 2}),
        ({"backend": "gone", "partition": "long"}, {"partition": "long"}),
        ({"image": "base", "memory": "x" * 5000, "cpus": None}, {"image": "base"}),
        ("nonsense", {}),
        (None, {}),
    ],
)
def test_a_preset_drops_only_what_is_not_allowed(offer, options, kept):
    assert offer.preset(options)[0] == kept


# --- forms


@pytest.mark.parametrize(
    "data, options",
    [
        ({"image": ["base"], "cpus": [" 4 "], "memory": [""]}, {"image": "base", "cpus": "4"}),
        ({"cpus": ["1", "2"]}, {"cpus": "2"}),
        ({"cpus": []}, {"cpus": []}),
        # what does not matter to the choice is sent all the same
        ({"image": ["base"], "custom_image": ["/x"]}, {"image": "base"}),
        ({"image": [""], "custom_image": ["/x"]}, {"custom_image": "/x"}),
        ({"gpu": [""], "gpus": ["2"]}, {"gpus": 0}),
        ({"gpu": ["t4"], "gpus": ["1"]}, {"gpu": "t4", "gpus": "1"}),
        ({"gpu": [" "]}, {"gpus": 0}),
        ({}, {}),
    ],
)
def test_what_a_form_means(data, options):
    assert from_form(data) == options


# --- a field alone


def test_a_field_shows_values_as_people_write_them():
    assert Field("memory", "Memory", "size").show(2 * G) == "2G"
    assert Field("runtime", "Time", "time").show(5400) == "90m"
    assert Field("cpus", "Cores", "count").show(4) == "4"
    assert Field("gpu", "GPU", "select").show(None) == ""


def test_long_lists_of_what_is_allowed_are_cut():
    field = Field("partition", "Partition", "select", values=tuple((f"p{i}", "") for i in range(500)))
    with pytest.raises(ValueError, match=r"allowed: p0, p1, p2, p3, p4, p5, p6, p7 and 492 more; did you mean p499\?"):
        field.read("p4999")
