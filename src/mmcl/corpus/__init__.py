"""Corpora: their schema, their files, and the readers that make them.

Foreign files (pickles, npz) and the settings of planted corpora come in. Corpora go out, as
Arrow files that follow one schema, and padded batches made of them. Models, losses and
metrics do not belong here.
"""
