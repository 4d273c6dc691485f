"""The valid API keys: what a file may hold, when it is read, and what a look-up costs."""

import hashlib
import logging
import time
from pathlib import Path

import pytest

from fakes import FakeEngine, serve
from peregrine_router.http.key_store import RETRY_SECONDS, ApiKeyStore


def test_keys_of_a_file_are_read_again(engine: FakeEngine, tmp_path: Path) -> None:
    """A file holds keys or their hashes; changing it takes effect at once, also when it becomes empty."""
    file = tmp_path / "keys"
    file.write_text(f"# ours\nplain\n{hashlib.sha256(b'hashed').hexdigest()}\n\n")
    with serve(engine, api_key_file=str(file)) as server:

        def status(key: str) -> int:
            return server.client.get("/info", headers={"authorization": f"Bearer {key}"}).status_code

        assert [status(key) for key in ("plain", "hashed", "new")] == [200, 200, 401]
        file.write_text("new\n")
        assert [status(key) for key in ("plain", "hashed", "new")] == [401, 401, 200]
        file.write_text("")
        assert status("new") == 401
        file.unlink()
        assert status("new") == 401


def test_unreadable_file_is_refused_at_the_start(engine: FakeEngine) -> None:
    """A server whose keys cannot be read does not start open."""
    with pytest.raises(FileNotFoundError), serve(engine, api_key_file="/nowhere/keys"):
        pass


def test_a_scope_that_does_not_exist_is_refused_without_the_key(tmp_path: Path) -> None:
    """A key with a space, or a misspelt scope, is an error with the line's number; no part of the key is shown."""
    file = tmp_path / "keys"
    file.write_text("# ours\nsecret infr\n")
    with pytest.raises(ValueError, match=r"keys, line 2: .*admin, infer, metrics") as refusal:
        ApiKeyStore((), file)
    assert "secret" not in str(refusal.value)


def test_an_unreadable_file_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However many requests come, the log has one line, the keys stay, and the file counts again once it is mended."""
    file = tmp_path / "keys"
    file.write_text("old\n")
    keys = ApiKeyStore((), file)
    file.write_bytes(b"\xff\xfe broken")
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            assert keys.find("old")
        time.sleep(RETRY_SECONDS * 1.1)
        assert keys.find("old")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the file of API keys cannot be read, the keys stay as they were"
    ]
    file.write_text("new\n")
    time.sleep(RETRY_SECONDS * 1.1)
    assert keys.find("new")
    assert not keys.find("old")


@pytest.mark.alone
def test_a_look_up_costs_the_same_among_fifty_thousand_keys(tmp_path: Path) -> None:
    """The time to find a key, or that there is none, does not grow with their number."""
    file = tmp_path / "keys"
    file.write_text("".join(f"{hashlib.sha256(b'%d' % number).hexdigest()}\n" for number in range(50_000)))
    few, many = ApiKeyStore(("0",), None), ApiKeyStore((), file)

    def seconds(keys: ApiKeyStore) -> float:
        start = time.perf_counter()
        for _ in range(200):
            assert keys.find("0") is not None
            assert keys.find("unknown") is None
        return time.perf_counter() - start

    assert min(seconds(many) for _ in range(5)) < 10 * min(seconds(few) for _ in range(5))
