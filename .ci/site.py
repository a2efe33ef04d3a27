"""What mkdocs does to the pages besides: named in mkdocs.yml."""

import re
from typing import Any, Final

from mkdocs.exceptions import PluginError

# What a browser fetches by itself. A link is followed by a person, and the own address by nobody.
FETCHED: Final = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?![^>]*\brel="?canonical)[^>]*\bhref="?(?:https?:)?//[^>]*>"""
)


def on_page_content(html: str, **_: Any) -> str:
    """Drop what reStructuredText has before code in a docstring: Markdown has nothing."""
    return html.replace("<p>::</p>", "")


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Fail where a page asks anything of anybody else."""
    fetched = FETCHED.search(output)
    if fetched is not None:
        raise PluginError(f"{page.file.src_uri} has a part that others serve: {fetched[0]}")
    return output
