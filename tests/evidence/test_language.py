"""A page is told in Chinese where a translation is there, in English where none is."""

from pathlib import Path

import pytest

from helpers.evidence import language
from helpers.evidence.language import ENGLISH, Language
from helpers.evidence.stats import Estimate

OTHER = Language({"size": "taille", "{a} of {b}": "{b}: {a}", " points": " pts", ", one seed": " (1)"})


def test_a_text_without_translation_stays_as_it_is():
    assert OTHER.say("size") == "taille" and OTHER.say("weight") == "weight" and ENGLISH.say("size") == "size"


def test_parts_stand_where_the_translation_has_them():
    assert OTHER.say("{a} of {b}", a=1, b=2) == "2: 1" and ENGLISH.say("{a} of {b}", a=1, b=2) == "1 of 2"
    assert OTHER.say("a {brace} without parts") == "a {brace} without parts"


@pytest.mark.parametrize(
    "estimate, form, told",
    [
        (Estimate(0.005, 0.003, 0.008), "points", "+0.5 pts [+0.3, +0.8]"),
        (Estimate(-0.025, -0.04, -0.01, trainings=1), "points", "-2.5 pts [-4.0, -1.0] (1)"),
        (Estimate(0.91, 0.9, 0.92), ".1%", "91.0% [90.0%, 92.0%]"),
        (Estimate(9_240_000), "kB", "9,240 kB"),
    ],
)
def test_units_are_told_in_the_language(estimate, form, told):
    assert OTHER.number(estimate, form) == told
    assert ENGLISH.number(estimate, form) == format(estimate, form)


def test_the_name_of_a_page_says_its_language():
    assert language.of(Path("README.md")) is ENGLISH
    assert language.of(Path("README.zh.md")).number(Estimate(0.005), "points") == "+0.5 个百分点"
