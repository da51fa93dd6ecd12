"""The networks.

In come padded features with their masks; out go scores, the common and specific parts,
commonality and actions. Losses, rewards, optimisers and files of data do not belong here.
"""
