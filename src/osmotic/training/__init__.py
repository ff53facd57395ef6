"""The training engine: one loop for any objective, runs that survive being killed (layer 5).

Importing this package imports nothing else, so that ``options``, ``run``, ``manifest`` and ``errors`` stay torch-free.
"""
