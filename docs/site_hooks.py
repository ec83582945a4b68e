"""What mkdocs calls while it builds the site: the one script that the theme fetches from elsewhere comes along."""

from typing import Any

FETCHED = "https://unpkg.com/iframe-worker/shim"
"""What makes search work in a page that is opened as a file."""
OURS = "javascripts/iframe-worker.js"


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """The page with our copy of the script."""
    depth = page.url.count("/")
    return output.replace(FETCHED, "../" * depth + OURS)
