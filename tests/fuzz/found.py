"""What was found once: inputs that made a parser crash or hang, each tried again with every run of the tests.

By the name of the parser. Most are short; what is long is long for a reason, and made here.
"""

from __future__ import annotations

_DIGITS = b"9" * 5000
_HEX_DIGITS = b"0x" + b"f" * 6000
"""More than Python prints of a number (sys.set_int_max_str_digits), which TOML reads all the same."""

_MERGED = b"a0: &a0 {%s}\n" % b", ".join(b"k%d: 1" % number for number in range(10)) + b"".join(
    b"a%d: &a%d\n  <<: [%s]\n" % (level, level, b", ".join([b"*a%d" % (level - 1)] * 10)) for level in range(1, 9)
)
"""Each level has ten times as many keys as the one before."""

FOUND: dict[str, dict[str, bytes]] = {
    "harness output": {"blanks behind `Result is`": b"Result is" + b" " * 65_000 + b"x\n"},
    "published results": {
        "empty lines": b"\n====\n" + b"\n" * 200_000 + b"x\n",
        "blanks": b"\n====\n" + b" " * 200_000 + b"x\n",
    },
    "[command.<name>]": {
        "blanks in a condition": b"argv=x\nstart=^s$\nresult=(?P<p>x)\nvalid-when=p == " + b"a" + b" " * 90_000 + b"b",
        "a set in a set": b"argv=x\nstart=[[a]\n",
    },
    "configuration": {
        "arrays in arrays": b"seed = " + b"[" * 3000,
        "tables in tables": b"main = " + b"{ a = " * 3000,
        "a number of 5000 digits": b"seed = " + _DIGITS,
        "seed": b'slices = "sim:a30"\nseed = ' + _HEX_DIGITS,
        "gpu": b'slices = "sim:a30"\ngpu = ' + _HEX_DIGITS,
        "duration": b'slices = "sim:a30"\n[main]\nduration = ' + _HEX_DIGITS,
        "slice": b'slices = "sim:a30"\n[main]\nslice = ' + _HEX_DIGITS,
    },
    "layout in YAML": {
        "no bool": b"!!bool x",
        "no int": b"!!int ",
        "no time": b"!!timestamp x",
        "keys that are merged again and again": _MERGED,
        "lists in lists": b"[" * 3000,
    },
    "lines of the sampler": {"nested": b'{"a":' * 3000},
    "lines of the keeper": {"nested": b'{"a":' * 3000},
    "exit.json": {"nested": b'{"pid":1,"a":' + b'{"a":' * 3000},
    "report of a guardian": {"nested": b'{"a":' * 3000},
    "--slices": {"16000 profiles": b"sim:a100-sxm-80gb/" + b",".join([b"1g.10gb"] * 16_000)},
}
