"""Open media files of any container, and read pictures and sound from them.

A path comes in; pictures and 16 kHz sound of one channel go out, on the file's own clock.
``decode`` opens and reads, ``sound`` resamples, ``channels`` chooses what is heard, ``ends`` says
where a file ends that is cut short, and ``damage`` refuses what is damaged.
"""
