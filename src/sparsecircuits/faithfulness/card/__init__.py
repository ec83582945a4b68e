"""The faithfulness card: its schema, its verdict, and the card as Markdown and as a page."""
