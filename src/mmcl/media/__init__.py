"""Turn media files into clips with features of words, voice and face.

There is one module per step: ``decode`` (pictures and sound of any container), ``transcripts``
(srt, vtt, json, txt, csv), ``speech_only`` (what of them is said, and by whom), ``recognise``
and ``align`` (words and their times), ``utterances`` (where to cut), ``text``, ``voice`` and
``face`` (features of each modality), ``rates`` (one step per word) and ``weights`` (the
models). ``extract`` runs them on one file, as a :class:`~mmcl.media.recipe.Recipe` says;
``spoken`` finds its utterances. ``folder`` finds the files, and ``batch`` extracts them into
one corpus. Nothing here predicts, and nothing here opens the network unless a model's hub id
was given. Needs the extra ``media``.
"""
