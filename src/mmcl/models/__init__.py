"""The networks.

Input: padded features with their masks. Output: scores, the common and specific parts,
commonality and actions. Losses, rewards, optimisers and data files do not belong here.
"""
