"""Second, plain implementations that the tests hold the package against.

In come nested lists of numbers; out go nested lists of numbers. Nothing here may import
the package, or use more than loops over Python floats.
"""
