"""Find the files to extract, and their labels.

Paths come in, and :mod:`~mmcl.media.folders.items` go out, with faulty rows and notes. ``gather``
searches files and folders; ``labelled`` reads a folder with ``label.csv`` (``label_table``: its
rows; ``label_values``: what the labels are; ``raw_files``: the file of a row). ``leftovers`` names
the files that nothing uses.
"""
