"""The command that serves a model on a machine."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli import engine as command_line
from cli import main
from cli.engine_plan import command, devices, gpu, plan, sizes
from cli.environments import engine as environment
from core import errors, profiles, settings
from models import CHECKPOINT

H200 = devices.Device(name="NVIDIA H200", memory=140.4)
A100 = devices.Device(name="NVIDIA A100-SXM4-80GB", memory=80.0)
L4 = devices.Device(name="NVIDIA L4", memory=22.5)


def planned(
    *gpus: devices.Device, extra: tuple[str, ...] = (), model_path: str = "", **environ: str
) -> command.Plan:
    options = settings.Settings.read(environ)
    return plan.plan(
        gpus, options, host="127.0.0.1", port=30000, model_path=model_path, extra=extra
    )


def value(chosen: command.Plan, flag: str) -> str:
    return next(part.value for part in chosen.flags if part.name == flag)


def test_two_h200_share_the_weights() -> None:
    chosen = planned(H200, H200)

    assert value(chosen, "--tp") == "2"
    assert value(chosen, "--model-path") == "Qwen/QVQ-72B-Preview"
    assert value(chosen, "--served-model-name") == profiles.QVQ.name
    assert value(chosen, "--context-length") == "32768"
    assert value(chosen, "--mem-fraction-static") == "0.88"
    assert value(chosen, "--max-running-requests") == "64"
    assert chosen.environment["SGLANG_VLM_CACHE_SIZE_MB"] == "2048"


@pytest.mark.parametrize("model", ["", profiles.QVQ.name])
def test_small_images_are_enlarged_to_the_least_tokens_of_the_settings(model: str) -> None:
    pixels = []
    for least in ("", "1280"):
        options = settings.Settings.read(
            {
                name: text
                for name, text in (
                    ("LONGLOOK_MODEL", model),
                    ("LONGLOOK_MIN_IMAGE_TOKENS", least),
                )
                if text
            }
        )
        chosen = plan.plan(
            [H200, H200], options, host="127.0.0.1", port=30000, model_path="", extra=()
        )
        pixels.append(json.loads(value(chosen, "--mm-process-config"))["image"]["min_pixels"])

    assert pixels == [profiles.QVQ.min_pixels, 1280 * 28 * 28]


@pytest.mark.parametrize(
    ("gpus", "tp", "low", "high"),
    [
        pytest.param([H200] * 2, 2, 330_000, 376_000, id="2xH200"),
        pytest.param([A100] * 4, 4, 400_000, 465_000, id="4x80GB"),
        pytest.param([H200] * 4, 4, 1_080_000, 1_200_000, id="4xH200"),
        pytest.param([A100] * 8, 8, 1_200_000, 1_350_000, id="8x80GB"),
    ],
)
def test_the_cache_has_the_calculated_size(
    gpus: list[devices.Device], tp: int, low: int, high: int
) -> None:
    serve = command.ServeOptions(
        settings.Settings.read({}), "qvq", profiles.QVQ, sizes.QVQ, "127.0.0.1", 1
    )

    fit = gpu.best(serve, gpus, sizes.FAMILY["72B"], quantized=False)

    assert fit is not None
    assert fit.parts == tp
    assert low <= fit.tokens <= high


def test_one_h200_is_rejected_with_the_flag_that_makes_the_model_fit() -> None:
    with pytest.raises(errors.LaunchError, match="--quantization fp8"):
        planned(H200)

    chosen = planned(H200, extra=("--quantization", "fp8"))

    assert value(chosen, "--tp") == "1"
    assert chosen.arguments[-2:] == ("--quantization", "fp8")


def test_a_model_that_never_fits_is_rejected_without_that_flag() -> None:
    with pytest.raises(errors.LaunchError) as raised:
        planned(L4)

    assert "-- --quantization" not in str(raised.value)
    assert "2 GPUs of 141 GB" in str(raised.value)


def test_an_odd_gpu_stays_idle_and_the_reason_says_so() -> None:
    chosen = planned(H200, H200, H200)

    flag = next(flag for flag in chosen.flags if flag.name == "--tp")
    assert flag.value == "2"
    assert "1 stay idle" in flag.reason


def test_five_gpus_of_80_gb_are_used_as_four() -> None:
    assert value(planned(*[A100] * 5), "--tp") == "4"


def test_the_smallest_of_different_gpus_counts() -> None:
    with pytest.raises(errors.LaunchError, match="A100"):
        planned(H200, A100)


def test_the_callers_tensor_parallelism_is_used() -> None:
    chosen = planned(*[H200] * 4, extra=("--tp=2",))

    assert value(chosen, "--tp") == "2"


def test_tensor_parallelism_that_does_not_divide_the_heads_is_rejected() -> None:
    with pytest.raises(errors.LaunchError):
        planned(*[H200] * 3, extra=("--tp", "3"))


def test_an_fp8_cache_holds_twice_the_tokens() -> None:
    plain = planned(*[A100] * 4)
    halved = planned(*[A100] * 4, extra=("--kv-cache-dtype", "fp8_e4m3"))

    assert _tokens(halved) == pytest.approx(2 * _tokens(plain), rel=1e-3)


def _tokens(chosen: command.Plan) -> int:
    reason = next(flag.reason for flag in chosen.flags if flag.name == "--mem-fraction-static")
    return int("".join(letter for letter in reason.split("tokens")[0] if letter.isdigit()))


def test_a_machine_without_gpus_serves_tiny_qvq_on_the_cpu() -> None:
    chosen = planned()

    assert value(chosen, "--model-path") == str(CHECKPOINT)
    assert value(chosen, "--served-model-name") == "tiny-qvq"
    assert value(chosen, "--device") == "cpu"
    assert value(chosen, "--dtype") == "float32"
    assert value(chosen, "--context-length") == "2048"
    assert value(chosen, "--max-running-requests") == "16"
    assert chosen.python == environment.python(Path.home())
    assert chosen.environment["OMP_NUM_THREADS"] == "1"
    assert chosen.environment["HF_HUB_OFFLINE"] == "1"


def test_the_checkpoint_is_in_the_checkout() -> None:
    assert (CHECKPOINT / "model.safetensors").is_file()


def test_tiny_qvq_runs_on_the_cpu_even_with_gpus() -> None:
    assert value(planned(H200, H200, LONGLOOK_MODEL="tiny-qvq"), "--device") == "cpu"


def test_the_large_model_is_rejected_without_gpus() -> None:
    with pytest.raises(errors.LaunchError, match="needs NVIDIA GPUs"):
        planned(LONGLOOK_MODEL="qvq-72b-preview")


def test_the_command_follows_the_settings() -> None:
    chosen = planned(
        LONGLOOK_MAX_IMAGES="3",
        LONGLOOK_ENGINE_PYTHON="/opt/sglang/bin/python",
        LONGLOOK_ENGINE_API_KEY="a-long-secret",
    )

    limit = json.loads(value(chosen, "--limit-mm-data-per-request"))
    assert limit == {"image": 3, "video": 0, "audio": 0}
    assert chosen.python == Path("/opt/sglang/bin/python")
    assert chosen.environment["LONGLOOK_ENGINE_API_KEY"] == "a-long-secret"


@pytest.mark.parametrize("gpus", [(), (H200, H200)], ids=["cpu", "gpu"])
def test_the_engines_key_is_never_shown_and_never_an_argument(
    gpus: tuple[devices.Device, ...],
) -> None:
    chosen = planned(*gpus, LONGLOOK_ENGINE_API_KEY="a-long-secret")

    assert "a-long-secret" not in chosen.show("python")
    assert 'LONGLOOK_ENGINE_API_KEY="$LONGLOOK_ENGINE_API_KEY"' in chosen.show("python")
    assert "a-long-secret" not in "".join(chosen.arguments)
    assert chosen.arguments[0].endswith("launcher.py")


@pytest.mark.parametrize("flags", [("--api-key", "x"), ("--api-key=x",)])
def test_a_key_among_the_callers_flags_is_rejected(flags: tuple[str, ...]) -> None:
    with pytest.raises(errors.LaunchError, match="LONGLOOK_ENGINE_API_KEY"):
        planned(extra=flags)


def test_the_shown_command_is_the_command_that_runs() -> None:
    chosen = planned(H200, H200, extra=("--log-level", "warning"))

    shown = shlex.split(chosen.show("python").replace("\\\n", ""))

    assert shown[-len(chosen.arguments) :] == list(chosen.arguments)


def test_every_flag_and_variable_has_a_reason() -> None:
    for chosen in (planned(), planned(H200, H200)):
        parts = [*chosen.flags, *chosen.variables]
        assert all(len(part.reason) > 10 for part in parts)
        assert len({part.name for part in parts}) == len(parts)


def test_the_callers_flags_come_last() -> None:
    chosen = planned(extra=("--context-length", "1024"))

    assert chosen.arguments[-2:] == ("--context-length", "1024")


def test_the_size_of_smaller_models_is_known_by_name() -> None:
    chosen = planned(A100, model_path="Qwen/Qwen2-VL-7B-Instruct")

    assert value(chosen, "--tp") == "1"
    with pytest.raises(errors.LaunchError, match="is unknown"):
        planned(L4, model_path="owner/some-model")
    with pytest.raises(errors.LaunchError, match="is unknown"):
        planned(L4, model_path="owner/QVQ-72B-Preview-AWQ")


def test_a_shorter_context_lets_a_model_fit_on_a_small_gpu() -> None:
    path = "Qwen/Qwen2-VL-7B-Instruct"
    with pytest.raises(errors.LaunchError, match="does not fit"):
        planned(L4, model_path=path)

    chosen = planned(L4, model_path=path, extra=("--context-length", "16384"))

    assert value(chosen, "--tp") == "1"


def test_the_size_of_a_directory_is_measured() -> None:
    size = sizes.measure(str(CHECKPOINT))

    assert size.weights == pytest.approx(7.7e6 / 2**30, rel=0.01)
    # 5 layers, 2 KV heads of 64, keys and values, two bytes each.
    assert size.token == pytest.approx(5 * 2 * 2 * 64 * 2 / 1024)


def test_an_empty_directory_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="not a checkpoint"):
        sizes.measure(str(tmp_path))


LISTING = """\
0, GPU-11111111-aaaa, NVIDIA H200, 143771
1, GPU-22222222-bbbb, NVIDIA H200, 143771
2, GPU-33333333-cccc, NVIDIA A100-SXM4-80GB MIG, [N/A]
"""


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 2), ("0", 1), ("0,1", 2), ("", 0), ("-1", 0), ("GPU-2222", 1), ("2", 0)],
)
def test_gpus_are_parsed_from_the_drivers_output(visible: str | None, count: int) -> None:
    gpus = devices.parse(LISTING, visible=visible)

    assert len(gpus) == count
    assert all(device.memory == pytest.approx(140.4, abs=0.1) for device in gpus)


def test_a_machine_without_a_driver_has_no_gpus() -> None:
    assert devices.find({"PATH": "/nonexistent"}) == ()


def test_sglang_inherits_none_of_the_settings() -> None:
    environ = {"PATH": "/bin", "LONGLOOK_PEPPER": "secret", "LONGLOOK_HOME": "/x", "HF_HOME": "/hf"}

    assert command_line.inherited(environ) == {"PATH": "/bin", "HF_HOME": "/hf"}


def test_a_port_in_use_is_reported_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(errors.LaunchError, match="cannot listen on"):
            command_line.refuse_busy("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("remedy", ["LONGLOOK_ENGINE_PYTHON", "longlook engine install"])
def test_a_missing_environment_is_reported_with_its_remedy(tmp_path: Path, remedy: str) -> None:
    python = tmp_path / "python"
    environ = {remedy: str(python)} if remedy == "LONGLOOK_ENGINE_PYTHON" else {}
    with pytest.raises(errors.LaunchError, match=remedy):
        command_line.refuse_missing(python, settings.Settings.read(environ))


def invoked(*words: str) -> Result:
    """Return what ``longlook engine`` did with these words."""
    environ = {"LONGLOOK_MODEL": "tiny-qvq"}
    return CliRunner().invoke(main.make_app(["engine", "jobs"]), ["engine", *words], env=environ)


@pytest.mark.parametrize("words", [("--", "--log-level", "debug"), ("log-level=debug",)])
def test_words_that_are_no_command_are_flags(words: tuple[str, ...]) -> None:
    shown = invoked("--dry-run", "--port", "31000", *words).stdout

    assert "--port 31000" in shown
    assert shown.rstrip().endswith(" ".join(word for word in words if word != "--"))


def test_its_command_installs_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused = invoked("install", "--path", str(tmp_path))

    assert isinstance(refused.exception, errors.LaunchError)
    assert "holds other files" in str(refused.exception)
