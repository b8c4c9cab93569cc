"""The form's HTML: what is in it, what must not be, and that nothing in it can be anything but text."""

import importlib.util
import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from hepspawner.choice import ChoiceError, Field, Offer, Who, from_form
from hepspawner.hub.form import form_context, render_form
from hepspawner.templates import Templates, asset_hash, templates_dir
from hepspawner.site.load import load_site

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
    return Offer(load_site(site), Who("ada", frozenset(groups)), own)


def draw(offer, templates=None, **given):
    context = {
        "options": {}, "errors": {}, "notes": {}, "last": "", "failure": None, "states": {}, "warnings": [],
        "urls": {"static": "/hub/s", "preview": "/hub/p", "spawn": "/hub/spawn"}, "query_prefix": "opt-", **given,
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
        "states": {"states": {"root": SimpleNamespace(ok=False, text=EVIL)}},
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
    assert len(page.all("script")) == len(plain.all("script")) == 3
    assert "<script>alert" not in html
    assert not [name for _, attributes in page.found for name in attributes if not re.fullmatch(r"[a-z-]+", name)]


def test_json_in_the_page_reads_back():
    backends = {"htc": {**HTC, "title": "</script><!-- & 'x'"}}
    html = draw(offer_of(IMAGES[:1], backends))
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)[1])
    assert data["backends"]["htc"]["title"] == "</script><!-- & 'x'"
    assert data["backends"]["htc"]["fields"]["memory"]["max"] == 16 * 2**30


def test_images_of_others_are_nowhere_in_the_page():
    html = draw(offer_of(), options={"image": "secret"}, states={"secret": SimpleNamespace(ok=True, text="")})
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


def test_custom_image_only_where_allowed():
    assert not Elements(draw(offer_of())).all("input", name="custom_image")
    policy = {"allow": ["/home/{username}/*"], "groups": ["insiders"]}
    assert not Elements(draw(offer_of(custom=policy))).all("input", name="custom_image")
    page = Elements(draw(offer_of(custom=policy, groups=["insiders"]), options={"custom_image": "/home/ada/x.sif"}))
    assert page.one("input", name="custom_image")["value"] == "/home/ada/x.sif"
    assert "checked" in page.one("input", name="image", value="")
    assert "/home/ada/*" in page.text


def test_image_that_cannot_be_used_is_shown_and_not_offered():
    states = {"base": SimpleNamespace(ok=False, text="does not exist")}
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


def test_a_thousand_images_stay_small():
    file = Path(__file__).parents[2] / "benchmarks" / "form.py"
    spec = importlib.util.spec_from_file_location("bench_form", file)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    html = bench.render(bench.fake_offer(1000), Templates([], LOG), "/hub/static")
    assert len(Elements(html).all("input", name="image")) == 1000
    assert len(html.encode()) < 250_000


def test_no_images_and_no_backends_still_make_a_page():
    closed = [{**image, "groups": ["insiders"]} for image in IMAGES]
    assert "no image that you may use" in draw(offer_of(closed))
    backends = {"htc": {**HTC, "groups": ["insiders"]}}
    assert "no image that you may use" in draw(offer_of(IMAGES[:1], backends), options={"backend": "htc"})


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
