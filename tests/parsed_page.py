"""A page of a report, parsed."""

import html.parser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """A parsed page: its links, the text of each section, the rows of its tables by kind; asserts that tags match."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.links, self.sections, self.rows, self.banners = [], [], {}, [], {}
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [(name, attributes[name]) for name in ("href", "src") if name in attributes]
        if tag not in VOID:
            self.stack.append((tag, attributes))
        if tag in ("section", "header"):
            self.sections[attributes.get("id", tag)] = ""
        if tag == "tr":
            self.rows.append((self.part(), attributes.get("class"), []))
        if tag == "td":
            self.rows[-1][2].append("")
        self.handle_data(" ")

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag

    def handle_data(self, data):
        part = self.part()
        if part:
            self.sections[part] += data
            if any(attributes.get("class", "").startswith("banner") for _, attributes in self.stack):
                self.banners[part] = self.banners.get(part, "") + data
        if self.inside("td"):
            self.rows[-1][2][-1] += data

    def inside(self, tag):
        return any(name == tag for name, _ in self.stack)

    def part(self):
        return next((a.get("id", t) for t, a in reversed(self.stack) if t in ("section", "header")), None)
