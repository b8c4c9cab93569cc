"""The command `hepspawner`: demo, check, images, preview."""

import argparse
import asyncio
import getpass
import json
import logging
import os
import sys
import time
from urllib.parse import quote

from . import __version__
from .backends import backend_class
from .backends.base import BackendError
from .catalog.catalog import Catalog
from .catalog.check import check_image
from .catalog.state import described
from .choice import ChoiceError, Offer, Who
from .session import SECRET, Request, build_session, summary
from .site.load import SiteError, load_site
from .site.model import Site
from .templates import Templates

_log = logging.getLogger("hepspawner")
_quiet = logging.getLogger("hepspawner.quiet")  # what it would say is printed in the end
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False
_DEADLINE = 60.0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, or 1 where something is wrong with what was given."""
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `hepspawner images … | head`
        sys.stderr.close()
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hepspawner", description="JupyterHub servers from images on CVMFS.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="say all that is wrong with a site file, or with an image")
    check.add_argument("site", metavar="SITE", nargs="?", help="the site file")
    check.add_argument("--image", metavar="PATH", help="look into an image: a sandbox directory or a SIF")
    check.add_argument("--templates", action="append", default=[], metavar="DIR", help="a directory of own templates")
    check.set_defaults(run=_check, wrong=check.error)

    images = commands.add_parser("images", help="list the images that a user sees")
    images.add_argument("site", metavar="SITE")
    images.add_argument("--user", default=getpass.getuser())
    images.add_argument("--groups", default="", metavar="G1,G2", help="the user's JupyterHub groups")
    images.add_argument("--json", action="store_true")
    images.set_defaults(run=_images)

    preview = commands.add_parser("preview", help="show what a start would run, without starting it")
    preview.add_argument("site", metavar="SITE")
    preview.add_argument("--user", default=getpass.getuser())
    preview.add_argument("--groups", default="", metavar="G1,G2", help="the user's JupyterHub groups")
    preview.add_argument(
        "--server", default="", metavar="NAME", help="name of the server; default: the user's default server"
    )
    preview.add_argument("--options", default="{}", metavar="JSON", help="what the user asks for, as in the API")
    preview.set_defaults(run=_preview)

    demo = commands.add_parser("demo", help="a hub on this machine, to try it")
    demo.add_argument("--port", type=int, default=8000)
    demo.add_argument("--images", metavar="DIR", help="a directory of sandboxes and SIFs")
    demo.set_defaults(run=_demo)
    return parser


def _check(options: argparse.Namespace) -> int:
    if options.site is None and options.image is None:
        options.wrong("give a site file, or --image PATH")
    status = _check_site(options) if options.site is not None else 0
    if options.image is not None:
        lines, good = asyncio.run(check_image(os.path.abspath(options.image)))
        print("\n".join(lines))
        status = status if good else 1
    return status


def _check_site(options: argparse.Namespace) -> int:
    problems = Templates(options.templates, _log).check()
    for problem in problems:
        print(problem, file=sys.stderr)
    site = load_site(options.site)
    catalog = _take_stock(site)
    for problem in catalog.problems:
        print(f"note: {problem}")
    written = {image.name for image in site.images}
    missing = 0
    for image in catalog.images:
        state = catalog.state(image, site.backends.values())
        if state.ok:
            continue
        missing += image.name not in written
        if image.name in written:
            # Not an error: the nodes may see what this machine does not, and an image may come later.
            print(f"note: image {image.name}: {state.path} {state.text} on this machine")
    if site.sources:
        found = len(catalog.images) - len(written)
        print(f"note: {found} images were found by sources; {missing} of them cannot be used on this machine")
    for name, config in site.backends.items():
        for problem in backend_class(config.type)(name, config, _log).problems():
            print(f"note: backend {name}: {problem} on this machine")
    print(
        f"{options.site}: {'templates have errors' if problems else 'good'}: {len(site.images)} images, "
        f"backends {', '.join(site.backends)}"
    )
    return 1 if problems else 0


def _groups(options: argparse.Namespace) -> frozenset[str]:
    """The JupyterHub groups that were named."""
    return frozenset(filter(None, options.groups.split(",")))


def _take_stock(site: Site) -> Catalog:
    """What there is on this machine, as far as it answers within a minute."""

    async def take() -> Catalog:
        catalog = Catalog(_quiet, asyncio.ensure_future)
        catalog.follow(site)
        try:
            await asyncio.wait_for(catalog.stock(), _DEADLINE)
        except asyncio.TimeoutError:
            pass
        return catalog

    return asyncio.run(take())


def _offer(site: Site, options: argparse.Namespace) -> Offer:
    who = Who(options.user, _groups(options))
    own = {name: backend_class(config.type)(name, config, _log).fields(who) for name, config in site.backends.items()}
    return Offer(site, who, own)


def _images(options: argparse.Namespace) -> int:
    catalog = _take_stock(load_site(options.site))
    assert catalog.site is not None
    offer = _offer(catalog.site, options)
    rows = []
    for image in offer.images.values():
        known = described(catalog.state(image, offer.backends_of(image).values()))
        known["state"] = known["state"] if image.places else "oci"
        rows.append(
            {
                "name": image.name,
                "title": image.label,
                "group": image.group,
                "gpu": image.gpu,
                "backends": list(offer.backends_of(image)),
                "where": known.pop("place") or image.oci or "",
                **known,
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        published = time.strftime("%Y-%m-%d", time.localtime(row["published"])) if row["published"] else "-"
        print(
            f"{row['name']:30} {row['state']:17} {(row['digest'] or '-')[:12]:12} {published:10} "
            f"gpu {row['gpu']:9} {','.join(row['backends']):20} {row['where']}"
        )
    for problem in catalog.problems:
        print(problem, file=sys.stderr)
    if not rows:
        print(f"no image for user {options.user} with groups {options.groups or 'none'}", file=sys.stderr)
    return 0


def _preview(options: argparse.Namespace) -> int:
    site = load_site(options.site)
    if site.sources:
        site = _take_stock(site).site or site
    try:
        choice = _offer(site, options).choose(json.loads(options.options))
        config = site.backends[choice.backend]
        backend = backend_class(config.type)(choice.backend, config, _log)
        name = quote(options.user, safe="@")
        base_url = f"/user/{name}/{quote(options.server, safe='') + '/' if options.server else ''}"
        request = Request(
            site=site,
            backend=config,
            choice=choice,
            user=options.user,
            server=options.server,
            base_url=base_url,
            hub_environment={
                "JUPYTERHUB_API_TOKEN": SECRET,
                "JUPYTERHUB_USER": options.user,
                "JUPYTERHUB_SERVER_NAME": options.server,
                "JUPYTERHUB_SERVICE_PREFIX": base_url,
                "JUPYTERHUB_*": "(what else the hub sets)",
            },
            bind=backend.bind,
            session="(made for each start)",
            runs_images=backend.runs_images,
            groups=_groups(options),
        )
        print(f"# {summary(choice, site)}\n{backend.preview(build_session(request))}", end="")
    except (json.JSONDecodeError, RecursionError) as error:
        what = error if isinstance(error, ValueError) else "it is nested too deeply"
        print(f"--options: is not JSON: {what}", file=sys.stderr)
        return 1
    except ChoiceError as error:
        for field, text in error.errors.items():
            print(f"{field}: {text}", file=sys.stderr)
        return 1
    except (BackendError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _demo(options: argparse.Namespace) -> int:
    from .demo import run_demo  # needs JupyterHub, which the other commands do not

    return run_demo(options.port, options.images)


if __name__ == "__main__":
    sys.exit(main())
