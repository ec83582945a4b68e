"""Circuits to look at: the offline picture of one circuit.

`picture.render_html` turns a payload (plain JSON data) into one self-contained HTML file."""
