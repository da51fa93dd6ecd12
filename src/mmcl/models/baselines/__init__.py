"""What MMCL is compared with: published models and plain ones, one file each.

They are written anew from their descriptions; nothing is copied. Each file says where it
departs from its source. What all of them do, whatever their source does: take every kind of
task, any lengths with masks, clips and corpora that lack a modality, and a batch of one.
Training, metrics and comparisons do not belong here; a model only adds its own loss.
"""
