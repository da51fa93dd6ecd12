"""The command line: one thin module per command.

A command takes the options that a user typed, calls the other rooms, and prints text. No
computation belongs here. Other rooms are imported inside the functions, so that
``mmcl --help`` does not wait for torch.
"""
