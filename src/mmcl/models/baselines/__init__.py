"""Models that MMCL is compared with: published ones and plain ones.

They are written anew from their papers; nothing is copied. The docstring of each file says where
it departs from its source. Whatever their source does, all of them take every kind of task, any
lengths with masks, clips and corpora that lack a modality, and a batch of one. Training, metrics
and comparisons do not belong here; a model only adds its own loss.
"""
