"""Turn media files into clips with features of words, voice and face.

Files and labels come in, and one corpus goes out. The way of a file through the room:

1. Found: ``folder`` gathers the :mod:`~mmcl.media.items`. ``labelled_folder`` reads a folder with
   ``label.csv`` (``label_table``: its rows; ``label_values``: what the labels are; ``raw_files``:
   the file of a row). ``leftovers`` names what is not used.
2. Opened: ``decode`` gives pictures and sound of any container, ``ends`` where they end,
   ``channels`` and ``sound`` one channel of 16 kHz. ``damage`` tells a service what is missing.
3. What is said: ``spoken`` returns its utterances. They come from ``transcripts``
   (``transcript_json``, ``transcript_tables``, ``subtitles`` with ``repeats`` and ``languages``;
   of these, ``speech_only`` keeps what is said, without ``not_speech`` and the names of
   ``speakers``), or from ``recognise``. ``align`` times the words, ``utterances`` cuts them.
4. Measured: ``text``, ``voice`` and ``face`` give the features of each modality, ``rates`` one
   step per word. ``weights`` finds the models, and a :class:`~mmcl.media.recipe.Recipe` says how.
5. Written: ``extract`` does 2 to 4 for one file (``stages`` counts its seconds), ``batch`` for
   many, and ``merge`` makes one corpus of them.

Nothing here predicts, and nothing here opens the network unless a model's hub id was given.
Needs the extra ``media``.
"""
