"""`minires predict`: answers, class names, preprocessing, plots and errors."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from threadpoolctl import threadpool_limits
from usage import error_names

import minires as mr
from minires import backends, data
from minires.backends import threads
from minires.cli import main
from minires.training import progress, restore
from minires.training.evaluation import predict as logits_of
from minires.weights import save

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits: one channel, 8×8."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "--width", "4", "--iterations", "20", "--workers", "0", "--out", str(out), "--quiet"]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weight file with metadata: a narrow resnet20 for ten classes."""
    mr.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save(mr.models.create("resnet20", width=4), path, network="resnet20", options={"width": 4})
    return path


@pytest.fixture
def photos(tmp_path, rng):
    """Four pictures in a folder with a subfolder, in the order of the answers."""
    paths = [tmp_path / "photos" / name for name in ("a.jpg", "b/1.png", "b/2.png", "c.gif")]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3)).astype(np.uint8)).save(path)
    return paths


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(CIFAR10))
    return path


def test_pictures_of_a_run_have_the_probabilities_of_evaluation(call, run, tmp_path):
    test = data.load("digits", "test")
    for i in range(4):
        Image.fromarray(test.images[i, :, :, 0]).save(tmp_path / f"{i}.png")
    code, out, err = call("predict", *(tmp_path / f"{i}.png" for i in range(4)), "--weights", run, "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    trained = restore(run)
    logits = logits_of(trained.model, data.Transform(trained.checkpoint.mean)(test.images[:4])).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for i, one in enumerate(content["images"]):
        assert one["image"] == str(tmp_path / f"{i}.png")
        best = np.argsort(-expected[i])[:5]
        assert [chosen["class"] for chosen in one["classes"]] == [str(index) for index in best]
        assert [chosen["index"] for chosen in one["classes"]] == list(best)
        # Equal inputs; threads may divide the batch differently.
        assert [chosen["probability"] for chosen in one["classes"]] == pytest.approx(expected[i, best], rel=1e-5)
    assert content["network"] == "resnet20"
    assert content["preprocessing"]["grey"] is True
    assert (content["preprocessing"]["resize"], content["preprocessing"]["crop"]) == (8, 8)


def test_a_colour_picture_for_a_network_trained_on_grey_images(call, run, photos):
    code, out, _ = call("predict", photos[0], "--weights", run / "checkpoints", "--network", "resnet20", "--top", 2)
    assert code == 0
    head, picture, *classes = out.splitlines()
    assert head == "resnet20, 10 classes; pictures: in grey, shorter side 8, centre 8×8, minus the mean image"
    assert picture == str(photos[0])
    assert len(classes) == 2


def test_a_weight_file(call, weights, photos, names):
    code, out, err = call("predict", photos[3].parent, "--weights", weights, "--classes", names, "--top", 10)
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.startswith("resnet20, 10 classes; pictures: shorter side 32, centre 32×32, mean 0.485 0.456 0.406, std")
    assert lines[::11] == [str(path) for path in photos]
    for start in range(1, 44, 11):
        answers = [line.split(maxsplit=2) for line in lines[start : start + 10]]
        shares = [float(share) for share, _, _ in answers]
        assert {name for _, _, name in answers} == set(CIFAR10)
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.051)  # ten shares, each rounded to 0.01


def test_notes_report_the_assumptions_about_a_weight_file(call, weights, photos, tmp_path):
    state, bare = safetensors.numpy.load_file(weights), tmp_path / "bare.safetensors"
    safetensors.numpy.save_file(state, bare)
    code, out, err = call("predict", photos[0], "--weights", bare)
    assert code == 0
    assert [line.startswith("note: ") for line in err.splitlines()] == [True, True]
    assert "plain20 has the same names and shapes" in err
    assert "zero channels" in err
    assert out == call("predict", photos[0], "--weights", weights)[1]
    words = ("--weights", bare, "--network", "resnet20", "--zero-channels")
    assert call("predict", photos[0], *words, "end") == (0, out, "")
    assert call("predict", photos[0], *words, "both")[1] != out
    assert call("predict", photos[0], "--weights", bare, "--network", "plain20")[1].startswith("plain20, 10 classes")


def test_metadata_of_a_weight_file_are_used(call, weights, photos, tmp_path):
    state, path = safetensors.numpy.load_file(weights), tmp_path / "described.safetensors"
    eyes = {"resize": 40, "crop": 36, "mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0), "interpolation": "bicubic"}
    names = [*CIFAR10[:9], "lorry \x1b[2J"]
    save(state, path, network="resnet20", options={"width": 4}, preprocessing=eyes, classes=names)
    code, out, _ = call("predict", photos[0], "--weights", path, "--top", 10)
    assert code == 0
    assert "shorter side 40 (bicubic), centre 36×36, mean 0.5 0.5 0.5\n" in out
    assert {line.split(maxsplit=2)[2] for line in out.splitlines()[2:]} == {*CIFAR10[:9], "lorry ?[2J"}


def test_classes_without_names_are_numbers(call, weights, photos):
    content = json.loads(call("predict", photos[0], "--weights", weights, "--json", "--top", 1)[1])
    (answer,) = content["images"][0]["classes"]
    assert answer["class"] == str(answer["index"])


def test_class_names_of_a_run_can_be_replaced(call, run, names, photos):
    content = json.loads(call("predict", photos[0], "--weights", run, "--json", "--classes", names)[1])
    assert all(answer["class"] == CIFAR10[answer["index"]] for answer in content["images"][0]["classes"])


def test_preprocessing_can_be_chosen(call, weights, photos):
    words = ("--resize", 48, "--crop", 40, "--mean", "0.5,0.4,0.25", "--std", "0.5,0.25,1")
    content = json.loads(call("predict", photos[0], "--weights", weights, "--json", *words)[1])
    assert content["preprocessing"] == {
        "resize": 48,
        "crop": 40,
        "mean": [0.5, 0.4, 0.25],
        "std": [0.5, 0.25, 1.0],
        "interpolation": "bilinear",
        "grey": False,
    }
    shares = {
        word: json.loads(call("predict", photos[0], "--weights", weights, "--json", word, value)[1])["images"]
        for word, value in zip(words[::2], words[1::2], strict=True)
    }
    shares["none"] = json.loads(call("predict", photos[0], "--weights", weights, "--json")[1])["images"]
    assert len({json.dumps(content) for content in shares.values()}) == 5  # each flag changes the answer


def test_broken_pictures_are_reported_and_the_others_classified(call, weights, photos):
    photos[1].write_bytes(photos[1].read_bytes()[:100])
    (photos[1].parent / "0\n.png").write_text("no picture")
    for batch_size in (1, 32):
        words = (photos[0].parent, "--weights", weights, "--top", 1, "--batch-size", batch_size)
        words += ("--workers", batch_size % 2)
        code, out, err = call("predict", *words)
        assert code == 4
        assert out.splitlines()[1::2] == [str(path) for path in (photos[0], *photos[2:])]
        first, second, last = err.splitlines()[-3:]
        assert "0?.png: cannot be decoded" in first
        assert "1.png: cannot be decoded" in second
        assert last == "error: 2 of 5 pictures cannot be decoded"
    code, out, _ = call("predict", photos[0].parent, "--weights", weights, "--json")
    assert code == 4
    assert ["error" in one for one in json.loads(out)["images"]] == [False, True, True, False, False]


def test_plots(call, weights, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in photos}
    Image.new("RGB", (9, 9)).save(photos[0].parent / "b" / "a.png")  # with the stem of a.jpg
    words = ("predict", photos[0], "photos/b/a.png", "photos/b/1.png", "--weights", weights, "--plot")
    code, out, _ = call(*words)
    assert code == 0
    files = out.splitlines()[-4:]
    assert files == [
        os.path.join("predictions", name)
        for name in ("a.predicted.png", "a-2.predicted.png", "1.predicted.png", "all.predicted.png")
    ]
    for file in files:
        with Image.open(file) as picture:
            picture.load()
    # The folder of the plots already has a picture with the name of a plot.
    taken = photos[1].with_name("1.predicted.png")
    os.replace(photos[2], taken)
    code, out, _ = call("predict", photos[1], taken, "--weights", weights, "--plot", "--out", taken.parent, "--json")
    assert code == 0
    assert [os.path.basename(file) for file in json.loads(out)["files"]] == [
        "1-2.predicted.png",
        "1.predicted.predicted.png",
        "all.predicted.png",
    ]
    assert taken.read_bytes() == before[photos[2]]
    assert photos[1].read_bytes() == before[photos[1]]


def test_progress_goes_to_stderr(call, weights, photos, monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", iter(range(0, 1000, 4)).__next__)
    code, out, err = call("predict", photos[0].parent, "--weights", weights, "--batch-size", 1, "--json")
    assert code == 0
    assert len(json.loads(out)["images"]) == 4
    assert err == "2 of 4 pictures\n"


def test_no_progress_bar_while_answers_scroll(weights, photos, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    code = main(["predict", str(photos[0].parent), "--weights", str(weights), "--batch-size", "1"])
    printed = capsys.readouterr()
    assert code == 0
    assert str(photos[3]) in printed.out
    assert "predicted" not in printed.err
    assert "4/4" in printed.err


def test_threads_and_backend(call, run, weights, photos, monkeypatch):
    monkeypatch.setattr(threads, "_threads", None)
    found = []
    for path in (run, weights):
        with threadpool_limits():
            words = ("--threads", 1, "--backend", "reference", "--json", "--workers", 0)
            code, out, err = call("predict", photos[0], "--weights", path, *words)
        assert (code, err) == (0, "")
        assert threads.get_num_threads() == 1
        found.append(json.loads(out)["images"][0]["classes"])
        default = json.loads(call("predict", photos[0], "--weights", path, "--json")[1])["images"][0]["classes"]
        assert [one["probability"] for one in found[-1]] == pytest.approx(
            [one["probability"] for one in default], rel=1e-4
        )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["IMAGE"]),
        (["a.jpg"], ["--weights"]),
        (["nowhere.jpg", "--weights", "W"], ["nowhere.jpg: no such file or folder"]),
        (["empty", "--weights", "W"], ["empty: no pictures (of .jpg"]),
        (["a.jpg", "--weights", "nowhere"], ["--weights: no such file or folder: nowhere"]),
        (["a.jpg", "--weights", "W", "--network", "resnet2"], ["'resnet2'", "Did you mean 'resnet"]),
        (["a.jpg", "--weights", "R", "--network", "resnet32"], ["holds a resnet20, not a resnet32"]),
        (["a.jpg", "--weights", "R", "--stride-in", "3x3"], ["--stride-in", "the run has its own"]),
        (["a.jpg", "--weights", "R", "--zero-channels", "end"], ["--zero-channels", "the run has its own"]),
        (["a.jpg", "--weights", "W", "--stride-in", "3x3"], ["--stride-in does not apply to the resnet20"]),
        (["a.jpg", "--weights", "W", "--zero-channels", "front"], ["--zero-channels must be one of 'end', 'both'"]),
        (["a.jpg", "--weights", "W", "--network", "resnet32"], ["has 'resnet20' in its metadata"]),
        (["a.jpg", "--weights", "W", "--top", "0"], ["--top must lie in [1, 10], the number of classes, got 0"]),
        (["a.jpg", "--weights", "W", "--top", "11"], ["--top must lie in [1, 10]", "11"]),
        (["a.jpg", "--weights", "W", "--top", "all"], ["--top", "'all'"]),
        (["a.jpg", "--weights", "W", "--batch-size", "0"], ["--batch-size must be at least 1, got 0"]),
        (["a.jpg", "--weights", "W", "--workers", "-1"], ["--workers must be at least 0, got -1"]),
        (["a.jpg", "--weights", "W", "--workers", "999999"], ["--workers must be at most 256, got 999999"]),
        (["a.jpg", "--weights", "W", "--threads", "99999"], ["--threads must be at most 4096, got 99999"]),
        (["a.jpg", "--weights", "W", "--resize", "0"], ["--resize must be at least 1, got 0"]),
        (["a.jpg", "--weights", "W", "--crop", "-3"], ["--crop must be at least 1, got -3"]),
        (["a.jpg", "--weights", "R", "--crop", "9"], ["--crop and channels must match the mean image, 8×8×1"]),
        (["a.jpg", "--weights", "W", "--mean", "0.5"], ["--mean must be 3 numbers, one a channel, got (0.5,)"]),
        (["a.jpg", "--weights", "R", "--mean", "0.5,0.5,0.5"], ["--mean must be 1 number, one a channel"]),
        (["a.jpg", "--weights", "W", "--mean", "a,b,c"], ["--mean", "'a,b,c'"]),
        (["a.jpg", "--weights", "W", "--std", "1,0,1"], ["--std must be above 0, got 0.0"]),
        (["a.jpg", "--weights", "W", "--std", "1,nan,1"], ["--std must be finite, got nan"]),
        (["a.jpg", "--weights", "W", "--threads", "0"], ["--threads must be at least 1, got 0"]),
        (
            ["a.jpg", "--weights", "W", "--backend", "cudaa"],
            ["--backend must be one of reference, ", "Did you mean 'cuda'?"],
        ),
        (["a.jpg", "--weights", "W", "--out", "there"], ["--out requires --plot"]),
        (["a.jpg", "--weights", "W", "--plot", "--out", "/dev/null/x"], ["--out", "/dev/null/x"]),
        (["a.jpg", "--weights", "W", "--classes", "nowhere"], ["--classes: nowhere: No such file"]),
        (["a.jpg", "--weights", "W", "--classes", "empty"], ["--classes: empty: Is a directory"]),
        (["a.jpg", "--weights", "W", "--classes", "nine.txt"], ["nine.txt names 9 classes; the network has 10"]),
        (["a.jpg", "--weights", "W", "--labels", "x"], ["--labels"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_one_line_and_exit_2(call, run, weights, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nine.txt").write_text("\n".join(CIFAR10[:9]))
    before = set(tmp_path.iterdir())
    code, out, err = call("predict", *({"W": weights, "R": run}.get(word, word) for word in words))
    assert (code, out) == (2, "")
    error_names(err, *expected)
    assert set(tmp_path.iterdir()) == before


def test_broken_files_are_exit_4(call, run, weights, photos, tmp_path):
    for name, content in (("weights.safetensors", weights.read_bytes()[:-9]), ("iteration-00000001.json", b"{}")):
        (tmp_path / name).write_bytes(content)
        code, out, err = call("predict", photos[0], "--weights", tmp_path / name)
        assert (code, out) == (4, "")
        error_names(err, name)
    (tmp_path / "names.json").write_text('{"0": ')
    code, out, err = call("predict", photos[0], "--weights", weights, "--classes", tmp_path / "names.json")
    assert (code, out) == (4, "")
    error_names(err, "names.json", "not a file of class names")


def test_predict_ignores_the_backend_that_trained_the_run(call, run, photos, tmp_path):
    for file in (run / "checkpoints").iterdir():
        content = file.read_bytes()
        if file.suffix == ".json":
            document = json.loads(content)
            document["config"]["backend"] = "cuda"
            content = json.dumps(document).encode()
        (tmp_path / file.name).write_bytes(content)
    code, out, err = call("predict", photos[0], "--weights", tmp_path)
    assert (code, err) == (0, "")
    assert out == call("predict", photos[0], "--weights", run)[1]


def test_missing_backend_is_exit_3(call, weights, photos):
    missing = next((name for name, reason in backends.available().items() if reason), None)
    if missing is None:
        pytest.skip("every backend is available here")
    code, out, err = call("predict", photos[0], "--weights", weights, "--backend", missing)
    assert (code, out) == (3, "")
    error_names(err, missing)


def test_outputs_that_are_not_finite_are_exit_1(call, weights, photos, tmp_path):
    state = safetensors.numpy.load_file(weights)
    state["fc.weight"][:] = 3e38  # finite in float32, but the sums overflow
    save(state, tmp_path / "w.safetensors", network="resnet20", options={"width": 4})
    code, _, err = call("predict", photos[0], "--weights", tmp_path / "w.safetensors")
    assert code == 1
    error_names(err, "not finite")
