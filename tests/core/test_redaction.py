from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.core.redaction import REDACTED, Redaction, is_secret_name, redacted_parts
from heteromig.core.spec import CommandSpec
from tests.core.histories import SPEC

SECRET = "hunter2-is-no-password"  # noqa: S105 - it is none


def told(*argv: str, env: dict[str, str] | None = None, environ: dict[str, str] | None = None) -> Redaction:
    command = CommandSpec(name="x", argv=argv or ("true",), model="x", scenarios=("offline",), env=env or {})
    return Redaction(replace(SPEC, commands=(command,)), environ or {})


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "GITHUB_TOKEN", "token", "--auth-token", "CLIENT_SECRET", "DB_PASSWORD", "mysql_passwd",
        "OPENAI_API_KEY", "--api-key", "APIKEY", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN", "SSH_KEY", "Authorization", "Cookie", "X-Api-Key", "GH_PAT", "PGPASSWORD",
    ],
)  # fmt: skip
def test_name_of_a_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_VISIBLE_DEVICES", "PATH", "PYTHONPATH", "LOG_DIR", "--max_tokens", "--max-new-tokens",
        "TOKENIZERS_PARALLELISM", "--tokenizer", "--use_token_latencies", "--eos_token_id", "--pad-token", "MAX_TOKEN",
        "KEYBOARD", "--key", "PWD",
        "--benchmarks", "COMPATIBLE", "--author", "TIME_PER_OUTPUT_TOKEN", "XDG_SESSION_ID",
    ],
)  # fmt: skip
def test_name_of_what_is_no_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "argv",
    [
        (f"--token={SECRET}",),
        ("--token", SECRET),
        ("-api_key", SECRET),
        (f"HF_TOKEN={SECRET}", "python3"),
        ("env", f"HF_TOKEN={SECRET} and blanks; too"),
        ("sh", "-c", f"export HF_TOKEN={SECRET}; run"),
        ("sh", "-c", f"HF_TOKEN='{SECRET}' run"),
        ("sh", "-c", f"run --token {SECRET} --fast"),
        ("curl", "-H", f"Authorization: Bearer {SECRET}"),
        ("sh", "-c", f'curl -H "Authorization: Bearer {SECRET}"'),
        ("sh", "-c", f"curl -H 'X-Api-Key: {SECRET}'"),
        (f"--config={{{{'api_key': '{SECRET}'}}}}",),
        (f'{{{{"api_key": "{SECRET}"}}}}',),
        (f"https://me:{SECRET}@example.org/models",),
        (f"git+https://{SECRET}@example.org/models",),
        (f"--from=https://me:{SECRET}@example.org/models?x=y",),
        (f"https://example.org/models?x=y&token={SECRET}&z=1",),
    ],
)
def test_secret_among_arguments(argv: tuple[str, ...]) -> None:
    redaction = told(*argv)
    written = redaction.words(argv)
    assert SECRET not in repr(written)
    assert REDACTED in repr(written)
    assert redaction.words(written) == written, "what has its mark keeps it"
    assert SECRET not in redaction.text(f"cannot open {SECRET}"), "once known, it is left out everywhere"


@pytest.mark.parametrize(
    "argv",
    [
        ("--test_mode=SubmissionRun", "--min_query_count=1"),
        ("--max_tokens", "1024", "--tokenizer=/models/llama"),
        ("ssh://git@example.org/tree", "mailto:me@example.org", "a@b"),
        ("nsys", "profile", "-o", "main"),
        ("--token",),
        ("--token", "--fast"),
        ("--password=",),
        ("key: value", "tokens: 12"),
    ],
)
def test_arguments_without_secrets_stay_as_they_are(argv: tuple[str, ...]) -> None:
    assert told(*argv).words(argv) == argv


def test_variables() -> None:
    env = {"HF_TOKEN": SECRET, "AWS_REGION": "eu", "MODE": "fast", "URL": f"http://u:{SECRET}@h", "DB_PASSWORD": ""}
    redaction = told(env=env)
    assert redaction.environment(env) == {
        "HF_TOKEN": REDACTED,
        "AWS_REGION": REDACTED,
        "MODE": "fast",
        "URL": f"http://{REDACTED}@h",
        "DB_PASSWORD": "",
    }


def test_inherited_secret_that_became_an_argument() -> None:
    redaction = told("run", f"--key={SECRET}x", environ={"HF_TOKEN": SECRET, "API_KEY": "1", "MY_TOKEN": "/etc/passwd"})
    assert redaction.words(("run", f"--key={SECRET}x", "1", "/etc/passwd")) == (
        "run",
        f"--key={REDACTED}x",
        "1",
        "/etc/passwd",
    ), "short values and paths are found in what is no secret"


def test_spec_says_where_something_is_left_out_and_is_the_same_otherwise() -> None:
    main = replace(SPEC.main, run_args=(f"--token={SECRET}", "--test_mode=SubmissionRun"), cmd_prefix=("env", "A=b"))
    command = CommandSpec(
        name="x",
        argv=("run", "{duration_s}"),
        model="x",
        scenarios=("offline",),
        env={"HF_TOKEN": SECRET},
        cwd=f"/{SECRET}",
    )
    spec = replace(SPEC, main=main, commands=(command,))
    written = Redaction(spec, {}).spec(spec)
    assert SECRET not in repr(written)
    assert redacted_parts(written) == [
        "HF_TOKEN in env of [command.x]",
        "runargs of [main]",
        "cwd of [command.x]",
    ]
    assert redacted_parts(spec) == []
    assert written.main.may_run_again
    restored = replace(
        written,
        main=replace(written.main, run_args=main.run_args),
        commands=(replace(written.commands[0], env=command.env, cwd=command.cwd),),
    )
    assert restored == spec
    assert Redaction(SPEC, {"HF_TOKEN": SECRET}).spec(SPEC) == SPEC


_ODD = st.text(st.sampled_from("aT=-:/@\"' .&?\n{}\\<>ß\x00") | st.characters(), max_size=60)


@given(st.lists(_ODD, max_size=4), _ODD, st.from_regex(re.compile(r"[a-z0-9]{12,20}"), fullmatch=True))
def test_no_text_around_a_secret_gives_it_away(words: list[str], before: str, secret: str) -> None:
    argv = (*words, f"{before}{secret}", f"--token={secret}")
    redaction = told(*argv)
    written = redaction.words(argv)
    assert secret not in "".join(written) or secret in REDACTED
    assert len(written) == len(argv)


def test_long_arguments_take_no_time() -> None:
    for piece in ("a", "a.", "-a", "a:", "'a", '"a":', "a://", "a=", "--a ", "x@", "a: "):
        told().text(piece * 20_000)
