"""Training of the networks.

Input: a corpus without its test clips, and a configuration. Output: a trained network, its
history and checkpoints. Nothing here can open the test split or computes a reported metric.
"""
