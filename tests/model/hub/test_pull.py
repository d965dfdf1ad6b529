"""Pulling from a Hub played by a local server: what is fetched, resumed, refused, and what is never sent."""

import shutil
from pathlib import Path

import pytest

from clearseek.config.errors import InputError, RunError
from clearseek.model.hub import pull as pulling
from clearseek.model.hub.client import DEFAULT_ENDPOINT, Hub
from clearseek.model.hub.pull import plan_pull, pull
from tests.model.hub.fake_hub import COMMIT, FakeHub

WEIGHTS = bytes(range(256)) * 16000  # four megabytes: several reads
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "README.md": "---\nlicense: mit\n---\n안녕".encode(),
    "LICENSE": b"MIT",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "modeling_llama.py": b"code",
    "consolidated.safetensors": b"the same weights again",
    "onnx/model.json": b"{}",
    "model-Q8_0.gguf": b"GGUF...",
}
WANTED = {"config.json", "tokenizer.json", "README.md", "LICENSE", "model.safetensors"}
NOT_AT_ONCE = (0.01, 0.01)


def silent(path):
    return lambda done, total: None


def fetch(hub: FakeHub, directory: Path, timeout: float = 5, **settings):
    client = Hub(hub.endpoint, settings.pop("token", None), timeout)
    plan = plan_pull("org/name", directory, hub=client, **settings)
    pull(plan, settings.get("progress", silent), NOT_AT_ONCE)
    return plan


def found(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_weights_and_what_belongs_to_them_come_and_no_pickles_or_code(tmp_path):
    with FakeHub(FILES) as hub:
        plan = fetch(hub, tmp_path / "m")
    assert found(tmp_path / "m") == WANTED
    assert all((tmp_path / "m" / name).read_bytes() == FILES[name] for name in WANTED)
    assert (plan.revision, plan.num_bytes) == (COMMIT, sum(len(FILES[name]) for name in WANTED))


def test_small_files_come_first_and_progress_is_told(tmp_path):
    told = {}
    with FakeHub(FILES) as hub:
        plan = plan_pull("org/name", tmp_path, hub=Hub(hub.endpoint, None, 5))
        pull(plan, lambda path: lambda done, total: told.setdefault(path, []).append((done, total)))
    assert list(told)[-1] == "model.safetensors"
    assert told["model.safetensors"][-1] == (len(WEIGHTS), len(WEIGHTS))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"include": ["*.gguf"]}, {"model-Q8_0.gguf"}),
        ({"include": ["onnx/*", "LICENSE"]}, {"onnx/model.json", "LICENSE"}),
        ({"exclude": ["*.safetensors", "*.md"]}, {"config.json", "tokenizer.json", "LICENSE"}),
    ],
)
def test_patterns_choose(tmp_path, settings, wanted):
    with FakeHub(FILES) as hub:
        fetch(hub, tmp_path / "m", **settings)
    assert found(tmp_path / "m") == wanted


@pytest.mark.parametrize("stalls", [0, 1.0])
def test_a_connection_that_breaks_or_stalls_goes_on_where_it_was(tmp_path, stalls):
    with FakeHub(FILES, breaks=3, stalls=stalls) as hub:
        fetch(hub, tmp_path / "m", timeout=0.3, include=["model.safetensors"])
        ranges = [request[2] for request in hub.asked("/cdn/model.safetensors")]
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == WEIGHTS
    half = len(WEIGHTS) // 2
    assert ranges == [
        None,
        f"bytes={half}-",
        f"bytes={half + half // 2}-",
        f"bytes={half + half // 2 + half // 4}-",
    ]


def test_an_interrupted_pull_is_resumed_by_the_next(tmp_path):
    class Interrupted(Exception):
        pass

    def stop(path):
        def each(done, total):
            if done > len(WEIGHTS) // 3:
                raise Interrupted

        return each

    with FakeHub(FILES) as hub:
        plan = plan_pull("org/name", tmp_path, include=["model.safetensors"], hub=Hub(hub.endpoint, None, 5))
        with pytest.raises(Interrupted):
            pull(plan, stop)
        assert found(tmp_path) == {"model.safetensors.part"}
        pull(plan, silent)
        assert hub.asked("/cdn/model.safetensors")[-1][2].startswith("bytes=")
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
    assert found(tmp_path) == {"model.safetensors"}


def test_a_server_without_ranges_is_read_from_the_start(tmp_path):
    with FakeHub(FILES, breaks=1, ranges=False) as hub:
        fetch(hub, tmp_path, include=["model.safetensors"])
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_what_is_there_already_is_not_fetched_again(tmp_path):
    with FakeHub(FILES) as hub:
        fetch(hub, tmp_path)
        (tmp_path / "config.json").write_bytes(b'{"model_type": "lmaal"}')  # as long, another content
        hub.requests.clear()
        fetch(hub, tmp_path)
        assert [request[1] for request in hub.requests if "/cdn/" in request[1]] == ["/cdn/config.json"]
    assert (tmp_path / "config.json").read_bytes() == FILES["config.json"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_content_that_is_not_what_the_hub_says_is_removed(tmp_path, name):
    with FakeHub(FILES) as hub:
        hub.listing = hub.repository()
        hub.files = {**FILES, name: FILES[name][::-1]}
        with pytest.raises(
            RunError, match=f"{name}: what came is not what the Hub says it is, and is removed"
        ):
            fetch(hub, tmp_path, include=[name])
    assert found(tmp_path) == set()


def test_a_connection_that_never_works_ends_with_what_to_do(tmp_path):
    with FakeHub(FILES, breaks=100, stalls=0.5) as hub:
        hub.files = {**FILES, "model.safetensors": WEIGHTS[:1]}
        hub.listing = FakeHub(FILES).repository()
        with pytest.raises(
            RunError, match=r"model.safetensors: the connection fails again and again \(.*same command"
        ):
            fetch(hub, tmp_path, timeout=0.1, include=["model.safetensors"])


def test_the_token_goes_to_the_endpoint_and_nowhere_else(tmp_path):
    with FakeHub(FILES) as hub:
        fetch(hub, tmp_path, token="hf_secret")
        sent = {(asked[0], asked[3]) for asked in hub.requests}
    assert sent == {("127.0.0.1", "Bearer hf_secret"), ("localhost", None)}


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((401, "RepoNotFound"), r"org/name at main: no such repository on http://127.*private: set HF_TOKEN"),
        ((404, "RevisionNotFound"), r"org/name at main: no such revision on"),
        ((403, "GatedRepo"), r"org/name at main: is gated; accept its terms at .* set HF_TOKEN"),
    ],
)
def test_refusals_say_what_to_do(tmp_path, refusal, message):
    with FakeHub(FILES) as hub:
        hub.refusal = refusal
        with pytest.raises(InputError, match=message):
            fetch(hub, tmp_path)


def test_a_hub_that_is_down_or_another_server_is_named(tmp_path):
    with FakeHub(FILES) as hub:
        hub.refusal = (503, "")
        with pytest.raises(RunError, match=r"http://127.* can't be reached \(HTTP 503"):
            fetch(hub, tmp_path)
        hub.refusal, hub.listing = None, {"hello": 1}
        with pytest.raises(RunError, match="does not answer as the Hugging Face Hub does; check HF_ENDPOINT"):
            fetch(hub, tmp_path)
    with pytest.raises(RunError, match="can't be reached"):
        fetch(hub, tmp_path)


@pytest.mark.parametrize("path", ["../evil.json", "/etc/evil.json", "a/../../evil.json", "a\\evil.json", ""])
def test_files_that_would_leave_the_directory_are_refused(tmp_path, path):
    with FakeHub(FILES) as hub:
        hub.listing = {"sha": COMMIT, "siblings": [{"rfilename": path, "size": 1}]}
        with pytest.raises(RunError, match="would be written outside the directory"):
            fetch(hub, tmp_path)


def test_patterns_that_match_nothing_or_only_pickles_are_named(tmp_path):
    with FakeHub(FILES) as hub:
        with pytest.raises(
            InputError, match=r"--include \*\.ggml matches no file; the repository has config.json"
        ):
            fetch(hub, tmp_path, include=["*.ggml"])
        with pytest.raises(
            InputError, match=r"--include \*\.bin matches only pytorch_model.bin .* never fetched"
        ):
            fetch(hub, tmp_path, include=["*.bin"])
        with pytest.raises(InputError, match="nothing to fetch"):
            fetch(hub, tmp_path, exclude=["*"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "pytorch_model.bin"], r"only there as pickles \(pytorch_model.bin\).*never fetched"),
        (["config.json", "model-Q8_0.gguf"], r'choose with --include, such as "model-Q8_0.gguf"'),
    ],
)
def test_a_repository_without_safetensors_says_so(tmp_path, names, message):
    with FakeHub({name: FILES[name] for name in names}) as hub:
        with pytest.raises(InputError, match=message):
            fetch(hub, tmp_path)
        fetch(hub, tmp_path / "m", include=["*.json"])
    assert found(tmp_path / "m") == {"config.json"}


def test_a_full_disk_is_known_before_with_both_numbers(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda path: usage)
    with FakeHub(FILES) as hub:
        with pytest.raises(RunError, match="4 MiB are to be fetched, the disk has 0 MiB free; make room"):
            fetch(hub, tmp_path)
        assert hub.asked("model.safetensors") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_is_named(tmp_path):
    (tmp_path / "config.json.part").symlink_to("/dev/full")
    with (
        FakeHub(FILES) as hub,
        pytest.raises(RunError, match=r"config.json can't be written \(No space left.*same command resumes"),
    ):
        fetch(hub, tmp_path, include=["config.json"])


@pytest.mark.parametrize("name", ["name", "a/b/c", "../x/y", "a b/c", "-a/b", "a/b?c", ""])
def test_names_that_are_none_are_refused_before_anything_is_asked(tmp_path, name):
    with pytest.raises(InputError, match="is not the name of a repository; give ORG/NAME"):
        plan_pull(name, tmp_path, hub=Hub("http://127.0.0.1:9"))


def test_the_environment_names_endpoint_and_token(monkeypatch):
    for name in ("HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert Hub.of_environment() == Hub(DEFAULT_ENDPOINT)
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com/")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert Hub.of_environment() == Hub("https://hf-mirror.com", "hf_x")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    with pytest.raises(InputError, match="HF_TOKEN would travel unencrypted"):
        Hub.of_environment()
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(InputError, match=r"HF_ENDPOINT = 'mirror.example' is not a web address"):
        Hub.of_environment()
