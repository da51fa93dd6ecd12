"""Figures and pages that show what a trained network saw.

In come finished runs, their corpora, and what networks made of single clips. Out go figures,
and pages that need neither a network nor another file to be read. Training, metrics and the
choice of a network do not belong here, and neither does output on a terminal.
"""
