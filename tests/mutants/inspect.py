"""Bugs in minires/inspect: summary, memory, shapes, cards, anomalies, explanations."""

from .bug import within

SUMMARY = (
    *within(
        "minires/inspect/summary.py",
        "tests/inspect/test_summary.py",
        [
            ("if id(owner) not in self.kept:", "if True:", "arrays that are kept twice count twice"),
            ("{id(p.data): p.data for p in model.parameters()}", "{}", "parameters count as kept"),
            ("kept += owner.nbytes", "kept = owner.nbytes", "only the last array of an operation counts"),
            (
                '"x".join(map(str, row.output_shape))',
                '"x".join(map(str, row.output_shape[::-1]))',
                "width before height",
            ),
            (
                "not isinstance(input_shape, (tuple, list)) or len(input_shape) not in (1, 3)",
                "not isinstance(input_shape, (tuple, list))",
                "the batch axis is accepted",
            ),
            ("with evaluating(model), in_form(", "with in_form(", "running statistics of the model move"),
        ],
    ),
    *within(
        "minires/inspect/cost.py",
        "tests/inspect/test_summary.py",
        [
            ("sum(node.needs_input_grad[:2])", "sum(node.needs_input_grad)", "the bias counts as a product"),
            ("math.prod(weight[1:])", "math.prod(weight[2:])", "input channels not counted"),
            ("[saved.base if is_array(saved.base) else saved]", "[saved]", "a view counts as much as it shows"),
            ("for part in saved for owner", "for part in saved[:1] for owner", "only the first saved array counts"),
        ],
    ),
)

MEMORY = within(
    "minires/inspect/memory.py",
    "tests/inspect/test_summary.py tests/training/test_memory.py",
    [
        ("if self(middle) <= limit", "if self(middle) < limit", "a batch that just fits is too many"),
        ("if self(1) > integer(limit", "if self(1) >= integer(limit", "an image that just fits does not"),
        ("copy.deepcopy(model).eval()(Tensor", "model.eval()(Tensor", "the model is left in evaluation mode"),
        ("own = copy.deepcopy(model).train()", "own = model.train()", "the model's own statistics move"),
        ("random.generator().bit_generator.state = outer", "pass", "the random generator is moved"),
        (
            "        if not running:\n            tracemalloc.stop()",
            "        tracemalloc.stop()",
            "the caller's tracing ends",
        ),
        ("self.of_none = low - self.per_image * a", "self.of_none = low - self.per_image", "the line starts too high"),
        (
            "self.bytes = max(self.bytes, measure(",
            "self.bytes = min(self.bytes, measure(",
            "the workspace of kernels is not counted",
        ),
    ],
)

SHAPES = within(
    "minires/inspect/shapes.py",
    "tests/inspect/test_summary.py -k 'shapes or places'",
    [
        ("kernel[0] * kernel[1] <= 256", "kernel[0] * kernel[1] < 256", "another type of places for windows of 256"),
        ("stride, padding, dilation)\n", "padding, stride, dilation)\n", "stride and padding exchanged"),
        ("(N, *output, C), kind)", "(N, C, *output), kind)", "places not channels-last"),
        ("np.broadcast_shapes(a.shape, b.shape)", "b.shape", "the second operand's shape"),
        ("(*x.shape[:-1], w.shape[0])", "(x.shape[0], w.shape[0])", "a linear layer of two axes only"),
    ],
)

CARD = (
    *within(
        "minires/inspect/card.py",
        "tests/inspect/test_anomaly.py",
        [
            (
                "range(len(names), len(node.input_shapes))",
                "range(len(node.input_shapes) - len(names))",
                "names of further inputs start at 0",
            ),
            ("if p.kind is not p.VAR_POSITIONAL", "if p.default is p.empty", "inputs with a default have no name"),
            (
                "max((len(name) for name, _ in self.arrays), default=0)",
                "max(len(name) for name, _ in self.arrays)",
                "no card of a node that keeps nothing",
            ),
            (
                '("grad_output", Statistics.of(grad_output)), *card(node).arrays',
                '*card(node).arrays, ("grad_output", Statistics.of(grad_output))',
                "the gradient stands last",
            ),
        ],
    ),
    *within(
        "minires/statistics.py",
        "tests/test_statistics.py",
        [
            ("float(finite.std())", "float(finite.std(ddof=1))", "deviation of a sample, not of the numbers"),
            ("finite = values[np.isfinite(values)]", "finite = values[~np.isnan(values)]", "Inf in mean and norm"),
            (
                "on_cpu(array).astype(np.float64).ravel()",
                "on_cpu(array).ravel()",
                "norms in the array's own type overflow",
            ),
            ("infs = values.size - finite.size - nans", "infs = values.size - finite.size", "NaN counts as Inf too"),
            (
                "100 * self.zeros / self.size",
                "100 * self.zeros / (self.size - self.nans)",
                "share of the numbers that are not NaN",
            ),
        ],
    ),
)

ANOMALY = within(
    "minires/inspect/anomaly.py",
    "tests/inspect/test_anomaly.py",
    [
        ("if g is not None and needs]", "if g is not None]", "a gradient that is not wanted is judged"),
        ("        self.quiet.__exit__(None, None, None)", "        pass", "NumPy's warnings stay silent"),
        (
            'f" of {node.module}" if node.module',
            'f" of {node.name}" if node.module',
            "the operation in place of the module",
        ),
        ('[("grad_output", grad_output)])', "[])", "a gradient that was bad before is not seen"),
        (
            "for name, counts in _not_finite(given)]",
            "for name, counts in _not_finite(given)[:1]]",
            "only the first bad input is named",
        ),
        (
            "input_names(node), arrays, strict=True) if a is not None",
            "input_names(node)[1:], arrays[1:], strict=True) if a is not None",
            "the first input is not looked at",
        ),
    ],
)

EXPLAINING = within(
    "minires/inspect/explaining.py",
    "tests/inspect/test_explaining.py -k 'terms or winner'",
    [
        ("start = position + padding - tap * dilation", "start = position - padding + tap * dilation", "not flipped"),
        ("if start % stride == 0 and 0 <=", "if 0 <=", "a pixel between the strides is seen"),
        ('first = o // (O // call.options["groups"]) * Cg', "first = 0", "every group reads the first channels"),
        ('(o, c % Cg, p, q))], f"filter', '(o, 0, p, q))], f"filter', "the weight of the first channel"),
        (
            "mean, var = float(x.mean()), float(x.var())",
            "mean, var = float(x.mean()), float(x.var(ddof=1))",
            "unbiased",
        ),
        ("(-float(g.mean()), scale)", "(-float(g.sum()), scale)", "the sum in place of the mean"),
        ("(-float(normed[here]), projected, scale)", "(float(normed[here]), projected, scale)", "the projection added"),
        ("y = _at(call.output, index)", "y = _at(call.grad_output, index)", "the sign of the gradient"),
        ("tuple(i if n > 1 else 0 for", "tuple(i for", "a repeated input is read outside"),
        (
            "(math.isnan(v := _at(x, (n, c, *at))), v)",
            "(math.isnan(v := _at(x, (n, c, *at))), -v)",
            "the smallest wins",
        ),
        ("-(-(i + 1) * H // OH)", "(i + 1) * H // OH", "bins without their last row"),
        ("min(k, n + 2 * p - at * s)", "k", "what hangs over counts"),
        ("if _winner(call, n, c, *at) == (h, w)]", "]", "every window rewards its pixels"),
    ],
)

BUGS = (*SUMMARY, *MEMORY, *SHAPES, *CARD, *ANOMALY, *EXPLAINING)
