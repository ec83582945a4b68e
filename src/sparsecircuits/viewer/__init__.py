"""Circuits to look at and touch: a page for the browser, served on this machine alone, or as one offline file.

`web/` holds the page's TypeScript sources, `static/` what `make page` builds from them; `server` serves it with
the JSON of `library` and `live`, and `picture.render_html` turns a payload into one self-contained HTML file.
`schema` says what that JSON is, and the page's types are written from it."""
