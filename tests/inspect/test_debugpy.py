"""VS Code's debugger, driven by its protocol, with minires installed from a wheel as a library.

Protocol: https://microsoft.github.io/debug-adapter-protocol (messages of JSON behind a Content-Length).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minires.inspect import breakpoints

debugpy = pytest.importorskip("debugpy", reason="needs debugpy: pip install 'minires[debug]'")
pytest.importorskip("scikit_build_core", reason="needs scikit-build-core: pip install 'minires[debug]'")

ROOT = Path(__file__).parents[2]
BUILD = "from scikit_build_core.build import build_wheel; build_wheel({out!r}, {{'build-dir': {build!r}}})"
SCRIPT = """
import numpy as np, minires as mr, minires.functional as F
model = mr.models.create("resnet20", width=16)
x = mr.tensor(np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype("f"))
with mr.inspect.breakpoint(at="layer3.0.conv2", when="both"):
    F.cross_entropy(model(x), np.arange(8)).backward()
print("finished")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder of site-packages with the package from a wheel, built without a compiler."""
    folder = tmp_path_factory.mktemp("wheel")
    build = BUILD.format(out=str(folder), build=str(folder / "build"))
    environment = os.environ | {"CXX": "/nonexistent/c++", "CC": "/nonexistent/cc"}
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, env=environment, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


class Session:
    """A script under debugpy, and the client that VS Code would be."""

    def __init__(self, script, installed, just_my_code):
        # Without `site`, so that no editable installation comes before the wheel; its dependencies from their folders.
        packages = [str(Path(module.__file__).parents[1]) for module in (debugpy, np)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *packages])}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-S", "-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client"]
        self.process = subprocess.Popen(
            [*command, script.name],
            cwd=script.parent,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.socket = self._connected(port)
        self.stream, self.number, self.events = self.socket.makefile("rb"), 0, []
        self.request("initialize", adapterID="test", pathFormat="path")
        attach = self.send("attach", justMyCode=just_my_code)
        self.event("initialized")
        self.request("configurationDone")
        self.response(attach)

    def _connected(self, port):
        for _ in range(600):
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=120)
            except ConnectionRefusedError:
                assert self.process.poll() is None, self.process.communicate()
                time.sleep(0.1)
        raise AssertionError("debugpy does not listen")

    def send(self, command, **arguments):
        self.number += 1
        message = {"seq": self.number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return self.number

    def _message(self):
        length = 0
        while (line := self.stream.readline().strip()) or not length:
            name, _, value = line.partition(b":")
            length = int(value) if name == b"Content-Length" else length
        message = json.loads(self.stream.read(length))
        if message["type"] == "event":
            self.events.append(message)
        return message

    def response(self, number):
        while (message := self._message())["type"] != "response" or message["request_seq"] != number:
            pass
        assert message["success"], message
        return message.get("body", {})

    def request(self, command, **arguments):
        return self.response(self.send(command, **arguments))

    def event(self, *names):
        """The next event of one of these names."""
        while True:
            for i, event in enumerate(self.events):
                if event["event"] in names:
                    del self.events[: i + 1]
                    return event
            self._message()

    def stopped(self):
        """The innermost frame at the next stop, its variables, and the seconds that VS Code would need to show them.

        None if the program ends without a stop.
        """
        event = self.event("stopped", "terminated")
        if event["event"] == "terminated":
            return None
        began, self.thread = time.perf_counter(), event["body"]["threadId"]
        (frame,) = self.request("stackTrace", threadId=self.thread, levels=1)["stackFrames"]
        scopes = self.request("scopes", frameId=frame["id"])["scopes"]
        variables = self.request("variables", variablesReference=scopes[0]["variablesReference"])["variables"]
        return frame, {v["name"]: v["value"] for v in variables}, time.perf_counter() - began

    def goes_on(self):
        self.request("continue", threadId=self.thread)

    def ended(self):
        self.request("disconnect")
        self.socket.close()
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def documented_launch():
    """The configuration of launch.json in the documentation."""
    text = breakpoints.__doc__
    return json.loads(text[text.index("{\n") : text.index("For `minires step`")])["configurations"][0]


def test_the_documented_configuration_stops_in_both_frames(script, installed):
    session = Session(script, installed, documented_launch()["justMyCode"])
    for method, arrays in (("forward", {"x", "weight", "bias"}), ("backward", {"grad_output"})):
        frame, variables, seconds = session.stopped()
        print(f"{method}: {len(variables)} variables are shown {1e3 * seconds:.0f} ms after the stop")
        assert (frame["name"], frame["source"]["path"]) == (method, str(installed / "minires/ops/conv2d.py"))
        assert set(variables) == {"self", *arrays}
        assert variables["self"].startswith("<Conv2d(stride=(1, 1), ")
        # NumPy abridges an array of four axes to 6⁴ numbers, whatever its size.
        assert max(map(len, variables.values())) < 64 * 1024
        assert seconds < 30
        session.goes_on()
    assert session.stopped() is None
    code, out, err = session.ended()
    assert (code, out.splitlines()[-1]) == (0, "finished"), err
    assert "justMyCode" not in err


def test_vs_codes_default_is_told_what_to_set(script, installed):
    session = Session(script, installed, True)
    assert session.stopped() is None
    code, out, err = session.ended()
    assert (code, out.splitlines()[-1]) == (0, "finished"), err
    file = installed / "minires" / "ops" / "conv2d.py"
    assert err.count(f"minires: {breakpoints.SKIPPED.format(file=file)}\n") == 2  # forward and backward
