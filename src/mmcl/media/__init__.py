"""Turn media files into clips with features of words, voice and face.

Files and labels come in, and one corpus goes out. The way of a file through the room:

1. ``folders`` finds what is to be extracted, with its labels.
2. ``containers`` opens a file of any kind and reads its pictures and its sound.
3. ``spoken`` finds what is said and when: from a file that ``transcripts`` reads, or from the
   sound, by ``recognise``. ``align`` times the words, ``utterances`` cuts them.
4. ``text``, ``voice`` and ``face`` give the features of each modality, ``rates`` one step per
   word. ``weights`` finds the models, and a :class:`~mmcl.media.recipe.Recipe` says how.
5. ``extract`` does 2 to 4 for one file (``stages`` counts its seconds), ``batch`` for many, and
   ``merge`` makes one corpus of them. ``text_vectors`` adds vectors to a corpus of text alone.

Nothing here predicts, and nothing here opens the network unless a model's hub id was given.
Needs the extra ``media``.
"""
