"""A Jupyter kernel that a test drives: it runs cells, answers the debugger and returns the output."""

from __future__ import annotations

import contextlib
import queue
import re
import time
from dataclasses import dataclass, field

from jupyter_client.manager import start_new_kernel


@dataclass
class Output:
    """A cell's output: text without colours, data of results, error, and prompts for input."""

    text: str = ""
    data: list[dict[str, str]] = field(default_factory=list)
    error: str = ""
    prompts: list[str] = field(default_factory=list)


class Kernel:
    """A kernel with this Python; `run` its cells."""

    def __init__(self, folder):
        self.manager, self.client = start_new_kernel(cwd=str(folder), startup_timeout=120)

    def run(self, code, answers=(), interrupt_at="", seconds=120):
        """Runs a cell, answers its questions in order, and interrupts it once its text holds `interrupt_at`."""
        output, answers = Output(), list(answers)
        parent = self.client.execute(code, allow_stdin=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                output.prompts.append(self.client.get_stdin_msg(timeout=0.01)["content"]["prompt"])
                self.client.input(answers.pop(0))
            try:
                message = self.client.get_iopub_msg(timeout=0.1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != parent:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    output.text += re.sub(r"\x1b\[[0-9;]*m", "", content["text"])
                case "execute_result" | "display_data":
                    output.data.append(content["data"])
                case "error":
                    output.error = f"{content['ename']}: {content['evalue']}"
                case "status" if content["execution_state"] == "idle":
                    assert not answers, f"the cell never asked for {answers}"
                    return output
            if interrupt_at and interrupt_at in output.text:
                interrupt_at = ""
                self.manager.interrupt_kernel()
        raise TimeoutError(f"the cell has not ended; it printed {output.text!r}")

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
