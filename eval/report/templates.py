"""The pages' templates: autoescaped, with the one way of writing figures as filters."""

import re
from functools import cache

from jinja2 import ChainableUndefined, Environment, PackageLoader, Template
from markupsafe import Markup

from eval.report import notation


def load_template(name: str) -> Template:
    """The template `name` of this folder; what it is not given is empty, and all it is given is escaped."""
    return _build_environment().get_template(name)


@cache
def _build_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("eval", "report"),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(notation, name)
        for name in (
            "percent",
            "percent_range",
            "points",
            "points_range",
            "number",
            "scientific",
            "megabytes",
            "milliseconds",
            "seconds",
            "label",
            "flatten",
            "setting",
            "entry",
        )
    }
    environment.filters["headings"] = list_headings
    return environment


def list_headings(page: Markup) -> list[tuple[str, Markup]]:
    """(id, title) of the page's sections, in order, as macro `section` writes them."""
    found = re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', page)
    return [(name, Markup(title)) for name, title in found]
