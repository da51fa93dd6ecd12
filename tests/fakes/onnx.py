"""The two things the exporter asks of the package onnx, for machines that lack it.

torch's exporter writes the file by itself; it has onnx read it once more, to look for functions
of custom operators, of which there are none. We have it add a description. The file is then run
by onnxruntime all the same, so that what is tested of it is real.
"""

from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["stand_in"]

METADATA_PROPS = 14  # number of the field in ModelProto


class _Entries(list):
    def add(self, *, key, value):
        self.append((key, value))


class _Graph:
    node = ()


class _Model:
    graph = _Graph

    def __init__(self, content):
        self.content = content
        self.metadata_props = _Entries()

    def SerializeToString(self):  # noqa: N802
        # Fields of a message that are written after one another are merged by its reader.
        entries = [_field(1, k.encode()) + _field(2, v.encode()) for k, v in self.metadata_props]
        return self.content + b"".join(_field(METADATA_PROPS, entry) for entry in entries)


def _field(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def stand_in():
    """A module to put in the place of onnx."""
    module = ModuleType("onnx")
    module.__spec__ = ModuleSpec("onnx", None)  # torch asks every module that it knows for one
    module.load_model_from_string = _Model
    return module
