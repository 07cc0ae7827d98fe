"""The ``longlook`` command itself: invalid usage and error texts."""

from __future__ import annotations

import importlib.metadata

import pytest

from cli import client, main, output
from core import errors


def test_an_unknown_option_is_invalid_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(["config", "show", "--no-such-flag"])
    assert ended.value.code == output.Exit.USAGE
    assert "No such option" in capsys.readouterr().err


def test_the_version_needs_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(["--version"])
    assert ended.value.code == output.Exit.OK
    assert capsys.readouterr().out.strip() == importlib.metadata.version("longlook")


def test_an_error_lists_only_the_faults_that_its_message_lacks() -> None:
    fault = errors.Fault(pointer="#/question", detail="This must not be empty.")
    whole = errors.InvalidRequest("question: This must not be empty.", faults=(fault,))
    assert main.fault_text(whole) == "longlook: question: This must not be empty."
    bare = errors.InvalidRequest("1 fault.", faults=(fault,))
    assert main.fault_text(bare) == "longlook: 1 fault.\n  #/question: This must not be empty."


def test_the_key_file_has_the_name_that_up_uses() -> None:
    assert client.KEY_FILE == "admin.key"
