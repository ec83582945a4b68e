"""Circuits as data: found, saved, loaded, measured.

A circuit and its model are enough to recompute everything that is shown of it.
"""
