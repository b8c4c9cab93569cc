"""What stands in the fields of a page, as a browser would see it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Page(HTMLParser):
    """The fields of the spawn form."""

    html: str
    fields: dict[str, str] = field(default_factory=dict)
    """By name: what would be sent."""
    offered: dict[str, list[str]] = field(default_factory=dict)
    """By name: the values of radio buttons and selects."""
    marked: set[str] = field(default_factory=set)
    """Names of the fields that are marked as wrong."""
    text: str = ""
    """All that people can read."""

    def __post_init__(self) -> None:
        super().__init__()
        self._select = ""
        self._group_is_marked = False
        self._hidden = False
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        self._hidden = tag in ("script", "style")
        if tag == "fieldset":
            self._group_is_marked = given.get("aria-invalid") == "true"
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            first = self._select not in self.offered
            self._note(self._select, given.get("value", ""), first or "selected" in given)
        elif tag == "input" and given.get("type") == "radio":
            if "disabled" not in given:
                self._note(name, given["value"], "checked" in given)
            if self._group_is_marked:
                self.marked.add(name)
        elif tag == "input" and name:
            self.fields[name] = given.get("value", "")
        if tag in ("input", "select") and given.get("aria-invalid") == "true":
            self.marked.add(name)

    def _note(self, name: str, value: str, chosen: bool) -> None:
        self.offered.setdefault(name, []).append(value)
        if chosen:
            self.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "fieldset":
            self._group_is_marked = False
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += " ".join(data.split()) + " " if data.strip() else ""
