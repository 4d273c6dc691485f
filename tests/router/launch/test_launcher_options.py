"""text-generation-launcher's command lines and environments."""

from pathlib import Path

import pytest
from scripts.launcher_table import PAGE, renewed

from peregrine_router.launch.command_line import parse_settings, warn_of_ignored
from peregrine_router.launch.launcher_options import LauncherOptionError, translate
from peregrine_router.options.declaration import extra
from peregrine_router.options.launcher import LAUNCHER_OPTIONS, SAME_NAMES
from peregrine_router.settings import Settings

FLAGS = {
    "model-id": "x",
    "revision": "main",
    "validation-workers": "2",
    "sharded": "true",
    "num-shard": "2",
    "quantize": "eetq",
    "speculate": "2",
    "dtype": "float16",
    "kv-cache-dtype": "fp8_e4m3fn",
    "trust-remote-code": None,
    "max-concurrent-requests": "128",
    "max-best-of": "2",
    "max-stop-sequences": "4",
    "max-top-n-tokens": "5",
    "max-input-tokens": "1024",
    "max-input-length": "1024",
    "max-total-tokens": "2048",
    "waiting-served-ratio": "0.3",
    "max-batch-prefill-tokens": "4096",
    "max-batch-total-tokens": "16000",
    "max-waiting-tokens": "20",
    "max-batch-size": "8",
    "cuda-graphs": "1,2,4",
    "hostname": "0.0.0.0",
    "port": "8080",
    "prometheus-port": "9000",
    "shard-uds-path": "/tmp/text-generation-server",
    "master-addr": "localhost",
    "master-port": "29500",
    "huggingface-hub-cache": "/data",
    "weights-cache-override": "/data",
    "disable-custom-kernels": None,
    "cuda-memory-fraction": "0.9",
    "rope-scaling": "dynamic",
    "rope-factor": "2.0",
    "json-output": None,
    "otlp-endpoint": "http://127.0.0.1:4317",
    "otlp-service-name": "x",
    "cors-allow-origin": "https://x",
    "api-key": "k",
    "watermark-gamma": "0.5",
    "watermark-delta": "2.0",
    "ngrok": None,
    "ngrok-authtoken": "t",
    "ngrok-edge": "e",
    "tokenizer-config-path": "f",
    "disable-grammar-support": None,
    "env": None,
    "max-client-batch-size": "4",
    "lora-adapters": "a",
    "usage-stats": "on",
    "payload-limit": "2000000",
    "enable-prefill-logprobs": None,
    "graceful-termination-timeout": "90",
}
"""Every flag of launcher/src/main.rs of text-generation-inference 3.3.7, and a value; None: a switch."""

VARIABLES = {
    "ATTENTION": "flashinfer",
    "PREFIX_CACHING": "1",
    "PREFILL_CHUNKING": "1",
    "USE_FLASH_ATTENTION": "true",
    "TGI_WIGGLE_ROOM": "0.9",
    "REQUEST_LOGPROBS": "1",
    "COMPUTE_TYPE": "x",
    "LOG_LEVEL": "info",
    "LOG_COLORIZE": "1",
    "HF_API_TOKEN": "x",
}
"""Variables of its router and server that have no flag."""

BY_NAME = {option.name: option for option in LAUNCHER_OPTIONS}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(extra(field, "env"), raising=False)


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_taken_or_refused_with_what_to_use(
    name: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """No flag is unknown; one that has no effect is a line of the log, a refused one a line that says what to use."""
    value = FLAGS[name]
    argv = [f"--{name}"] if value is None else [f"--{name}", value]
    option = BY_NAME.get(name.replace("-", "_"))
    if option is not None and option.effect == "refused":
        with pytest.raises(SystemExit):
            parse_settings(argv)
        assert capsys.readouterr().err.startswith(f"peregrine serve: --{name} is not supported: ")
        return
    parse_settings(argv)
    warn_of_ignored(argv)
    is_ignored = option is not None and option.effect == "no effect"
    assert [line.startswith(f"--{name} has no effect: ") for line in caplog.messages] == [True] * is_ignored


@pytest.mark.parametrize("name", [*VARIABLES, *(flag.replace("-", "_").upper() for flag in FLAGS if flag != "env")])
def test_every_variable_is_taken_or_refused_with_what_to_use(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Environment variables are taken alike; a switch has a value in them."""
    value = VARIABLES.get(name) or FLAGS[name.replace("_", "-").lower()] or "true"
    monkeypatch.setenv(name, value)
    option = BY_NAME.get(name.lower())
    if option is not None and option.effect == "refused":
        with pytest.raises(SystemExit):
            parse_settings([])
        assert capsys.readouterr().err.startswith(f"peregrine serve: {name} is not supported: ")
        return
    parse_settings([])
    warn_of_ignored([])
    is_ignored = option is not None and option.effect == "no effect"
    assert [line.startswith(f"{name} has no effect: ") for line in caplog.messages] == [True] * is_ignored


def test_each_option_has_one_place() -> None:
    """Each is in one table: with the options of the same name, or with the others."""
    names = {flag.replace("-", "_") for flag in FLAGS} | {name.lower() for name in VARIABLES}
    assert not SAME_NAMES.keys() & BY_NAME.keys()
    assert SAME_NAMES.keys() | BY_NAME.keys() == names
    assert SAME_NAMES.keys() <= Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("argv", "environment", "expected"),
    [
        (["--max-input-length", "7"], {}, ["--max-input-tokens", "7"]),
        ([], {"MAX_INPUT_LENGTH": "7"}, ["--max-input-tokens", "7"]),
        (["--max-input-length=7"], {"MAX_INPUT_LENGTH": "8"}, ["--max-input-tokens", "7"]),
        (["--sharded", "false"], {}, ["--num-shard", "1"]),
        (["--sharded", "true", "--num-shard", "2"], {}, ["--num-shard", "2"]),
        (["-p", "80", "--trust-remote-code"], {}, ["-p", "80"]),
    ],
)
def test_another_name_becomes_the_name_here(argv: list[str], environment: dict[str, str], expected: list[str]) -> None:
    """A flag wins over the variable; what is not in the table is left as it is."""
    assert translate(argv, environment)[0] == expected


@pytest.mark.parametrize(
    ("argv", "environment", "message"),
    [
        (["--max-input-length", "7", "--max-input-tokens", "8"], {}, "leave --max-input-length out"),
        (["--max-input-length", "7"], {"MAX_INPUT_TOKENS": "8"}, "leave --max-input-length out"),
        ([], {"SHARDED": "false", "NUM_SHARD": "4"}, "leave SHARDED out"),
        (["--cuda-graphs"], {}, "argument --cuda-graphs: expected one argument"),
    ],
)
def test_two_names_for_one_thing_are_refused(argv: list[str], environment: dict[str, str], message: str) -> None:
    """As text-generation-launcher refuses --max-input-length beside --max-input-tokens."""
    with pytest.raises(LauncherOptionError, match=message):
        translate(argv, environment)


@pytest.mark.parametrize("value", ["false", "0", "", "off"])
def test_a_variable_that_asks_for_nothing_is_silent(value: str) -> None:
    """Deployments set variables to false to be explicit."""
    assert translate([], {"TRUST_REMOTE_CODE": value, "NGROK": value, "USAGE_STATS": value}) == ([], [])


def test_the_table_in_the_documentation_is_of_this_code() -> None:
    """`python -m scripts.launcher_table` renews it."""
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page) == page


def test_the_command_is_installed_under_both_names() -> None:
    """A container's `command: text-generation-launcher` finds one."""
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'text-generation-launcher = "peregrine_router.cli:launch"' in text
