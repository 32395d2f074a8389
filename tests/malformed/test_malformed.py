"""No malformed call breaks anything: it is refused by the argument's name, or answered rightly.

`pytest -m slow tests/malformed` throws 10,000 of them; `python -m tests.malformed --help` lists the options for more.
"""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from malformed.__main__ import row, thrown
from malformed.face import LEFT_OUT, face, left_out, parameters
from malformed.good import FACTORIES, Files, Good
from malformed.judge import Finding, judge
from minires import backends

BACKENDS = [
    pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if reason else [])
    for name, reason in backends.available().items()
    if name in ("reference", "native", "emulated")
]
BESIDE = {"Tensor.grad="}  # an attribute without a setter: SGD.step finds what somebody has put there


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("files"))


def test_nothing_public_is_left_out():
    """Whatever becomes public needs a good call, or a reason."""
    public = face()
    assert {name for name in public if not left_out(name)} == set(FACTORIES) - BESIDE
    assert [given for given in LEFT_OUT if not any(left_out(name) and name.startswith(given) for name in public)] == []


@pytest.mark.parametrize("name", sorted(set(FACTORIES) - BESIDE))
def test_the_good_call_is_good_and_names_every_argument(files, name):
    """So that the odd value is what fails, and each has its turn."""
    good = FACTORIES[name](files)
    wanted = parameters(face()[name])
    assert {p.name for p in wanted if p.kind is not p.VAR_KEYWORD} <= set(good.arguments)
    if not any(p.kind is p.VAR_KEYWORD for p in wanted):
        assert len(wanted) == len(good.arguments)
    if name == "weights.exported":
        pytest.importorskip("onnx")
    assert judge(name, good, set()) in ("right", "accepted")


@pytest.mark.parametrize("backend", BACKENDS)
def test_malformed_calls(backend, record_property):
    counts, findings = thrown(backend, 2 * len(FACTORIES), seed=1)
    record_property("counts", row(backend, counts))
    assert not findings, "\n".join(findings)
    assert counts["calls"] == 2 * len(FACTORIES)
    assert min(counts["TypeError"], counts["ValueError"], counts["right"]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_malformed_calls(backend):
    counts, findings = thrown(backend, 3400, seed=2)
    print(row(backend, counts))
    assert not findings, "\n".join(findings)


# -- the judge is judged


def raising(error):
    def call(x):
        raise error

    return call


def test_what_the_judge_lets_pass(files):
    x = mr.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    assert judge("functional.relu", Good(F.relu, {"x": x}), {"x"}) == "right"
    assert judge("functional.relu", Good(raising(TypeError("x must be")), {"x": 1}), {"x"}) == "TypeError"
    assert judge("data.find", Good(raising(mr.data.DataError("gone")), {"x": 1}), {"x"}) == "DataError"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (raising(KeyError("x")), "KeyError"),
        (raising(TypeError("an integer is required")), "names none of x"),
        (raising(ValueError("exact is no name")), "names none of x"),
        (raising(MemoryError()), "MemoryError without a word"),
        (lambda x: mr.Tensor(x.data * np.float32(1.001)), "is wrong"),
        (lambda x: mr.Tensor(x.data * np.float32(np.nan)), "is wrong"),
        (lambda x: mr.Tensor(x.data[:1]), "has shape"),
        (lambda x: x.data.__setitem__(0, 7), "wrote into x"),
        (lambda x: x.data, "instead of a Tensor"),
    ],
)
def test_what_the_judge_finds(call, message, monkeypatch):
    monkeypatch.setattr("malformed.judge._ordinary", lambda good: Good(F.relu, {"x": mr.tensor(np.ones((2, 3)))}))
    with pytest.raises(Finding, match=message):
        judge("functional.relu", Good(call, {"x": mr.tensor(np.ones((2, 3), np.float32))}), {"x"})


@pytest.mark.parametrize(
    ("code", "message"), [("import os; os.abort()", "with -6"), ("import time; time.sleep(60)", "with 1: Timeout")]
)
def test_a_crash_and_a_hang_are_findings(code, message, monkeypatch, tmp_path):
    """They end the worker, and the report names the call."""
    from malformed import __main__ as module

    worker = tmp_path / "tests" / "malformed"
    worker.mkdir(parents=True)
    (worker / "__init__.py").touch()  # else the real package goes first, where PYTHONPATH leads to it
    (worker / "worker.py").write_text(
        "import faulthandler, pathlib, sys\n"
        "pathlib.Path(sys.argv[4], 'call').write_text('functional.relu(x=1)')\n"
        "faulthandler.dump_traceback_later(0.2, exit=True)\n" + code
    )
    monkeypatch.setattr(module, "__file__", str(worker / "__main__.py"))
    counts, findings = thrown("reference", 1)
    assert counts["findings"] == 1
    assert "functional.relu(x=1)" in findings[0]
    assert message in findings[0]
