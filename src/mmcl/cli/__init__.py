"""The command line: one thin module per command.

In come words typed by a user; out go calls into the other rooms and text on the
terminal. No computation belongs here.
"""
