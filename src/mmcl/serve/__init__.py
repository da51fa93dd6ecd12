"""Trained runs behind HTTP: features or a recording come in, predictions with their moments go out.

``app`` is the service itself, and the only module that knows the routes. Features are checked
(``features``) and predicted together with those of other clients (``batching``, ``predicting``);
a recording is received (``uploads``), becomes a job (``jobs``, ``store``) and is read, extracted
and predicted by a process apart (``workshop`` and, inside it, ``work``), so that no file can take
the service down. ``limits`` says how much of everything is allowed, ``problems`` how an error is
told, ``guard`` who may come in, ``meters`` what is counted, ``results`` and ``answers`` what a
client gets. Nothing here trains, scores or draws a figure of its own. Needs the extra ``serve``,
and ``media`` for recordings.
"""
