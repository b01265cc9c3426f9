"""What is secret of what a run is told, and the mark that stands for it in everything that is written down.

Programs get the real values. A secret is known by the name that it goes with (a variable, an option, a header), or by
its place in a URL; once known, it is left out wherever else it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from heteromig.core.spec import CommandSpec, RunSpec

REDACTED = "<redacted>"

_SECRET_WORDS = (
    # But not max_tokens, tokenizer, eos_token_id, use_token_latencies: what language models are asked for.
    r"(?<!(?:MAX|MIN|NEW|NUM|PER|EOS|BOS|PAD|PUT|RST)_)TOKEN(?!S|IZ|_ID|_LATENC|_COUNT|_LEN|_LIMIT)",
    r"SECRET",
    r"PASSWO?R?D",
    r"PASSPHRASE",
    r"CREDENTIAL",
    r"(?:API|ACCESS|PRIVATE|ENCRYPTION|SIGNING|ACCOUNT|LICENSE|SSH|AUTH)[_.]?KEY",
    r"AUTHORIZATION",
    r"COOKIE",
    r"^AWS_",
    r"_PAT$",
    r"^PGPASS",
)
_SECRET_NAME = re.compile("|".join(_SECRET_WORDS), re.IGNORECASE)

_LONG_ENOUGH = 8
"""Characters of a secret that is looked for everywhere: `on` or `1234` would be found in what is none."""
_SURELY_LONG_ENOUGH = 16
"""Likewise, of a word that may be none."""

_NAME = r"-{0,2}[A-Za-z_][\w.-]*"
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_WHOLE = re.compile(rf"(?P<before>(?P<name>{_NAME})(?:=|:\s+))(?P<value>.+)", re.DOTALL)
"""`--token=VALUE`, `NAME=VALUE` and `Header: VALUE` as a word of their own."""
_OPTION = r"--?[A-Za-z_][\w.-]*"
_WITHIN = (
    re.compile(rf"(?P<before>(?<![\w.-])(?P<name>{_NAME})=)(?P<value>{_QUOTED}|[^\s;&|,\"']+)"),
    re.compile(rf"(?P<before>(?<![\w.-])(?P<name>{_OPTION})[ \t]+)(?P<value>{_QUOTED}|[^\s;&|\"'-][^\s;&|\"']*)"),
    re.compile(rf"(?P<before>[\"'](?P<name>[A-Za-z_][\w.-]*)[\"']\s*:\s*)(?P<value>{_QUOTED})"),
    re.compile(
        r"(?P<before>(?<![\w-])(?P<name>[A-Za-z][\w-]*):\s+)(?P<value>(?:(?:Bearer|Basic|Digest)\s+)?[^\s\"']+)"
    ),
)
"""The same inside a longer text, such as a line for a shell, or JSON."""
_URL_USER = re.compile(r"(?P<before>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://)(?P<value>[^\s/?#\"']+)(?=@)")

_Hide = Callable[[str], str]


class Redaction:
    """What one run must not write down."""

    def __init__(self, spec: RunSpec, environ: Mapping[str, str]) -> None:
        """`environ` is what every program inherits: a secret of it may be an argument as well."""
        known = {
            value for name, value in environ.items() if is_secret_name(name) and not value.startswith(("/", "~", "."))
        }

        def learn(secret: str) -> str:
            known.add(secret)
            pieces = (piece.strip("\"',;") for piece in secret.split())
            known.update(piece for piece in pieces if len(piece) >= _SURELY_LONG_ENOUGH)  # `Bearer SECRET`
            return REDACTED

        for command in spec.commands:
            for name, value in command.env.items():
                if is_secret_name(name):
                    learn(value)
                else:
                    _without_secrets(value, learn)
        for words in _all_words(spec):
            _without_named(words, learn)
        self._known = sorted((one for one in known if len(one) >= _LONG_ENOUGH), key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text with a mark for each secret of it."""
        for secret in self._known:
            text = text.replace(secret, REDACTED)
        return _without_secrets(text, _mark)

    def words(self, words: Iterable[str]) -> tuple[str, ...]:
        """The same for arguments, where a secret may follow the option that names it."""
        return tuple(self.text(word) for word in _without_named(words, _mark))

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The same for variables."""
        return {name: REDACTED if value and is_secret_name(name) else self.text(value) for name, value in env.items()}

    def spec(self, spec: RunSpec) -> RunSpec:
        """The same for all that a run is told; the core decides nothing by what is left out."""
        replace = msgspec.structs.replace
        return replace(
            spec,
            main=replace(
                spec.main, run_args=self.words(spec.main.run_args), cmd_prefix=self.words(spec.main.cmd_prefix)
            ),
            background=replace(spec.background, run_args=self.words(spec.background.run_args)),
            commands=tuple(self._command(command) for command in spec.commands),
        )

    def _command(self, command: CommandSpec) -> CommandSpec:
        return msgspec.structs.replace(
            command, argv=self.words(command.argv), env=self.environment(command.env), cwd=self._optional(command.cwd)
        )

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)


def is_secret_name(name: str) -> bool:
    """Whether what goes by this name is not to be written down."""
    return _SECRET_NAME.search(name.replace("-", "_").strip("_")) is not None


def redacted_parts(spec: RunSpec) -> list[str]:
    """Where a spec has a mark instead of what was there, in words of the configuration."""
    found = [
        f"{name} in env of [command.{command.name}]"
        for command in spec.commands
        for name, value in command.env.items()
        if REDACTED in value
    ]
    places = {
        "runargs of [main]": spec.main.run_args,
        "cmd-prefix of [main]": spec.main.cmd_prefix,
        "runargs of [background]": spec.background.run_args,
        **{f"argv of [command.{command.name}]": command.argv for command in spec.commands},
        **{f"cwd of [command.{command.name}]": (command.cwd or "",) for command in spec.commands},
    }
    return found + [where for where, words in places.items() if any(REDACTED in word for word in words)]


def _all_words(spec: RunSpec) -> Iterable[tuple[str, ...]]:
    yield from (spec.main.run_args, spec.main.cmd_prefix, spec.background.run_args)
    yield from (command.argv for command in spec.commands)


def _without_named(words: Iterable[str], hide: _Hide) -> list[str]:
    found: list[str] = []
    named = False
    for word in words:
        if named and word and not word.startswith("-"):
            found.append(hide(word))
        else:
            found.append(_without_secrets(word, hide))
        named = word.startswith("-") and "=" not in word and is_secret_name(word)
    return found


def _without_secrets(text: str, hide: _Hide) -> str:
    def hidden(match: re.Match[str]) -> str:
        if not is_secret_name(match["name"]) or match["value"] == REDACTED:
            return match[0]
        value = match["value"]
        quote = value[0] if value[0] == value[-1] and value[0] in "\"'" and len(value) > 1 else ""
        return f"{match['before']}{quote}{hide(value.strip(quote) if quote else value)}{quote}"

    whole = _WHOLE.fullmatch(text)
    if whole is not None and is_secret_name(whole["name"]):
        return hidden(whole)
    for pattern in _WITHIN:
        text = pattern.sub(hidden, text)
    return _URL_USER.sub(lambda match: _hidden_user(match, hide), text)


def _hidden_user(match: re.Match[str], hide: _Hide) -> str:
    """`https://user:password@host`, and a token alone; a plain name such as the one of `ssh://git@host` is none."""
    user = match["value"]
    if user == REDACTED or (":" not in user and len(user) < _SURELY_LONG_ENOUGH):
        return match[0]
    name, colon, password = user.partition(":")
    if colon and password:
        hide(password)
    else:
        hide(name)
    return f"{match['before']}{REDACTED}"


def _mark(_secret: str) -> str:
    return REDACTED
