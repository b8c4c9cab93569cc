"""An image that is wanted by its digest, and what launchers may tell of images."""

import logging
from types import SimpleNamespace

import pytest

from hepspawner.backends.base import Tag
from hepspawner.catalog.catalog import Catalog
from hepspawner.choice import ChoiceError, Offer, Who, from_form
from hepspawner.hub.cards import Standing
from hepspawner.hub.form import form_context
from hepspawner.hub.images import missing_words, take_report, told
from hepspawner.hub.run import Failure, Run
from hepspawner.hub.runtime import Runtime
from hepspawner.session import summary
from hepspawner.site.load import load_site
from hepspawner.spawner import HEPSpawner

OLD, NEW = "8e" + 62 * "1", "99" + 62 * "a"
TAG = "/cvmfs/unpacked.cern.ch/ghcr.io/x/base:v1"
SITE_FILE = {
    "images": [
        {"name": "base", "title": "The base", "path": TAG},
        {"name": "base@cern", "path": "/data/at"},
        {"name": "host", "prefix": "/opt/jupyter"},
    ],
    "backends": {"farm": {"type": "local", "runtime": {"default": "1h", "max": "4d"}}},
}
SITE = load_site(SITE_FILE)


def flat(digest):
    return f"/cvmfs/unpacked.cern.ch/.flat/{digest[:2]}/{digest}"


@pytest.fixture
def offer():
    return Offer(SITE, Who("alice"))


def test_a_digest_is_kept_and_shown(offer):
    choice = offer.choose({"image": f"base@{OLD}"})
    assert (choice.image, choice.digest) == ("base", OLD)
    assert offer.choose(choice.options()) == choice
    assert OLD[:12] in summary(choice, SITE)
    assert offer.choose({"image": "base"}).digest is None


def test_a_name_with_an_at_is_a_name(offer):
    assert offer.choose({"image": "base@cern"}).digest is None
    assert offer.choose({"image": f"base@cern@{OLD}"}).digest == OLD


@pytest.mark.parametrize(
    "given, text",
    [
        ("base@8e", "'base@8e' is not available to you; did you mean base"),
        (f"base@{OLD.upper()}", "is not available to you"),
        (f"nothing@{OLD}", "is not available to you"),
        ("base@../../../etc/pass", "is not available to you"),
        (f"host@{OLD}", "host has no digests to choose from: give host alone"),
    ],
)
def test_what_is_no_digest(offer, given, text):
    with pytest.raises(ChoiceError) as caught:
        offer.choose({"image": given})
    assert text in caught.value.errors["image"]


def test_in_the_form_a_digest_counts_for_its_own_image_only():
    assert from_form({"image": ["base"], "very_image": [f"base@{OLD}"]}) == {"image": f"base@{OLD}"}
    assert from_form({"image": ["host"], "very_image": [f"base@{OLD}"]}) == {"image": "host"}


def context(offer, options, ran=None, real=None):
    real = flat(NEW) if real is None else real
    states = {name: Standing(real=real if name == "base" else "") for name in offer.images}
    urls = {"static": "/static"}
    return form_context(
        offer, options=options, errors={}, notes={}, last="", failure=None, states=states, warnings=[], urls=urls,
        query_prefix="", ran=ran,
    )  # fmt: skip


RAN = {"image": "base", "digest": OLD, "pinned": f"base@{OLD}", "newer": NEW}


def test_the_form_offers_what_ran_the_last_time_where_the_tag_moved(offer):
    assert context(offer, {"image": "base"}, RAN)["very"] == {
        "image": "base", "label": "The base", "digest": OLD, "checked": False, "newer": NEW,
    }  # fmt: skip
    assert context(offer, {"image": "base"}, {**RAN, "newer": None})["very"] is None
    assert context(offer, {"image": "base"})["very"] is None


def test_a_link_to_a_digest_has_it_ticked(offer):
    shown = context(offer, {"image": f"base@{OLD}"}, RAN)
    assert shown["chosen"] == "base" and shown["very"]["checked"] and shown["very"]["newer"] == NEW
    assert context(offer, {"image": f"base@{OLD}"})["very"]["newer"] is None


@pytest.mark.parametrize(
    "real, runtime, warned",
    [
        (flat(NEW), "1h", True),
        (f"/cvmfs/x/.images/99/{NEW[2:]}", "2d", False),
        (f"/cvmfs/x/.images/99/{NEW[2:]}", "3d", True),
        ("/data/base.sif", "4d", False),
        ("", "4d", False),
    ],
)
def test_the_form_warns_against_a_time_that_the_image_may_not_last(offer, real, runtime, warned):
    assert bool(context(offer, {"image": "base", "runtime": runtime}, real=real)["outlive"]) == warned


# --- what launchers tell


class Hub:
    """As much of the runtime as reports of images touch."""

    newer = Runtime.newer

    def __init__(self, probe="node"):
        self.site = load_site({**SITE_FILE, "backends": {"farm": {"type": "local", "probe": probe}}})
        self.catalog = Catalog(logging.getLogger("test"), lambda work: work.close())
        self.catalog.follow(self.site)

    def backend(self, name):
        return SimpleNamespace(config=self.site.backends[name])


@pytest.fixture
def run():
    one = Run(Tag("hub", "alice", "", "s1"), "farm", "", {"image": "base"})
    one.places = [TAG]
    return one


def test_what_a_node_found_is_noted(run):
    hub, saved = Hub(), []
    run.on_news = lambda: saved.append(dict(run.image))
    report = {"place": TAG, "real": flat(OLD), "images": [[TAG, "sandbox", flat(OLD)]]}
    assert take_report(hub, run, report) == {TAG: flat(OLD)}
    take_report(hub, run, report)  # `ready` says it again
    assert saved == [{"name": "base", "tag": TAG, "place": TAG, "real": flat(OLD), "digest": OLD}]
    assert hub.catalog.leads_to(TAG) == flat(OLD)
    assert told(hub, run.image)["newer"] is None
    take_report(hub, run, {"images": [[TAG, "sandbox", flat(NEW)]]})
    assert told(hub, run.image)["newer"] == NEW and NEW[:12] in told(hub, run.image)["note"]
    take_report(hub, run, {"images": [[TAG, "no answer", ""]]})  # cannot tell
    assert "CVMFS does not answer" in hub.catalog.state(hub.site.image("base"), hub.site.backends.values()).text
    assert told(hub, run.image)["newer"] is None


def test_where_the_hub_looks_itself_nodes_are_not_asked(run):
    hub = Hub("hub")
    take_report(hub, run, {"place": TAG, "real": flat(OLD), "images": [[TAG, "sandbox", flat(OLD)]]})
    assert hub.catalog.leads_to(TAG) == "" and run.image["digest"] == OLD


@pytest.mark.parametrize(
    "report",
    [
        {"images": "x"},
        {"images": [TAG]},
        {"images": [[TAG, "sandbox"]]},
        {"images": [[TAG, "fine", "/x"]]},
        {"images": [[{}, "sandbox", "/x"]]},
        {"images": [[TAG, ["sandbox"], "/x"]]},
        {"images": [[TAG, "sandbox", "x\n"]]},
        {"images": [["/cvmfs/of/others", "missing", ""]]},
        {"place": "/cvmfs/of/others", "real": "/x"},
        {"place": TAG, "real": 7},
        {"place": [TAG], "real": "/x"},
        {"place": TAG, "real": "relative"},
        {"place": TAG, "real": "/x" * 5000},
    ],
)
def test_a_launcher_can_tell_of_its_own_image_only(run, report):
    hub = Hub()
    assert take_report(hub, run, report) == {} and hub.catalog.leads_to(TAG) == "" and run.image == {}


def test_a_pinned_start_tells_nothing_of_the_image_of_today(run):
    hub = Hub()
    take_report(hub, run, {"images": [[TAG, "sandbox", flat(NEW)]]})
    run.options, run.places, run.also = {"image": f"base@{OLD}"}, [flat(OLD)], [TAG]
    take_report(hub, run, {"images": [[flat(OLD), "sandbox", flat(OLD)]]})
    assert hub.catalog.leads_to(TAG) == flat(NEW)
    assert hub.catalog.state(hub.site.image("base"), hub.site.backends.values()).digest == NEW


def test_where_nobody_is_to_look_nothing_is_kept(run):
    hub = Hub("none")
    take_report(hub, run, {"images": [[TAG, "missing", ""]]})
    assert hub.catalog.state(hub.site.image("base"), hub.site.backends.values()).text == ""


def test_a_place_in_another_repository_is_no_digest(run):
    take_report(Hub(), run, {"place": TAG, "real": f"/cvmfs/secret.ch/.flat/{OLD[:2]}/{OLD}"})
    assert run.image["digest"] == ""


def test_a_digest_that_is_gone_is_told_with_what_is_there(run):
    run.options, run.places, run.also = {"image": f"base@{OLD}"}, [flat(OLD)], [TAG]
    found = take_report(Hub(), run, {"images": [[flat(OLD), "missing", ""], [TAG, "sandbox", flat(NEW)]]})
    assert f"there is today: base@{NEW}" in missing_words(run, Failure("It failed."), found).message
    run.also = []
    assert missing_words(run, Failure("It failed."), found) == Failure("It failed.")


@pytest.mark.parametrize(
    "allow, pulls", [(["/data/*"], False), (["/data/*", "docker://ghcr.io/*"], True), (None, False)]
)
def test_a_site_whose_users_may_have_images_pulled_waits_for_that(allow, pulls):
    site = load_site({**SITE_FILE, **({"custom_images": {"allow": allow}} if allow else {})})
    runtime = SimpleNamespace(site=site, queues=False, pulls=Runtime.pulls.fget(SimpleNamespace(site=site)))
    spawner = HEPSpawner()
    spawner.user = SimpleNamespace(settings={"hepspawner": runtime})
    assert spawner.start_timeout == (86400 if pulls else 600)
