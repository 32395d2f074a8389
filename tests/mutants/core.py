"""Bugs in the optimiser, layers, initialisation, random numbers and models, beyond those of minires.verify.planted."""

from .bug import within

OPTIM = within(
    "minires/optim.py",
    "tests/test_optim.py",
    [
        (
            "xp.multiply(v, lr * self.momentum if self.nesterov else lr",
            "xp.multiply(v, lr",
            "Nesterov's step without momentum",
        ),
        ("if self.nesterov or v is None:", "if self.nesterov:", "no step without momentum"),
        (
            "v = self._velocity[position] = g.copy()",
            "v = self._velocity[position] = g",
            "the velocity shares the gradient's memory",
        ),
        (
            'array_module(p).array(array, order="C")',
            'array_module(p).asarray(array, order="C")',
            "a loaded state is not copied",
        ),
        ("round(m * iterations)", "int(m * iterations)", "milestones cut down"),
        ("sum(iteration >= m for m", "sum(iteration > m for m", "the rate drops one update late"),
        ("self.momentum > 0 and self.dampening == 0)", "self.momentum > 0)", "Nesterov with dampening is allowed"),
        ("memory is None or memory.size < p.size", "memory is None", "the first parameter's size for all"),
        ("[-self.window :]", "[-self.window - 1 :]", "the window never closes"),
        (
            "if self.ends is None:\n            self._errors",
            "if True:\n            self._errors",
            "the warm-up ends again and again",
        ),
        (
            "for i, v in enumerate(self._velocity) if v is not None}",
            "for i, v in enumerate(v for v in self._velocity if v is not None)}",
            "velocities numbered without the parameters that have none",
        ),
    ],
)

INIT = (
    *within(
        "minires/nn/init.py",
        "tests/nn/test_module.py tests/models/test_models.py",
        [
            ('units = shape[0] if fan == "out"', 'units = shape[0] if fan == "in"', "fan-in and fan-out swapped"),
            ("math.prod(shape[2:])", "math.prod(shape[1:])", "fan of all weights"),
            ("_skipping.reset(token)", "pass", "weights stay zeros afterwards"),
        ],
    ),
    *within(
        "minires/random.py",
        "tests/test_random.py",
        [
            ("_state.draw = outer", "_state.draw = np.random.Generator.random", "the outer draw is not restored"),
        ],
    ),
)

MODULE = within(
    "minires/nn/module.py",
    "tests/nn/test_module.py",
    [
        ("own[name][...] = converted", "own[name] = converted", "nothing is loaded"),
        ("if name not in given]", "if name not in given][1:]", "one missing name is passed over"),
        (
            'object.__setattr__(module, "training", mode)\n\n\ndef _converted',
            'object.__setattr__(module, "training", True)\n\n\ndef _converted',
            "every module is in training mode afterwards",
        ),
        ("chosen.itemsize < 4", "chosen.itemsize < 2", "float16 is allowed"),
        (
            "for module in self.modules():\n            object",
            "for module in self._children.values():\n            object",
            "only children change the mode",
        ),
    ],
)

MODELS = (
    *within(
        "minires/models/blocks.py",
        "tests/models",
        [
            (
                'before = new // 2 if zero_channels == "both" else 0',
                'before = new // 2 if zero_channels == "both" else new',
                "zeros before the channels",
            ),
            ("stride != 1 or in_channels != out_channels", "stride != 1", "no projection where only channels grow"),
            (
                "x[:, :, :: self.stride, :: self.stride]",
                "x[:, :, self.stride - 1 :: self.stride, self.stride - 1 :: self.stride]",
                "the last pixel of each block in place of the first",
            ),
            ('(option == "B" and increases)', 'option == "B"', "option B projects everywhere"),
            (
                'stride if stride_in == "1x1" else 1)',
                'stride if stride_in == "3x3" else 1)',
                "the stride in the other convolution",
            ),
        ],
    ),
    *within(
        "minires/models/resnet.py",
        "tests/models",
        [
            (
                "stride = 2 if stage > 0 and number == 0 else 1",
                "stride = 2 if number == 0 else 1",
                "the first stage halves the image",
            ),
            ("channels = out_channels\n", "channels = stage_width\n", "a bottleneck's channels not counted"),
        ],
    ),
)

BUGS = (*OPTIM, *INIT, *MODULE, *MODELS)
