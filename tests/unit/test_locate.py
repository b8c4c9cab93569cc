"""Where the image of a choice is, over trees with the layouts of CVMFS."""

from types import SimpleNamespace

import pytest

from hepspawner.choice import Offer, Who
from hepspawner.hub.locate import locate
from tests.rigs.cvmfs import trees
from tests.unit.catalogs import Watched

TAG = "x/base:v1"


@pytest.fixture
async def catalog():
    async with Watched() as one:
        yield one


async def located(catalog, image, runs_images="", ran=(), tree=None, **keys):
    if catalog.site is None:
        catalog.use({"name": "base", **keys}, {"name": "secret", "path": f"{tree}/x/secret:v1", "groups": ["few"]})
        await catalog.stock()
    site = catalog.site
    backend = SimpleNamespace(config=site.backends["here"], runs_images=runs_images, title="Here")
    runtime = SimpleNamespace(catalog=catalog, backend=lambda name: backend)
    offer = Offer(site, Who("alice"))
    return await locate(runtime, offer.choose({"image": image}), offer, "jupyterhub-singleuser", ran)


async def test_launchers_look_in_the_sites_order_so_that_they_can_tell_which_was_taken(catalog, tmp_path):
    trees.ducc(tmp_path, TAG)
    path = [f"{tmp_path}/gone", f"{tmp_path}/{TAG}"]
    found = await located(catalog, "base", tree=tmp_path, path=path)
    assert (found.places, found.problem) == (path, "")


@pytest.mark.parametrize("layout", ["ducc", "osg", "plain"])
async def test_a_backend_that_runs_images_gets_the_one_directory(catalog, tmp_path, layout):
    if layout == "ducc":
        digest = trees.ducc(tmp_path, TAG)
        directory = f"{tmp_path}/.flat/{digest[:2]}/{digest}"
    elif layout == "osg":
        digest = trees.osg(tmp_path, str(tmp_path), TAG)
        directory = f"{tmp_path}/.images/{digest[:2]}/{digest[2:]}"
    else:
        digest, directory = "", str(trees.sandbox(tmp_path / TAG))
    path = f"{tmp_path}/{TAG}"
    found = await located(catalog, "base", "places", tree=tmp_path, path=[f"{tmp_path}/gone", path])
    assert (found.places, found.pinned) == ([directory], path if digest else "")
    if digest:
        again = await located(catalog, f"base@{digest}", "places")
        assert (again.places, again.problem) == ([directory], "") and again.pinned


async def test_a_backend_that_runs_images_is_given_no_guess(catalog, tmp_path):
    digest = "ab" * 32
    ran = [{"name": "base", "digest": digest}]
    found = await located(catalog, f"base@{digest}", "places", ran, path="/cvmfs/no-such.test/x:y", tree=tmp_path)
    assert found.problem and not found.places


async def test_a_digest_of_a_file_system_is_none_of_a_registry(catalog, tmp_path):
    digest = trees.ducc(tmp_path, TAG)
    found = await located(catalog, f"base@{digest}", "references", tree=tmp_path, path=f"{tmp_path}/{TAG}")
    assert found.problem == f"base@{digest[:12]}: Here runs images as they are today; choose base"
    assert (await located(catalog, "base", "references")).problem == ""


async def test_a_digest_is_one_of_the_image(catalog, tmp_path):
    mine, secret = trees.ducc(tmp_path, TAG), trees.ducc(tmp_path, "x/secret:v1")
    path = f"{tmp_path}/{TAG}"
    assert (await located(catalog, f"base@{mine}", tree=tmp_path, path=path)).problem == ""
    ran = [{"name": "base", "digest": secret}, {"name": "other", "digest": "cd" * 32}]
    for digest in (secret, "cd" * 32):
        found = await located(catalog, f"base@{digest}", ran=ran)
        assert "the hub does not know that base ever was this image; there is today: base@" in found.problem
    ran = [{"name": "base", "digest": "cd" * 32}]
    assert "is not there any more" in (await located(catalog, f"base@{'cd' * 32}", ran=ran)).problem
