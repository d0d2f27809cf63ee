"""Exchanges that take no time: thousands of workers at once, exact to the papers.

`Engine` is the library's way in: an objective, a system, a source of events and a state.
"""
