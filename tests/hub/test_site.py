"""The site file and the templates, while a hub runs: what is broken in them is told, and breaks nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.pages import Page
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")


def test_a_hub_with_a_broken_site_runs_and_says_so(new_hub: Callable[..., RealHub], site: Any, user: str) -> None:
    hub = new_hub({**site, "imagse": []})
    page = Page(hub.browser(user).form().text)
    assert "the site file has an error" in page.text
    assert "imagse" not in page.text and str(hub.site_file) not in page.text
    admin = Page(hub.browser("admin").form().text)
    assert "imagse" in admin.text and str(hub.site_file) in admin.text
    answer = hub.start_server(user)
    assert answer.status_code == 503 and "the site file has an error" in answer.json()["message"]
    token = hub.user_token(user)
    for method, path in (("GET", "images"), ("POST", "preview")):
        answer = hub.api(method, f"/hepspawner/{path}", {}, token=token)
        assert answer.status_code == 503 and "imagse" not in answer.text
    assert hub.log().count("imagse") == 1
    assert "Traceback" not in hub.log()
    # mended, it works, without a restart
    hub.change_site(site)
    assert "tiny" in Page(hub.browser(user).form().text).offered["image"]
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201


@pytest.mark.parametrize("text", ["", "[", "images: 5", "\0", "- a\n- b", "!!python/object:os.system {}"], ids=repr)
def test_no_broken_site_takes_a_running_hub_down(hub: RealHub, user: str, site: Any, text: str) -> None:
    hub.change_site(text)
    assert "tiny" in Page(hub.browser(user).form().text).offered["image"]  # the last good one is kept
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201
    assert hub.new_log().count("cannot be used") == 1
    assert "Traceback" not in hub.new_log()


def test_a_site_that_is_broken_while_the_hub_runs(hub: RealHub, user: str, site: Any) -> None:
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    pid = hub.server_get(user, "facts").json()["pid"]
    broken = {
        **site,
        "backends": {**site["backends"], "engine": {**site["backends"]["engine"], "cpus": {"max": "many"}}},
    }
    hub.change_site(broken)
    admin = Page(hub.browser("admin").form().text)
    assert "many" in admin.text and "cpus" in admin.text
    assert "For admins" not in Page(hub.browser(user).form("second").text).text
    assert hub.server_get(user, "facts").json()["pid"] == pid
    # and the file may be gone altogether, for a while
    hub.site_file.unlink()
    eventually(lambda: hub.new_log().count("cannot be used") == 2, "the hub notices")
    assert hub.start_server(user, {"image": "tiny"}, "second").status_code == 201
    hub.change_site(site)
    assert "For admins" not in Page(hub.browser("admin").form().text).text


def test_a_good_change_is_picked_up(hub: RealHub, user: str, site: Any) -> None:
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    new = {**site["images"][0], "name": "brand-new"}
    engine = {**site["backends"]["engine"], "environment": {"NEW": "yes"}}
    others = [image for image in site["images"] if image["name"] != "second"]
    hub.change_site({**site, "images": [new, *others], "backends": {**site["backends"], "engine": engine}})
    page = Page(hub.browser(user).form("third").text)
    assert page.fields["image"] == "brand-new"
    assert "second" not in page.offered["image"]
    assert hub.start_server(user, {"image": "brand-new"}, "third").status_code == 201
    assert hub.server_get(user, "facts", "third").json()["environment"]["NEW"] == "yes"
    # the server of before is neither disturbed nor lost
    assert hub.server_get(user, "facts").ok
    hub.stop_server(user)
    hub.gone(user)


def test_a_template_with_an_error_is_replaced_by_ours(
    new_hub: Callable[..., RealHub], site: Any, user: str, tmp_path: Any
) -> None:
    (tmp_path / "form.html").write_text("{% if %}\n")
    (tmp_path / "progress.html").write_text("{{ nonsense.attribute }}")
    (tmp_path / "failure.html").write_text('{% extends "templates/failure.html" %}')
    tmp_path.parent.chmod(0o755)
    hub = new_hub(site, f"c.HEPSpawner.template_paths = [{str(tmp_path)!r}]\n")
    page = Page(hub.browser(user).form().text)
    assert "tiny" in page.offered["image"] and "form.html" not in page.text
    assert f"{tmp_path}/form.html:1" in Page(hub.browser("admin").form().text).text
    assert f"{tmp_path}/form.html:1" in hub.log()
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201
    assert "Traceback" not in hub.log()


def test_a_template_of_the_admin_is_used(new_hub: Callable[..., RealHub], site: Any, user: str, tmp_path: Any) -> None:
    own = (
        '{% extends "templates/form.html" %}{% block messages %}<p>Maintenance on Monday</p>{{ super() }}{% endblock %}'
    )
    (tmp_path / "form.html").write_text(own)
    hub = new_hub(site, f"c.HEPSpawner.template_paths = [{str(tmp_path)!r}]\n")
    page = Page(hub.browser(user).form().text)
    assert "Maintenance on Monday" in page.text and "tiny" in page.offered["image"]
