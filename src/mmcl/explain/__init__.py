"""What a trained network saw, made visible.

In come finished runs, the corpora they were trained on and what their networks made of
single clips; out go figures, and pages that need neither a network nor another file to be
read. Training, metrics and the choice of a network do not belong here, and neither does
anything that prints to a terminal.
"""
