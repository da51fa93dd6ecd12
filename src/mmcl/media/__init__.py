"""A media file comes in; clips with words, voice and face features go out.

One module per step, each usable alone: ``decode`` (pictures and sound of any container),
``transcripts`` (srt, vtt, json, txt), ``recognise`` and ``align`` (words and their times),
``utterances`` (where to cut), ``text``, ``voice`` and ``face`` (features of each modality),
``rates`` (from each modality's own rate to one step per word), ``weights`` (where models lie
on this machine). ``extract`` runs them all on one file by one
:class:`~mmcl.media.recipe.Recipe`; ``folder`` finds what there is to extract, and ``batch`` does
so by several processes, into one corpus. Nothing here predicts, and nothing here opens the
network unless a model's hub id was asked for. Needs the extra ``media``.
"""
