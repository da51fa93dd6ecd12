"""What data is.

In come foreign files (pickles, npz) and planting parameters; out go corpora: Arrow files
whose card and clips follow one schema, and padded batches made of them. Models, losses
and metrics do not belong here.
"""
