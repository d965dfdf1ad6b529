"""info, export and pull on the command line: what they print, where, and their exit codes."""

import json

import pytest

from clearseek.cli.main import main
from clearseek.cli.transfer import PlainTransfer, byte_words
from clearseek.model.checkpoint import save_model
from clearseek.model.families import config_to_published
from tests.model.hub.fake_hub import COMMIT, FakeHub
from tests.model.tiny import CONFIGS, tiny_model

FILES = {"config.json": b"{}", "model.safetensors": bytes(300_000), "pytorch_model.bin": b"pickle"}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model"
    save_model(tiny_model(CONFIGS["deepseek_v3 mtp"]), path, bos_id=0, eos_id=1, pad_id=2)
    return path


def test_info_prints_a_table(model, capsys):
    assert main(["info", str(model)]) == 0
    out, err = capsys.readouterr()
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert rows[0] == f"model {model} (Hugging Face directory)"
    assert "family deepseek_v3 (DeepseekV3ForCausalLM)" in rows
    assert any(row.startswith("parameters ") and row.endswith("for multi-token prediction)") for row in rows)
    assert "shape 3 layers of width 32, 4 heads, latent keys and values, 2 of 8 experts and 1 shared" in rows
    assert "licence not said" in rows
    assert rows[-6] == "dtype weights per 1,000 tokens fits"
    assert rows[-1].startswith("q4_k")
    assert err == ""


def test_info_of_a_config_alone_says_that_weights_are_absent(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(config_to_published(CONFIGS["llama"])))
    assert main(["info", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "weights       absent: only the config is here" in out
    assert "3 layers of width 32, 4 heads on 2 of keys and values" in out


def test_info_json_is_all_of_it(model, capsys):
    assert main(["info", str(model), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["active_parameters"] < info["parameters"]
    assert info["mtp_parameters"] > 0
    assert [need["dtype"] for need in info["memory"]] == ["float32", "bfloat16", "fp8", "q8_0", "q4_k"]
    assert {type(need["fits"]) for need in info["memory"]} <= {bool, type(None)}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["info", "nowhere"], "error: nowhere: no such directory"),
        (["export", "nowhere", "--to", "hf"], "error: nowhere: no such directory"),
        (["pull", "not-a-name"], "error: 'not-a-name' is not the name of a repository"),
    ],
)
def test_what_is_not_there_is_wrong_input(words, line, capsys):
    assert main(words) == 2
    assert line in capsys.readouterr().err


def test_export_prints_where(model, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(model), "--to", "hf", "--dtype", "bfloat16", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert (out / "model.safetensors").is_file()
    assert main(["export", str(model), "--to", "hf", "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_export_json(model, tmp_path, capsys):
    assert main(["export", str(model), "--to", "hf", "--out", str(tmp_path / "out"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["path"] == str(tmp_path / "out")
    assert written["bytes"] > 0


def test_export_needs_a_known_format(model, capsys):
    assert main(["export", str(model), "--to", "onnx"]) == 2
    assert main(["export", str(model)]) == 2
    assert "'--to'" in capsys.readouterr().err


def test_pull_names_the_endpoint_first_and_prints_the_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with FakeHub(FILES) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert main(["pull", "org/name", "--to", str(tmp_path / "m")]) == 0
        out, err = capsys.readouterr()
        assert out == f"{tmp_path / 'm'}\n"
        lines = err.splitlines()
        assert lines[0] == f"asking {hub.endpoint} for org/name at main"
        assert lines[1] == f"2 files, 293.0 KiB, into {tmp_path / 'm'}"
        assert main(["pull", "org/name", "--to", str(tmp_path / "m"), "--json"]) == 0
    pulled = json.loads(capsys.readouterr().out)
    assert pulled["revision"] == COMMIT
    assert [file["path"] for file in pulled["files"]] == ["config.json", "model.safetensors"]


def test_pull_without_a_network_fails_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["pull", "org/name", "--to", str(tmp_path / "m")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("error: http://127.0.0.1:9 can't be reached (")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (1500 * 2**40, "1,500.0 TiB")],
)
def test_bytes_as_a_person_says_them(count, words):
    assert byte_words(count) == words


def test_plain_progress_speaks_at_the_end_and_now_and_then(capsys):
    each = PlainTransfer(seconds_between_lines=3600).file("model.safetensors")
    for done in (0, 512, 1024):
        each(done, 1024)
    assert capsys.readouterr().err == "  model.safetensors 1.0 KiB of 1.0 KiB\n"
    each = PlainTransfer(seconds_between_lines=0).file("x")
    each(512, 1024)
    assert capsys.readouterr().err == "  x 512 B of 1.0 KiB\n"
