"""How networks are trained.

In come a corpus without its test clips and a configuration; out come a trained network, its
history and checkpoints. Nothing here can open the test split, and no metric that is
reported is computed here.
"""
