"""The measures of the faithfulness card: small pure functions over model, circuit and prompts.

Each says what it is, where it comes from and what range it has; docs/faithfulness.md collects them.
"""
