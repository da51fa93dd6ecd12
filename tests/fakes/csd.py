"""Files of CMU-MultimodalSDK: two segments in each of four videos, written as the SDK does."""

import json

import h5py
import numpy as np

__all__ = [
    "EDGES",
    "MOSI",
    "NAMES",
    "SEGMENTS",
    "SOURCES",
    "WORDS",
    "make_data",
    "write_all",
    "write_csd",
]

MOSI = ["03bSnISJMiM", "2iD-tVS8NPw", "WKA5OygbEKI", "tmZoasNr4rU"]  # train, train, valid, test
WORDS = ["sp", "it", "is", "sp", "good", "bad", "film"]
EDGES = [0.0, 0.4, 1.0, 1.5, 2.0, 2.6, 3.0, 3.5]
SEGMENTS = [[0.4, 2.0], [2.0, 3.5]]  # "it is (silence)", then the rest
SOURCES = ("words.csd", "glove.csd", "covarep.csd", "facet.csd", "labels.csd")


def write_csd(path, name, data, dataset="CMU-MOSI"):
    """Write a file as the SDK does."""
    with h5py.File(path, "w") as file:
        root = file.create_group(name)
        for key, (intervals, features) in data.items():
            group = root.create_group(f"data/{key}")
            group.create_dataset("intervals", data=np.asarray(intervals, dtype=float))
            group.create_dataset("features", data=features, compression="gzip")
        metadata = root.create_group("metadata")
        for key, value in {"root name": name, "dataset name": dataset}.items():
            text = metadata.create_dataset(key, (1,), dtype=h5py.string_dtype())
            text[0] = json.dumps(value)


def make_data(videos, label_width=1):
    """Make words, vectors, audio at 10 steps a second, vision at 4, and labels, by file."""
    rng = np.random.default_rng(20)
    data = {name: {} for name in SOURCES}
    for video in videos:
        spans = np.stack([EDGES[:-1], EDGES[1:]], axis=1)
        data["words.csd"][video] = (spans, np.array([[w.encode()] for w in WORDS], dtype="S8"))
        data["glove.csd"][video] = (spans, rng.normal(size=(7, 3)).astype(np.float32))
        for name, rate, width in (("covarep.csd", 10, 4), ("facet.csd", 4, 2)):
            starts = np.arange(int(3.5 * rate)) / rate
            steps = np.stack([starts, starts + 1 / rate], axis=1)
            data[name][video] = (steps, rng.normal(size=(len(starts), width)).astype(np.float32))
        labels = rng.uniform(-3, 3, size=(2, label_width))
        labels[:, 1:] = [[0, 1, 0, 0.33, 0, 2], [0, 0, 0, 0, 0, 0]] if label_width > 1 else 0
        data["labels.csd"][video] = (SEGMENTS, labels)
    return data


NAMES = dict(zip(SOURCES, ("words", "glove_vectors", "COVAREP", "FACET_4.2", "x"), strict=True))
NAMES["labels.csd"] = "Opinion Segment Labels"


def write_all(folder, data, dataset="CMU-MOSI"):
    folder.mkdir(exist_ok=True)
    for name, videos in data.items():
        write_csd(folder / name, NAMES[name], videos, dataset)
    return [folder / name for name in data]
