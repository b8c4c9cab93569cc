"""The form's HTML: what is in it, what must not be, and that nothing in it can be anything but text."""

import importlib.util
import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from hepspawner.backends.slurm import cluster
from hepspawner.choice import ChoiceError, Field, Offer, Who, from_form
from hepspawner.hub.cards import Standing, about
from hepspawner.hub.form import form_context, render_form
from hepspawner.site.load import load_site
from hepspawner.templates import Templates, asset_hash, templates_dir
from tests.unit.conftest import offer_with

LOG = logging.getLogger("test")
EVIL = "\"'><script>alert(1)</script>"
ROOT = "/cvmfs/unpacked.cern.ch/registry.hub.docker.com"
HTC = {
    "type": "local",
    "title": "SDCC HTC",
    "cpus": {"default": 1, "max": 8},
    "memory": {"default": "2G", "max": "16G"},
}
IC = {
    "type": "local",
    "title": "IC cluster",
    "cpus": {"default": 4, "max": 64},
    "gpus": {"a100": {"title": "NVIDIA A100", "max": 4}, "h200": {}},
}
SLURM = {
    "type": "slurm",
    "title": "The cluster",
    "gpus": {"a100": {"title": "NVIDIA A100", "max": 2}, "h200": {"title": "NVIDIA H200", "max": 8}},
    "runtime": {"default": "8h", "max": "4d"},
    "partitions": {
        "cpu": {
            "title": "CPU",
            "cpus": {"default": 2, "max": 64},
            "memory": {"default": "4G", "max": "64G"},
            "gpus": {},
        },
        "gpu": {
            "title": "GPU",
            "cpus": {"default": 4, "max": 32},
            "memory": {"default": "8G", "max": "1T"},
            "gpus": {"a100": 2},
        },
        "new": {"cpus": {"max": 16}, "gpus": {"h200": 8, "a100": 1}, "groups": ["insiders"]},
    },
}
IMAGES = [
    {"name": "base", "title": "ML base", "group": "ATLAS", "tags": ["alma9"], "path": f"{ROOT}/yesw2000/ml-base:alma9"},
    {"name": "torch", "group": "ATLAS", "path": f"{ROOT}/yesw2000/torch:1", "gpu": "required"},
    {"name": "root", "path": "/sw/root.sif", "gpu": "none", "backends": ["htc"]},
    {"name": "secret", "title": "Unpublished analysis", "path": "/cvmfs/hidden", "groups": ["insiders"]},
]


class Elements(HTMLParser):
    """All elements with their attributes, and all text."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **attributes):
        return [one for name, one in self.found if name == tag and attributes.items() <= one.items()]

    def one(self, tag, **attributes):
        (found,) = self.all(tag, **attributes)
        return found


def offer_of(images=IMAGES, backends=None, custom=None, own=None, groups=()):
    site = {"images": images, "backends": backends or {"htc": HTC, "ic": IC}}
    if custom:
        site["custom_images"] = custom
    return offer_with(load_site(site), Who("ada", frozenset(groups)), own)


def clustered(backends=None, groups=()):
    """An offer with partitions."""
    images = [{**image, "backends": None} for image in IMAGES]
    site = load_site({"images": images, "backends": backends or {"htc": HTC, "slurm": SLURM}})
    who = Who("ada", frozenset(groups))
    return Offer(site, who, {"slurm": cluster.fields(site.backends["slurm"], {}, who, [], [])})


def data_of(html):
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)[1])


def chosen(html, name):
    """The option that is selected in a select."""
    select = re.search(rf'<select[^>]*name="{name}".*?</select>', html, re.S)[0]
    found = re.findall(r'<option value="([^"]*)" selected>', select)
    return found[0] if found else ""


def draw(offer, templates=None, **given):
    context = {
        "options": {}, "errors": {}, "notes": {}, "last": "", "failure": None, "states": {}, "warnings": [],
        "urls": {name: f"/hub/{name[0]}" for name in ("static", "images", "preview", "spawn", "availability")},
        "query_prefix": "opt-", **given,
    }  # fmt: skip
    return render_form(templates or Templates([], LOG), form_context(offer, **context))


def errors_of(offer, options):
    with pytest.raises(ChoiceError) as caught:
        offer.choose(options)
    return caught.value.errors


def test_every_field_is_posted_under_the_name_that_choice_reads():
    page = Elements(draw(offer_of(custom={"allow": ["/home/*"]})))
    names = {one.get("name") for tag, one in page.found if tag in ("input", "select") and one.get("name")}
    assert names == {"image", "custom_image", "backend", "cpus", "memory", "gpu", "gpus"}


def test_what_is_filled_in_at_first_is_a_valid_choice():
    offer = offer_of()
    page = Elements(draw(offer))
    posted = {"image": [], "backend": []}
    for radio in page.all("input", type="radio"):
        if "checked" in radio:
            posted[radio["name"]].append(radio["value"])
    posted |= {name: [page.one("input", name=name)["value"]] for name in ("cpus", "memory", "gpus")} | {"gpu": [""]}
    choice = offer.choose(from_form(posted))
    assert (choice.image, choice.backend, choice.cpus, choice.gpus) == ("base", "htc", 1, 0)


@pytest.mark.parametrize(
    "where", ["options", "errors", "notes", "last", "failure", "states", "warnings", "images", "urls"]
)
def test_hostile_text_stays_text(where):
    images = IMAGES
    given = {
        "options": {
            "options": dict.fromkeys(("image", "custom_image", "backend", "cpus", "memory", "gpus", EVIL), EVIL)
        },
        "errors": {
            "errors": dict.fromkeys(("image", "custom_image", "backend", "cpus", "gpu", "user_options", EVIL), EVIL)
        },
        "notes": {"notes": {EVIL: EVIL}},
        "last": {"last": EVIL},
        "failure": {"failure": SimpleNamespace(message=EVIL, advice=EVIL, log=[EVIL, EVIL])},
        "states": {"states": {"root": Standing(ok=False, text=EVIL)}},
        "warnings": {"warnings": [EVIL]},
        "images": {},
        "urls": {"urls": {"static": EVIL, "preview": EVIL, "spawn": EVIL}, "query_prefix": EVIL},
    }[where]
    own = {}
    if where == "images":
        images = [
            {**image, "title": EVIL, "description": EVIL, "group": EVIL, "tags": [EVIL], "path": f"/{EVIL}"}
            for image in IMAGES
        ]
        own = {"htc": [Field("queue", EVIL, "select", None, values=((EVIL, EVIL),), unit=EVIL)]}
    backends = (
        {"htc": {**HTC, "title": EVIL}, "ic": {**IC, "gpus": {"a100": {"title": EVIL}}}} if where == "images" else None
    )
    html = draw(offer_of(images, backends, {"allow": ["/home/*"]}, own), **given)
    page = Elements(html)
    plain = Elements(draw(offer_of(custom={"allow": ["/home/*"]})))
    assert len(page.all("script")) == len(plain.all("script")) == 8
    assert "<script>alert" not in html
    assert not [name for _, attributes in page.found for name in attributes if not re.fullmatch(r"[a-z-]+", name)]


def test_json_in_the_page_reads_back():
    backends = {"htc": {**HTC, "title": "</script><!-- & 'x'"}}
    html = draw(offer_of(IMAGES[:1], backends))
    data = data_of(html)
    assert data["backends"]["htc"]["title"] == "</script><!-- & 'x'"
    assert data["backends"]["htc"]["fields"]["memory"]["max"] == 16 * 2**30


def test_images_of_others_are_nowhere_in_the_page():
    html = draw(offer_of(), options={"image": "secret"}, states={"secret": Standing(ok=True, text="")})
    for word in ("Unpublished", "/cvmfs/hidden", "insiders", 'value="secret"'):
        assert word not in html
    assert "Unpublished" in draw(offer_of(groups=["insiders"]))


def test_backends_of_others_are_nowhere_in_the_page():
    closed = {"htc": HTC, "ic": {**IC, "groups": ["insiders"]}}
    html = draw(offer_of(backends=closed))
    assert "IC cluster" not in html
    assert "A100" not in html
    assert "torch" not in html  # needs a GPU, and there is none left


def test_errors_stand_beside_their_fields():
    offer = offer_of()
    options = {"image": "base", "backend": "htc", "cpus": "900", "memory": "much"}
    errors = errors_of(offer, options)
    page = Elements(draw(offer, options=options, errors=errors))
    for name in ("cpus", "memory"):
        field = page.one("input", name=name)
        assert field["value"] == options[name]
        assert field["aria-invalid"] == "true"
        assert "is-invalid" in field["class"]
        assert f"hep-{name}-error" in field["aria-describedby"].split()
        assert page.one("p", id=f"hep-{name}-error")
        assert page.text.count(errors[name]) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cores": 4}, "cores"),
        ({"backend": "htc", "gpu": "a100"}, "gpu"),
        ({"custom_image": "/x"}, "custom_image"),
        ("nonsense", "user_options"),
    ],
)
def test_errors_without_a_field_are_told_above(options, named):
    offer = offer_of()
    errors = errors_of(offer, options)
    html = draw(offer, options=options if isinstance(options, dict) else {}, errors=errors)
    alert = html[html.index('id="hep-alert"') :].split("</div>")[0]
    assert Elements(errors[named]).text in Elements(alert).text


def test_wrong_image_and_backend_mark_their_groups():
    offer = offer_of()
    for options, group in (({"image": "bse"}, "image"), ({"image": "root", "backend": "ic"}, "backend")):
        errors = errors_of(offer, options)
        page = Elements(draw(offer, options=options, errors=errors))
        assert page.one("fieldset", **{"aria-describedby": f"hep-{group}-error"})["aria-invalid"] == "true"
        assert errors[group] in page.text


def test_every_field_has_a_name_for_people():
    page = Elements(draw(offer_of(custom={"allow": ["/home/*"]})))
    labelled = {one.get("for") for one in page.all("label")}
    for tag, one in page.found:
        if tag in ("input", "select") and one.get("type") not in ("radio", "hidden") and "aria-hidden" not in one:
            assert one.get("id") in labelled or one.get("aria-label") or one.get("aria-labelledby"), one


def test_ids_are_unique():
    own = {
        "htc": [Field("queue", "Queue", "select", None, values=(("a", "A"),))],
        "ic": [Field("queue", "Queue", "count", 1, 1, 9)],
    }
    ids = [one["id"] for _, one in Elements(draw(offer_of(own=own))).found if "id" in one]
    assert len(ids) == len(set(ids))


def test_one_backend_is_no_question():
    page = Elements(draw(offer_of(IMAGES[:1], {"htc": HTC})))
    assert page.one("input", name="backend") == {"type": "hidden", "name": "backend", "value": "htc"}
    assert not page.all("select", name="gpu")


def test_fields_of_another_backend_are_empty_without_the_script():
    own = {"ic": [Field("account", "Account", "select", "usatlas", values=(("usatlas", "usatlas"),))]}
    html = draw(offer_of(own=own))
    select = re.search(r'<select[^>]*name="account".*?</select>', html, re.S)[0]
    assert "selected" not in select
    assert '<option value="">' in select
    assert "IC cluster: 1 to 64" in html


def test_image_that_needs_a_gpu_comes_with_one():
    html = draw(offer_of(), options={"image": "torch"})
    assert Elements(html).one("input", name="backend", value="ic", checked=None)
    assert '<option value="a100" selected>' in html


@pytest.mark.parametrize(
    ("options", "partition", "cores", "gpu"),
    [
        ({}, "cpu", "2", ""),
        ({"partition": "gpu"}, "gpu", "4", ""),
        ({"gpu": "a100"}, "gpu", "4", "a100"),
        ({"gpu": "h200"}, "new", "1", "h200"),
        ({"gpus": "1"}, "gpu", "4", "a100"),
        ({"image": "torch"}, "gpu", "4", "a100"),
        ({"image": "torch", "cpus": "16"}, "gpu", "16", "a100"),
        ({"memory": "900G"}, "gpu", "4", ""),
        ({"cpus": "48"}, "cpu", "48", ""),
        ({"partition": "cpu", "gpu": "a100"}, "cpu", "2", "a100"),  # as it was asked for: an error beside it
        ({"partition": "no-such"}, "cpu", "2", ""),
    ],
)
def test_the_partition_at_first_is_the_one_that_would_be_taken(options, partition, cores, gpu):
    offer = clustered(groups=["insiders"])
    html = draw(offer, options={"backend": "slurm", **options})
    assert chosen(html, "partition") == partition
    assert Elements(html).one("input", name="cpus")["value"] == cores
    assert chosen(html, "gpu") == gpu
    try:
        assert offer.choose({"backend": "slurm", **options}).extra == {"partition": partition}
    except ChoiceError:
        assert options.keys() & {"partition", "cpus"}


def test_without_the_script_the_hints_are_those_of_the_partition():
    html = draw(clustered({"slurm": SLURM}), options={"gpu": "a100"})
    text = Elements(html).text
    for hint in ("1 to 32 in partition GPU", "128M to 1T in partition GPU", "1 to 2 in partition GPU", "1m to 4d"):
        assert f"\n{hint}\n" in text  # the time is the same everywhere
    text = Elements(draw(clustered())).text
    assert "SDCC HTC: 1 to 8; The cluster: 1 to 64 in partition CPU" in text
    assert "The cluster: NVIDIA A100 in partition GPU" in text  # where there is none, one where there is


def test_the_partition_comes_first_and_then_the_gpu():
    names = [
        one["name"] for tag, one in Elements(draw(clustered())).found if tag in ("input", "select") and "name" in one
    ]
    assert names[-5:] == ["gpu", "gpus", "cpus", "memory", "runtime"]
    assert names[-6] == "partition"


def test_partitions_of_others_are_nowhere_in_the_page():
    html = draw(clustered(), options={"backend": "slurm", "gpu": "h200", "partition": "new"})
    assert "H200" not in html
    assert '"new"' not in html
    assert "Slurm · NVIDIA A100<" in html
    assert "Slurm · NVIDIA A100, NVIDIA H200<" in draw(clustered(groups=["insiders"]))
    closed = {**SLURM, "partitions": {"cpu": {}, "gpu": {"gpus": {"a100": 1}, "groups": ["insiders"]}}}
    closed["partitions"]["cpu"]["gpus"] = {}
    html = draw(clustered({"htc": HTC, "slurm": closed}))
    assert "A100" not in html
    assert "Slurm · no GPU<" in html


def test_the_script_gets_of_each_partition_what_differs():
    fields = data_of(draw(clustered()))["backends"]["slurm"]["fields"]
    assert fields["cpus"] == {
        "kind": "count", "default": 2, "min": 1, "max": 64, "hint": "1 to 64", "per": "partition",
        "cases": {"cpu": {}, "gpu": {"default": 4, "max": 32, "hint": "1 to 32"}},
    }  # fmt: skip
    assert fields["runtime"]["cases"] == {"cpu": {}, "gpu": {}}
    assert fields["gpu"] == {
        "kind": "select", "values": {"a100": "NVIDIA A100"}, "most": {"a100": 2}, "per": "partition",
        "cases": {"gpu": {}},
    }  # fmt: skip
    assert "per" not in fields["partition"]
    fields = data_of(draw(clustered(groups=["insiders"])))["backends"]["slurm"]["fields"]
    assert fields["gpu"]["cases"] == {"gpu": {}, "new": {"most": {"a100": 1, "h200": 8}}}
    assert fields["memory"]["cases"].keys() == {"cpu", "gpu"}  # Slurm says what there is in the new one


def test_an_error_of_a_field_that_depends_on_the_partition_stands_beside_it():
    offer = clustered({"slurm": SLURM})
    options = {"partition": "gpu", "cpus": "50"}
    errors = errors_of(offer, options)
    html = draw(offer, options=options, errors=errors)
    assert chosen(html, "partition") == "gpu"
    assert Elements(html).one("p", id="hep-cpus-error")
    assert errors["cpus"] in Elements(html).text


def test_there_is_a_place_for_what_is_free():
    page = Elements(draw(clustered()))
    shared = page.one("small", **{"data-backend": "slurm"})
    assert shared["class"] == "hep-free kept"
    assert page.one("small", **{"data-backend": "htc"})["class"] == "hep-free"
    assert data_of(draw(clustered()))["availability"] == "/hub/a"
    assert Elements(draw(clustered({"slurm": SLURM}))).one("small", **{"data-backend": "slurm"}) == shared


def test_two_backends_may_call_a_value_differently():
    own = {
        name: [Field("queue", "Queue", "select", "a", values=(("a", f"A of {name}"), (name, name)))]
        for name in ("htc", "ic")
    }
    for backend in ("htc", "ic"):
        html = draw(offer_of(own=own), options={"backend": backend})
        assert f"A of {backend}\n" in html  # of the chosen one, and for the script those of both
        assert data_of(html)["backends"]["ic"]["fields"]["queue"]["values"] == {"a": "A of ic", "ic": "ic"}


def test_custom_image_only_where_allowed():
    assert not Elements(draw(offer_of())).all("input", name="custom_image")
    policy = {"allow": ["/home/{username}/*"], "groups": ["insiders"]}
    assert not Elements(draw(offer_of(custom=policy))).all("input", name="custom_image")
    page = Elements(draw(offer_of(custom=policy, groups=["insiders"]), options={"custom_image": "/home/ada/x.sif"}))
    assert page.one("input", name="custom_image")["value"] == "/home/ada/x.sif"
    assert "checked" in page.one("input", name="image", value="")
    assert "/home/ada/*" in page.text


def test_image_that_cannot_be_used_is_shown_and_not_offered():
    states = {"base": Standing(ok=False, text="does not exist")}
    page = Elements(draw(offer_of(), states=states, options={"image": "base"}))
    assert "disabled" in page.one("input", name="image", value="base")
    assert "does not exist" in page.text
    assert "checked" in page.one("input", name="image", value="torch")


def test_last_choice_is_offered_only_where_nothing_was_wrong():
    assert "ML base on SDCC HTC" in draw(offer_of(), last="ML base on SDCC HTC")
    assert "As last time" not in draw(offer_of(), last="x", errors={"cpus": "wrong"})


def test_failure_shows_message_advice_and_log():
    failure = SimpleNamespace(message="It ended.", advice="Try another.", log=["one <1>", "two"])
    text = Elements(draw(offer_of(), failure=failure)).text
    assert "It ended." in text
    assert "Try another." in text
    assert "one <1>\ntwo" in text


def test_a_groups_place_is_told_once():
    html = draw(offer_of())
    assert html.count(f"{ROOT}/yesw2000/") == 1
    assert "ml-base:alma9" in html


TAGS = ("alma9-python311", "alma9-python39", "centos7-python38")
FAMILY = [{"name": f"ml-{tag}", "path": f"{ROOT}/atlas/ml:{tag}", "description": "Learning"} for tag in TAGS]


def card_of(images, states=None, **given):
    """The elements of the only card."""
    (html,) = re.findall(r"<li.*?(?=\n</ul>)", draw(offer_of(images), states=states or {}, **given), re.S)
    return Elements(html)


def test_a_family_is_one_card_with_a_radio_button_for_each_image():
    card = card_of(FAMILY)
    assert [one["value"] for one in card.all("input", type="radio", name="image")] == [f"ml-{tag}" for tag in TAGS]
    assert card.one("div", role="group")["aria-label"] == "ml"
    assert [one["title"] for one in card.all("select")] == ["Operating system", "Python"]
    assert all("name" not in one and "hidden" in one for one in card.all("select"))  # they send nothing
    assert card.text.count("Learning") == 1
    assert "checked" in card_of(FAMILY, options={"image": "ml-centos7-python38"}).one(
        "input", value="ml-centos7-python38"
    )


def test_images_of_a_family_that_cannot_be_started_say_so():
    states = {f"ml-{TAGS[1]}": Standing(ok=False, text="not yet published"), f"ml-{TAGS[2]}": Standing(text="is slow")}
    card = card_of(FAMILY, states)
    disabled = [one["value"] for one in card.all("input") if "disabled" in one]
    assert disabled == [f"ml-{TAGS[1]}"]
    assert "Python 3.9not yet published" in card.text and "Python 3.8is slow" in card.text
    everywhere = {image["name"]: Standing(text="CVMFS does not answer since 14:02") for image in FAMILY}
    card = card_of(FAMILY, everywhere)
    assert card.text.count("CVMFS does not answer since 14:02") == 1
    assert not [one for one in card.all("input") if "disabled" in one]
    gone = {image["name"]: Standing(ok=False, text="does not exist") for image in FAMILY}
    card = card_of(FAMILY, gone)
    assert len([one for one in card.all("input") if "disabled" in one]) == 3
    assert card.text.count("does not exist") == 1 and "x" in card.one("li")["class"].split()


def test_the_rules_of_a_family_are_told_once_or_by_image():
    same = card_of([{**image, "gpu": "required", "backends": ["ic"]} for image in FAMILY])
    assert same.one("li")["class"].split() == ["r", "f"] and same.one("li")["data-b"] == "1"
    assert not any(one for one in same.all("label") if one)
    mixed = [{**FAMILY[0], "gpu": "none"}, {**FAMILY[1], "gpu": "required"}, {**FAMILY[2], "backends": ["htc"]}]
    card = card_of(mixed)
    assert card.one("li") == {"class": "f"}
    assert {one.get("class", "") + one.get("data-b", "") for one in card.all("label")} == {"n", "r", "0"}


def test_what_else_is_known_stands_on_the_card():
    states = {"base": Standing(about=about("sha256:8e1e32f4aa", 1e9, 1e9 + 3 * 86400), packages=True)}
    html = draw(offer_of(IMAGES[:1]), states=states)
    assert "published 3 days ago · 8e1e32f4" in Elements(html).text
    assert Elements(html).one("li")["class"] == "p"
    assert "Search 1 images and packages" in html


@pytest.mark.parametrize(
    ("digest", "age", "words"),
    [
        ("", None, ""),
        ("8e1e32f4aabb", None, "8e1e32f4"),
        ("", 30, "published just now"),
        ("", 7300, "published 2 h ago"),
        ("", 86400, "published yesterday"),
        ("", 30 * 86400, "published 30 days ago"),
        ("", 1e9, "published 1970-01-01"),
        ("", -100, "published just now"),
    ],
)
def test_the_age_in_words(digest, age, words):
    assert about(digest, None if age is None else 1e9 - age, 1e9) == words


def test_two_thousand_images_stay_small():
    file = Path(__file__).parents[2] / "benchmarks" / "form.py"
    spec = importlib.util.spec_from_file_location("bench_form", file)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    offer, dead = bench.fake_offer(2000, 100), Standing(text="CVMFS does not answer since 14:02", packages=True)
    assert len(draw(offer, states=dict.fromkeys(offer.images, dead)).encode()) < 300_000
    catalog = bench.fake_catalog(offer.site)
    html = bench.render(catalog, bench.fake_index(catalog, 10), Templates([], LOG), "/hub/static")
    page = Elements(html)
    assert len(page.all("input", name="image")) == 2000
    assert len(page.all("li")) == 100
    assert len(html.encode()) < 300_000


def test_no_images_and_no_backends_still_make_a_page():
    closed = [{**image, "groups": ["insiders"]} for image in IMAGES]
    assert "no image that you may use" in draw(offer_of(closed))
    backends = {"htc": {**HTC, "groups": ["insiders"]}}
    assert "no image that you may use" in draw(offer_of(IMAGES[:1], backends), options={"backend": "htc"})


def test_where_no_list_of_images_could_be_read_nobody_is_sent_to_the_admins():
    closed = offer_of([{**image, "groups": ["insiders"]} for image in IMAGES])
    html = draw(closed, incomplete=True)
    assert "try again in a minute" in html and "no image that you may use" not in html
    assert "try again in a minute" not in draw(offer_of(), incomplete=True)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\n{% if %}", 2), ("a\nb\n{{ nothing.at.all }}", 3), ("{{ 1/0 }}", 1), ('{% extends "no.html" %}', 1)],
)
def test_broken_template_of_the_admin_gives_way_to_ours(tmp_path, caplog, text, line):
    (tmp_path / "form.html").write_text(text)
    templates = Templates([str(tmp_path)], LOG)
    for _ in range(3):
        assert Elements(draw(offer_of(), templates)).all("input", name="image")
    assert len(caplog.records) == 1
    (problem,) = templates.problems
    assert f"{tmp_path}/form.html:{line}: " in problem
    (tmp_path / "form.html").write_text("mended {{ total }}")
    assert draw(offer_of(), templates) == "mended 3"
    assert templates.problems == []


def test_admin_overrides_one_block(tmp_path):
    (tmp_path / "form.html").write_text(
        '{% extends "templates/form.html" %}{% block messages %}Downtime {{ "<on>" }}{% endblock %}'
    )
    html = draw(offer_of(), Templates([str(tmp_path)], LOG))
    assert "Downtime &lt;on&gt;" in html
    assert Elements(html).all("input", name="cpus")


def test_check_lists_what_does_not_compile(tmp_path):
    (tmp_path / "form.html").write_text("{% endfor %}")
    (tmp_path / "progress.html").write_text("{{ fine }}")
    (tmp_path / "failure.html").write_bytes(b"\xff")
    problems = Templates([str(tmp_path), str(tmp_path / "missing")], LOG).check()
    assert len(problems) == 3
    assert any(one.startswith(f"{tmp_path}/form.html:1: ") for one in problems)
    assert any("missing: is not a directory" in one for one in problems)
    assert Templates([str(templates_dir())], LOG).check() == []


def test_progress_has_all_stages_and_one_line_for_the_log():
    stages = [
        SimpleNamespace(title="Submitted", state="done", time="14:31:07", detail="job 1"),
        SimpleNamespace(title="Waiting", state="now", time="", detail=EVIL),
        SimpleNamespace(title="Starting", state="next", time="", detail=""),
    ]
    html = Templates([], LOG).render("progress.html", stages=stages, summary=EVIL, note="", static="/s/")
    page = Elements(html)
    assert [one["class"] for one in page.all("li")] == ["done", "now", "next"]
    assert f"Waiting: {EVIL}" in page.text
    assert "<script>" not in html
    assert page.one("link")["href"] == f"/s/form.css?v={asset_hash()}"


def test_failure_page_leads_back_to_the_form():
    failure = SimpleNamespace(message=EVIL, advice="", log=[])
    html = Templates([], LOG).render("failure.html", failure=failure, again="/hub/spawn/ada", static="/s")
    assert Elements(html).one("a")["href"] == "/hub/spawn/ada"
    assert "<script>" not in html
    assert not Elements(Templates([], LOG).render("failure.html", failure=failure, again="", static="/s")).all("a")
