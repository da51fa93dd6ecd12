"""Read what is said from a transcript of any of the usual formats.

A file comes in, and utterances with their words, times and speakers go out, with notes on what was
left out. ``reading`` finds the format and calls its reader: ``subtitles`` (srt, vtt; with
``repeats`` and ``languages``), ``json_files`` or ``tables``. ``speech_only`` keeps of their text
what is said, without what ``not_speech`` finds and without the names of ``speakers``.
"""
