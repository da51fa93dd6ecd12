"""Markup of subtitles: tags and entities go, words in angle brackets stay."""

import pytest

from mmcl.media.markup import without_markup


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<i>so</i> <b>good</b>", "so good"),
        ('<font color="#ffff00" size=4>so</font>', "so"),
        ("<c.yellow.bg_blue>so</c><00:00:01.000><c> good</c>", "so good"),
        ("<lang en>so</lang> <ruby>漢<rt>kan</rt></ruby>", "so 漢"),
        ("{\\an8}so{\\i1} good{\\i0}", "so good"),
        ("{\\pos(192,210)}so\\Ngood", "so\ngood"),
        ("{y:i}so", "so"),
        ("so<br/>good<BR>now", "so\ngood\nnow"),
        ("rock &amp; roll &gt;&gt; it&#39;s&nbsp;on", "rock & roll >> it's\xa0on"),
        ("so\u200b good\ufeff", "so good"),  # spaces of no width
        ("&lrm;so good\u202c", "so good"),  # the direction of writing
        ("if a < b and b > c", "if a < b and b > c"),
        ("<laughter> I <3 it", "<laughter> I <3 it"),
    ],
)
def test_markup_is_taken_out(text, plain):
    assert without_markup(text) == plain
