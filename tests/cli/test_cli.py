"""The command line: exit codes, one-line errors, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits
from usage import error_names

import minires
from minires import backends, data, models
from minires.cli import COMMANDS, main
from minires.cli.paper import ITEMS
from minires.training import find_checkpoint, history, load_checkpoint, restore
from minires.weights import save

TINY = ["--width", "2", "--iterations", "6", "--workers", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *TINY, "--out", str(out), "--quiet"]) == 0
    return out


def test_train_prints_its_files_then_the_accuracy(call, tmp_path):
    code, out, err = call("train", "plain20", *TINY, "--out", tmp_path / "run", "--seed", 3)
    assert code == 0
    *files, accuracy = out.splitlines()
    error = history.read(tmp_path / "run" / "history.csv")[-1].test_error
    assert accuracy == f"test accuracy {100 - error:.2f} %  (error {error:.2f} %)"
    named = [line.split(maxsplit=1)[1] for line in files]
    assert [os.path.exists(path) for path in named] == [True] * 4
    assert str(tmp_path / "run" / "curves.png") in named
    assert "iteration 6/6" in err
    assert "plain20 on digits" in err


def test_train_without_out_numbers_the_runs(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        code, out, _ = call("train", *TINY, "--quiet")
        assert code == 0
        assert os.path.join("runs", f"resnet20-digits-{number}", "history.csv") in out


def test_train_json_is_the_only_output_on_stdout(call, tmp_path):
    code, out, _ = call("train", *TINY, "--out", tmp_path / "run", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["test_error"] == history.read(tmp_path / "run" / "history.csv")[-1].test_error
    assert content["test_accuracy"] == 100 - content["test_error"]
    assert content["iterations"] == 6
    assert content["run"] == str(tmp_path / "run")
    assert find_checkpoint(tmp_path / "run") == find_checkpoint(tmp_path / "run" / "checkpoints").parent / (
        os.path.basename(content["checkpoint"])
    )


def test_quiet_prints_nothing_on_stderr(call, tmp_path):
    assert call("train", *TINY, "--out", tmp_path / "run", "--quiet")[2] == ""


def test_every_setting_reaches_the_configuration(call, tmp_path, monkeypatch):
    monkeypatch.setattr(backends.threads, "_threads", None)
    words = (
        "train plain32 --data digits --seed 5 --threads 1 --backend reference --width 3 --dtype float64 "
        "--iterations 4 --batch-size 100 --micro-batch 30 --sync-batch-norm --lr 0.2 --momentum 0.8 "
        "--weight-decay 0.01 --nesterov --schedule step --milestones 2,3 --lr-factor 0.5 --warmup 1 --warmup-lr 0.02 "
        "--label-smoothing 0.3 --no-augment --log-every 1 --eval-every 2 --checkpoint-every 2 --keep 5 --keep-best "
        "--no-fuse --no-capture --workers 1"
    )
    with threadpool_limits():  # restores the number of BLAS threads
        assert call(*words.split(), "--data-dir", tmp_path, "--out", tmp_path / "run")[0] == 0
    config = load_checkpoint(find_checkpoint(tmp_path / "run")).config
    assert config.to_json() == {
        "network": "plain32",
        "data": "digits",
        "seed": 5,
        "threads": 1,
        "backend": "reference",
        "width": 3,
        "dtype": "float64",
        "iterations": 4,
        "epochs": None,
        "batch_size": 100,
        "micro_batch": 30,
        "sync_batch_norm": True,
        "lr": 0.2,
        "momentum": 0.8,
        "weight_decay": 0.01,
        "nesterov": True,
        "schedule": "step",
        "milestones": [2, 3],
        "lr_factor": 0.5,
        "warmup": 1,
        "warmup_lr": 0.02,
        "label_smoothing": 0.3,
        "augment": False,
        "log_every": 1,
        "eval_every": 2,
        "checkpoint_every": 2,
        "keep": 5,
        "keep_best": True,
        "fuse": False,
        "capture": False,
        "workers": 1,
        "data_dir": str(tmp_path),
        "size": None,
        "test_fraction": None,
        "shortcut": None,
        "stride_in": None,
    }
    rows = history.read(tmp_path / "run" / "history.csv")
    assert [row.lr for row in rows] == pytest.approx([0.02, 0.2, 0.1, 0.05])
    assert [row.test_error is not None for row in rows] == [False, True, False, True]
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 4


def test_resume(call, run, tmp_path):
    code, out, _ = call("train", "--resume", run, "--out", tmp_path / "on", "--workers", 1)
    assert code == 0
    assert "test accuracy" in out
    assert len(history.read(tmp_path / "on" / "history.csv")) == len(history.read(run / "history.csv"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], ["'trian'", "Did you mean 'train'?"]),
        (["--verbose"], ["--verbose"]),
        (["train", "resnet21"], ["'resnet21'", "Did you mean 'resnet"]),
        (["models", "resnet21"], ["'resnet21'", "Did you mean 'resnet20'?"]),
        (["summary", "resnet21"], ["'resnet21'", "Did you mean 'resnet20'?"]),
        (["train", "--threads", "5000"], ["--threads must be at most 4096", "5000"]),
        (["evaluate", ".", "--data", ".."], ["--data must name a data set", "--data folder --data-dir .."]),
        (["train", "--data", ".."], ["--data must name a data set, got the folder ..", "--data folder --data-dir .."]),
        (["step", "resnet20", "--data", ".."], ["--data folder --data-dir .."]),
        (
            ["train", "--lr-factor", "1e308", "--milestones", "1,2"],
            ["--lr-factor must leave the rate finite after 2 milestones, got 1e+308"],
        ),
        (["predict", __file__, "--weights", ".", "--plot", "p.png"], ["--plot takes no value, got 'p.png'; --out DIR"]),
        (["predict", __file__, "--weights", ".", "--plot=p.png"], ["--plot takes no value, got 'p.png'; --out DIR"]),
        (["predict", __file__, "--weights", ".", "--out", "x"], ["--out requires --plot"]),
        (["bench", "--threads", "5000"], ["--threads must be at most 4096"]),
        (["train", "--data", "digit"], ["'digit'", "Did you mean 'digits'?"]),
        (["train", "--epohcs", "3"], ["--epohcs", "Did you mean '--epochs'?"]),
        (["train", "--epoch", "3"], ["--epoch", "Did you mean '--epochs'?"]),
        (["train", "resnet20", "digits"], ["'digits'"]),
        (["train", "--lr", "fast"], ["--lr", "'fast'"]),
        (["train", "--lr", "-0.1"], ["--lr must be above 0", "-0.1"]),
        (["train", "--lr", "nan"], ["--lr", "nan"]),
        (["train", "--momentum", "1"], ["--momentum must be below 1"]),
        (["train", "--weight-decay", "-1"], ["--weight-decay must be at least 0"]),
        (["train", "--batch-size", "0"], ["--batch-size must be at least 1"]),
        (["train", "--batch-size", "1.5"], ["--batch-size", "1.5"]),
        (["train", "--epochs", "0"], ["--epochs must be above 0"]),
        (["train", "--epochs", "1", "--iterations", "3"], ["--iterations", "--epochs"]),
        (["train", "--iterations", "0"], ["--iterations must be at least 1"]),
        (["train", "--seed", "-1"], ["--seed must be at least 0"]),
        (["train", "--threads", "0"], ["--threads must be at least 1"]),
        (["train", "--workers", "-1"], ["--workers must be at least 0"]),
        (["train", "--eval-every", "0"], ["--eval-every must be at least 1"]),
        (["train", "--keep", "0"], ["--keep must be at least 1"]),
        (["train", "--schedule", "stpe"], ["--schedule", "Did you mean 'step'?"]),
        (["train", "--milestones", "half"], ["--milestones", "'half'"]),
        (["train", "--milestones", ","], ["--milestones", "','"]),
        (["train", "--epochs", "1e308"], ["--epochs must be above 0 and at most"]),
        (["train", "--data-dir", "nonsense"], ["--data-dir must be a folder", "'nonsense'"]),
        (["train", "--data", "folder", "--data-dir", "nonsense"], ["--data-dir must be a folder", "'nonsense'"]),
        (["doctor", "--data-dir", "nonsense"], ["--data-dir must be a folder"]),
        (["train", "resnet18", "--batch-size", "1"], ["--batch-size must be at least 2 for resnet18"]),
        (["paper", "table6", "--runs", "nowhere"], ["nowhere"]),
        (["draw", "resnet20", "--out", "/dev/null/x/y"], ["--out", "/dev/null/x"]),
        (["train", "--milestones", "0.5,100"], ["--milestones must be all iterations or all fractions"]),
        (["train", "--milestones", "20,10"], ["--milestones must rise"]),
        (["train", "--milestones", "1.5"], ["--milestones"]),
        (["train", "--warmup", "eror"], ["--warmup", "Did you mean 'error'?"]),
        (["train", "--warmup", "0"], ["--warmup must be at least 1"]),
        (["train", "--label-smoothing", "2"], ["--label-smoothing"]),
        (["train", "--dtype", "float16"], ["--dtype", "float32"]),
        (["train", "--backend", "cudaa"], ["--backend", "Did you mean 'cuda'?"]),
        (["train", "--shortcut", "D"], ["--shortcut", "'A', 'B', 'C'"]),
        (["train", "plain20", "--shortcut", "B"], ["plain20", "shortcut"]),
        (["train", "--width", "0"], ["--width must be at least 1"]),
        (["train", "vgg16", "--width", "1"], ["vgg16 cannot be trained on digits", "32×32"]),
        (["train", "--resume", "nowhere"], ["nowhere"]),
        (["evaluate"], ["RUN"]),
        (["evaluate", "nowhere"], ["nowhere"]),
        (["evaluate", __file__], ["is a weight file: --data specifies the images"]),
        (["train", "--resume", __file__], ["is no checkpoint"]),
        (["predict", "x.png", "--weight", "y"], ["'--weight'", "Did you mean '--weights'?"]),
        (["predict", "x.png", "--weight=y"], ["'--weight=y'", "Did you mean '--weights'?"]),
        (["predict", "x.png"], ["required: --weights"]),
        (["predict", __file__, "--weights", "."], ["--weights: . is a folder without a checkpoint"]),
        (["weights", "."], [". is a folder without a checkpoint"]),
        (["convert", ".", "x.safetensors"], [". is a folder without a checkpoint"]),
        (["export", "resnet20", "--out", "x", "--weights", "."], [". holds no checkpoint"]),
        (["paper", "gradients", "--steps", "-1"], ["--steps must be at least 0"]),
        (["paper", "table6", "--step", "1"], ["'--step'"]),
        (["evaluate", ".", "--split", "valid"], ["--split", "valid"]),
        (["summary"], ["NETWORK"]),
        (["summary", "resnet5"], ["'resnet5'", "Did you mean"]),
        (["summary", "resnet20", "--input", "32x32"], ["--input", "3x224x224"]),
        (["summary", "resnet20", "--input", "3x0x32"], ["--input"]),
        (["summary", "resnet20", "--width", "0"], ["width"]),
        (["summary", "plain20", "--shortcut", "A"], ["shortcut"]),
        (["summary", "vgg16", "--width", "1", "--input", "3x16x16"], ["32×32"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_one_line_and_exit_2(call, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if ", seed 0" not in line]  # without the line that announces the run
    error_names("\n".join(lines), *expected)
    assert list(tmp_path.iterdir()) == []


def test_settings_of_a_resumed_run_cannot_change(call, run):
    for words in (["--lr", "1"], ["--seed", "3"], ["--no-augment"], ["plain20"]):
        code, _, err = call("train", "--resume", run, *words)
        assert code == 2
        error_names(err, "--resume", {"--no-augment": "--augment", "plain20": "NETWORK"}.get(words[0], words[0]))


def test_a_run_is_not_overwritten(call, run):
    code, out, err = call("train", *TINY, "--out", run, "--quiet")
    assert (code, out) == (2, "")
    error_names(err, str(run), "--resume")


def test_missing_data_is_exit_1(call, tmp_path, monkeypatch):
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    code, out, err = call("train", "--data", "folder", "--data-dir", tmp_path, "--out", tmp_path / "run", "--quiet")
    assert (code, out) == (1, "")
    error_names(err, str(tmp_path))
    assert not (tmp_path / "run").exists()


def test_missing_data_names_the_folders_in_a_sentence(call, tmp_path, monkeypatch):
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    code, _, err = call("train", "--data", "cifar10", "--data-dir", tmp_path, "--out", tmp_path / "run", "--quiet")
    assert code == 1
    error_names(err, f" in {tmp_path}, {tmp_path}/cifar10, ", "/cifar10; put the binary version of CIFAR-10 into ")


def test_missing_backend_is_exit_3(call, tmp_path):
    missing = next((name for name, reason in backends.available().items() if reason), None)
    if missing is None:
        pytest.skip("every backend is available here")
    code, _, err = call("train", *TINY, "--backend", missing, "--out", tmp_path / "run", "--quiet")
    assert code == 3
    error_names(err, missing)
    assert not (tmp_path / "run").exists()


def test_wrong_default_backend_is_exit_2(call, tmp_path, monkeypatch):
    monkeypatch.setattr(backends._active, "backend", None)
    monkeypatch.setenv("MINIRES_BACKEND", "nonsense")
    code, _, err = call("train", *TINY, "--out", tmp_path / "run", "--quiet")
    assert code == 2
    error_names(err, "MINIRES_BACKEND", "nonsense")


def test_diverging_run_is_exit_1(call, tmp_path):
    words = ("--width", 2, "--iterations", 50, "--lr", 1e30, "--workers", 0, "--quiet", "--out", tmp_path / "run")
    code, out, err = call("train", *words)
    assert (code, out) == (1, "")
    error_names(err, "finite", "learning rate")


def test_broken_checkpoint_is_exit_4(call, run, tmp_path):
    for source in (run / "checkpoints").iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tensors,) = tmp_path.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    for words in (["evaluate", tmp_path], ["train", "--resume", tmp_path], ["evaluate", tensors]):
        code, out, err = call(*words)
        assert (code, out) == (4, "")
        error_names(err, "damaged", tensors.name)
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}")
    code, _, err = call("evaluate", foreign)
    assert code == 4
    error_names(err, "foreign.json")


def test_evaluate(call, run):
    code, out, err = call("evaluate", run)
    error = history.read(run / "history.csv")[-1].test_error
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"top-1 error   {error:.2f} %"
    assert "confusion" in out
    assert "top-5 error" in out


def test_evaluate_json(call, run):
    _, out, _ = call("evaluate", run / "checkpoints" / "iteration-00000006.json", "--json", "--batch-size", 50)
    content = json.loads(out)
    assert content["top1_error"] == history.read(run / "history.csv")[-1].test_error
    assert 0 <= content["top5_error"] <= content["top1_error"]
    assert sum(map(sum, content["confusion"])) == content["images"] == 364
    assert len(content["classes"]) == len(content["confusion"]) == 10
    assert json.loads(call("evaluate", run, "--json", "--split", "train")[1])["images"] == 1433


def test_evaluate_with_another_batch_size(call, tmp_path):
    """Smaller and larger than the micro-batches of the training."""
    assert call("train", *TINY, "--batch-size", 60, "--micro-batch", 30, "--out", tmp_path / "run", "--quiet")[0] == 0
    for images in (16, 200):
        code, out, _ = call("evaluate", tmp_path / "run", "--json", "--batch-size", images)
        assert code == 0
        assert json.loads(out)["images"] == 364
        assert restore(tmp_path / "run", batch_size=images).checkpoint.config.micro_batch is None


def test_evaluate_a_weight_file(call, tmp_path):
    """The errors are those of the model on the images, preprocessed as the file specifies."""
    minires.manual_seed(0)
    x = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    for label in range(12):
        (tmp_path / "val" / str(label % 3)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / str(label % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[label]).save(tmp_path / "val" / str(label % 3) / f"{label}.png")
        Image.fromarray(x[label]).save(tmp_path / "train" / str(label % 3) / f"{label}.png")
    options = {"width": 2, "num_classes": 3}
    model = models.create("resnet20", **options).eval()
    save(model, tmp_path / "w.safetensors", network="resnet20", options=options)
    words = ["--data", "folder", "--data-dir", tmp_path, "--batch-size", "5", "--json"]
    code, out, _ = call("evaluate", tmp_path / "w.safetensors", *words)
    content = json.loads(out)
    assert code == 0
    assert (content["network"], content["images"], content["top5_error"]) == ("resnet20", 12, None)
    order = [label for name in range(3) for label in sorted(range(name, 12, 3), key=str)]
    with minires.no_grad():
        logits = model(minires.tensor(data.Preprocessing(32, 32).normalise(x[order]))).data
    wrong = logits.argmax(axis=1) != np.repeat(np.arange(3), 4)
    assert content["top1_error"] == pytest.approx(100 * wrong.mean())
    code, _, err = call("evaluate", tmp_path / "w.safetensors")
    assert code == 2
    error_names(err, "is a weight file: --data specifies the images")
    code, _, err = call("evaluate", tmp_path / "w.safetensors", "--data", "digits")
    assert code == 2
    error_names(err, "--data: the data set has 10 classes; the network has 3 outputs")


def test_minires_without_arguments_prints_the_help_in_groups(call):
    code, out, err = call()
    assert (code, err) == (0, "")
    assert call("--help") == call("-h") == (0, out, "")
    heads = re.findall(r"^(\w[\w ]+):$", out, flags=re.M)
    assert heads == ["Train", "Look inside", "Verify", "Learn", "Reproduce", "Speed", "Files"]
    assert set(re.findall(r"^  (\w+) ", out, flags=re.M)) >= set(COMMANDS)
    assert call("-V") == call("--version")


def test_verify_ops_is_gradcheck(call):
    assert call("verify", "--ops", "relu", "--cases", 2, "--json") == call("gradcheck", "relu", "--cases", 2, "--json")
    code, _, err = call("verify", "resnet20", "--ops", "relu")
    assert code == 2
    error_names(err, "--ops checks operations")


def test_json_lists_the_written_files(call, tmp_path):
    content = json.loads(call("draw", "resnet20", "-o", tmp_path / "d", "--json")[1])
    assert content == {"files": [str(tmp_path / f"d.{kind}") for kind in ("svg", "png")]}
    content = json.loads(call("trace", "resnet20", "--width", 1, "-o", tmp_path / "t.html", "--json")[1])
    assert (content["file"], len(content["traces"])) == (str(tmp_path / "t.html"), 1)
    content = json.loads(call("paper", "figure3", "-o", tmp_path, "--json")[1])
    assert (content["name"], content["reproduced"], len(content["files"])) == ("figure3", True, 3)
    assert set(json.loads(call("paper", "--json")[1])) == set(ITEMS)


def test_evaluate_on_data_of_another_shape(call, run, tmp_path):
    from PIL import Image

    for split in ("train", "val", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (300, 260)).save(folder / "a.png")
    code, out, err = call("evaluate", run, "--data", "folder", "--data-dir", tmp_path)
    assert (code, out) == (2, "")
    error_names(err, "folder", "trained for")


def test_models(call, monkeypatch):
    monkeypatch.setattr(models, "names", lambda: ("resnet20", "plain20"))  # large networks take long
    code, out, _ = call("models", "--json")
    assert code == 0
    assert json.loads(out) == [
        {"network": name, "input": [3, 32, 32], "parameters": 269_722, "macs": 40_551_040}
        for name in ("resnet20", "plain20")
    ]
    out = call("models")[1]
    for word in ("resnet20", "plain20", "269,722", "40,551,040", "3×32×32"):
        assert word in out


def test_summary(call):
    out = call("summary", "resnet20")[1]
    for word in ("layer3.2.conv2", "269,722", "40,551,040", "64×8×8"):
        assert word in out
    words = ("--input", "1x28x28", "--shortcut", "C", "--width", 4, "--num-classes", 7, "--json")
    content = json.loads(call("summary", "resnet20", *words)[1])
    assert content["input"] == [1, 28, 28]
    assert content["rows"][-1]["output_shape"] == [7]
    assert content["macs"] == sum(row["macs"] for row in content["rows"])
    assert content["parameters"] == sum(row["params"] for row in content["rows"])
    assert any("downsample" in row["module"] for row in content["rows"])
    assert call("summary", "resnet50", "--stride-in", "3x3", "--input", "3x64x64", "--width", 4)[0] == 0


def test_doctor(call, tmp_path):
    code, out, _ = call("doctor", "--json", "--data-dir", tmp_path)
    content = json.loads(out)
    assert code == 0
    assert content["backends"]["reference"] == "available"
    assert set(content["backends"]) == {"default", *backends.names()}
    assert content["backends"]["default"] == backends.active().name
    if not backends.available()["native"]:
        sets = r"available: (avx512, )?(avx2, )?portable; uses (avx512|avx2|portable), winograd (on|off)"
        assert re.fullmatch(sets, content["backends"]["native"])
    assert content["data"]["digits"].endswith("digits.csv.gz")
    assert content["versions"]["minires"] == minires.__version__
    assert {"python", "numpy", "safetensors"} <= set(content["versions"])
    assert "BLAS" in content["processor"]
    assert "mpi4py" in content["processor"]["MPI"]  # or a message that mpi4py is missing
    out = call("doctor")[1]
    assert "reference" in out
    assert "fashion-mnist" in out


def test_doctor_without_the_native_backend():
    environment = os.environ | {"MINIRES_NATIVE": "/nonexistent", "MINIRES_BACKEND": ""}
    command = [sys.executable, "-m", "minires", "doctor", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    content = json.loads(ended.stdout)["backends"]
    assert content["default"] == "reference"
    assert "holds no _native" in content["native"]
    assert ended.stderr.count("\n") == 1
    assert "computing with the backend 'reference'" in ended.stderr
    environment["MINIRES_BACKEND"] = "native"  # no fallback; doctor reports why other commands fail
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "holds no _native" in json.loads(ended.stdout)["backends"]["default"]
    assert ended.stderr == ""
    wrong = subprocess.run(command, capture_output=True, text=True, env=environment | {"MINIRES_BACKEND": "nativ"})
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: MINIRES_BACKEND must be one of")


def test_help_and_version(call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert "train" in out
    code, out, _ = call("train", "--help")
    assert code == 0
    assert "--label-smoothing" in out
    assert call("--version")[1].strip() == f"minires {minires.__version__}"


def test_help_loads_no_heavy_modules():
    heavy = ["matplotlib", "safetensors", "minires.training"]
    code = f"import sys; from minires.cli import main; main(['--help']); print(*set({heavy!r}) & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1].strip() == ""


# Some versions of argparse ignore a closed pipe when they print help: exit code 0.
@pytest.mark.parametrize(
    ("words", "codes"),
    [(["summary", "resnet110", "--json"], {141}), (["models"], {141}), (["--help"], {0, 141})],
)
def test_a_closed_pipe_ends_a_command_quietly(words, codes):
    """`minires ... | head -0` prints no error."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "minires", *words]
    ended = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert ended.stderr == ""
    assert ended.returncode in codes


def test_names_are_not_cut_without_a_terminal(call, tmp_path):
    picture = Path(__file__).parents[1] / "prediction" / "data" / "cat.jpg"
    out = call("summary", "resnet50", "--stride-in", "3x3", "--input", "3x2048x2048")[1]
    assert "…" not in out
    assert "layer4.0.downsample.1" in out
    out = call("lockstep", "resnet50", "--width", "1", "--image", picture, "--backends", "reference,reference")[1]
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert not [row for row in rows if row.split("│")[1].strip() == ""], "a cell was folded"
    assert any("layer4.0.downsample.0" in row for row in rows)


def test_a_setting_in_a_message_becomes_its_flag_if_the_command_has_it():
    from minires.cli import _one_line

    flags = ("--width", "--stride-in")
    assert _one_line(ValueError("width must\nbe at least 1"), flags) == "--width must be at least 1"
    assert _one_line(ValueError("stride_in does not apply to it"), flags) == "--stride-in does not apply to it"
    assert _one_line(ValueError("stride_in is '1x1', but"), flags) == "--stride-in is '1x1', but"
    assert _one_line(ValueError("x must hold more than one value"), flags) == "x must hold more than one value"
    assert _one_line(ValueError("network is 'resnet20', but"), flags) == "network is 'resnet20', but"


def test_an_unknown_default_backend_is_one_line(call, monkeypatch):
    monkeypatch.setenv("MINIRES_BACKEND", "foo")
    code, out, err = call("models")
    assert (code, out) == (2, "")
    error_names(err, "MINIRES_BACKEND must be one of reference", "'foo'")


@pytest.mark.parametrize(("variable", "word"), [("MINIRES_ISA", "sse"), ("MINIRES_WINOGRAD", "no")])
def test_an_invalid_environment_variable_is_one_line(call, monkeypatch, variable, word):
    monkeypatch.setenv(variable, word)
    for command in ("doctor", "models"):
        code, _, err = call(command)
        assert code == 2
        error_names(err, f"{variable} must be one of", repr(word))


@pytest.mark.skipif(bool(backends.available()["emulated"]), reason="the emulator is not built")
def test_training_on_another_backend(call, tmp_path):
    """A run records the backend that trained it; evaluate uses that backend."""
    settings = ["--backend", "emulated", "--width", "2", "--workers", "0", "--batch-size", "4"]
    code, _, err = call(
        "train", *settings, "--iterations", "2", "--eval-every", "2", "--out", tmp_path / "run", "--quiet"
    )
    assert (code, err) == (0, "")
    assert load_checkpoint(find_checkpoint(tmp_path / "run")).config.backend == "emulated"
    code, out, _ = call("evaluate", tmp_path / "run", "--batch-size", "128", "--json")
    assert code == 0
    assert 0 <= json.loads(out)["top1_error"] <= 100
