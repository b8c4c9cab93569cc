"""Sizes and times as people write them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hepspawner.units import format_size, format_time, parse_size, parse_time

G = 1024**3


@pytest.mark.parametrize(
    "text, size",
    [
        ("512M", 512 * 1024**2),
        ("8G", 8 * G),
        ("1.5G", 3 * G // 2),
        ("2T", 2048 * G),
        ("1K", 1024),
        ("8 G", 8 * G),
        (" 8G ", 8 * G),
        ("8GB", 8 * G),
        ("8GiB", 8 * G),
        ("1.001K", 1024),  # whole KiB, or it could not be written down again
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text, seconds", [("30s", 30), ("30m", 1800), ("8h", 28800), ("4d", 345600), (" 1 h ", 3600)])
def test_times(text, seconds):
    assert parse_time(text) == seconds


BAD = [
    "",
    " ",
    "8",
    "G",
    "0G",
    "-1G",
    "1,5G",
    "1.5.5G",
    "8g",
    "8Q",
    "1e3M",
    "٣G",
    "８G",
    "8G\n8G",
    "inf",
    "9" * 1000 + "G",
    "²G",
]


@pytest.mark.parametrize("text", [*BAD, "0.001K", "0.5K", "1048577T", "9999999999999999G"])
def test_what_is_no_size_is_told_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"^write a number and a unit: 512M, 8G$"):
        parse_size(text)


@pytest.mark.parametrize("text", [*BAD, "1.5h", "0s", "8H", "1d12h"])
def test_what_is_no_time_is_told_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"^write a number and a unit: 30s, 30m, 8h, 4d$"):
        parse_time(text)


@pytest.mark.parametrize("text", ["1K", "512M", "1536M", "8G", "2T", "1023K"])
def test_a_size_is_written_in_its_largest_exact_unit(text):
    assert format_size(parse_size(text)) == text


@pytest.mark.parametrize("text, shown", [("60s", "1m"), ("90s", "90s"), ("48h", "2d"), ("36h", "36h"), ("8h", "8h")])
def test_a_time_is_written_in_its_largest_exact_unit(text, shown):
    assert format_time(parse_time(text)) == shown


@given(st.from_regex(r"[1-9][0-9]{0,5}(\.[0-9]{1,3})?[KMGT]", fullmatch=True))
@example("1.001T")
@example("1048576T")
def test_every_size_can_be_written_down_again(text):
    size = parse_size(text)
    assert parse_size(format_size(size)) == size


@given(st.from_regex(r"[1-9][0-9]{0,8}[smhd]", fullmatch=True))
def test_every_time_can_be_written_down_again(text):
    seconds = parse_time(text)
    assert parse_time(format_time(seconds)) == seconds


@given(st.text())
def test_no_text_is_anything_but_a_value_or_refused(text):
    for parse in (parse_size, parse_time):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value > 0
