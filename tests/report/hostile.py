"""A program whose output tries to be more than text: `hostile.py SECONDS|dying [ANYTHING]`."""

from __future__ import annotations

import sys
import time

EVIL = [
    b"<script>document.title='output'</script></style></pre><img src=http://localhost:9/y onerror=alert(1)>",
    b"\x1b[31m\x1b]0;title\x07\x1b[2J red \x1b[8m hidden",
    b"[bold red]rich[/bold red] ![x](http://localhost:9/z) | pipe | `tick` **bold** @everyone",
    b"nul \x00\x00 byte, invalid \xff\xfe\xc3( UTF-8, \xe2\x80\xaereversed",
    b"x" * 1_000_000,
]


def main() -> None:
    out = sys.stdout.buffer
    out.write(b"start\n" + b"\n".join(EVIL) + b"\n")
    out.flush()
    if sys.argv[1] == "dying":
        time.sleep(2)
        out.write(EVIL[0] + b"\x1b[31m [bold]x[/bold] | `tick` @everyone\xff\x00\n")
        out.flush()
        sys.exit(7)
    time.sleep(float(sys.argv[1]))
    out.write(b"p99_ms=1.5\n")


if __name__ == "__main__":
    main()
