"""Bugs in minires/paper."""

from .bug import within

FIGURES = "tests/paper/test_trained_figures.py"
TABLES = "tests/paper/test_paper.py"

EXPERIMENT = within(
    "minires/paper/experiment.py",
    f"{FIGURES} -k 'not page'",
    [
        ("apart >= self.least", "apart > self.least", "equal errors fail a claim of at least 0"),
        ("apart <= self.most", "apart < self.most", "equal errors fail a claim of at most 0"),
        ('f"|{pair}|", abs(apart)', 'f"|{pair}|", apart', "either way is one way"),
        ("math.ceil(len(dataset) / SAMPLE)", "len(dataset) // SAMPLE", "more images than the sample"),
        (
            "for seed in range(seeds) for network in plan.networks",
            "for network in plan.networks for seed in range(seeds)",
            "networks before seeds",
        ),
        ("if curve.seed == seed}", "}", "every seed is judged by the last one"),
        ("mean = np.mean([[y", "mean = np.median([[y", "the median in place of the mean"),
        ("if done < plan.iterations:", "if done <= plan.iterations:", "a finished run is trained again"),
        ("-_depth(label[0])", "_depth(label[0])", "the deepest networks last"),
        ("**self.options.get(network, {}), ", "", "options of some networks are lost"),
    ],
)

PLANS = (
    *within(
        "minires/paper/figure1.py",
        f"{FIGURES} -k 'not page and not curve and not trained_network and not folder'",
        [
            (
                'Claim("plain56", "plain20", least=0), Claim("resnet56", "resnet20", most=0)',
                'Claim("plain56", "plain20", least=0), Claim("resnet20", "resnet56", most=0)',
                "the claim on CIFAR-10 turned around",
            ),
            ("max(iterations // 64, 100)", "min(iterations // 64, 100)", "CIFAR-10 evaluated ten times as often"),
            (
                'for which in ("training_error", "test_error"):',
                'for which in ("test_error", "training_error"):',
                "panels swapped",
            ),
            (
                "{claim.a, claim.b} <= set(networks)",
                "{claim.a, claim.b} & set(networks)",
                "claims about networks that are not trained",
            ),
            (
                '"resnet56", "resnet20", most=3 if quick else 1, either_way=quick',
                '"resnet56", "resnet20", most=3 if quick else 1, either_way=True',
                "a better deep network fails",
            ),
        ],
    ),
    *within(
        "minires/paper/figure4.py",
        f"{FIGURES} -k 'not page and not curve and not trained_network and not folder'",
        [
            ("for name in PANELS[1]}", "for name in PANELS[1][:1]}", "one residual network with projections"),
            (
                'Claim("resnet34", "resnet18", most=0))',
                'Claim("resnet18", "resnet34", most=0))',
                "the claim on ImageNet turned around",
            ),
            ('"C3" if network.endswith("34") else "C0"', '"C0" if network.endswith("34") else "C3"', "colours swapped"),
            (
                'f"{network}, training", colour, 1, "--"',
                'f"{network}, test", colour, 1, "--"',
                "training error labelled as test",
            ),
        ],
    ),
    *within(
        "minires/paper/figure7.py",
        f"{FIGURES} -k 'not page and not curve and not folder'",
        [
            ("arrays[1].shape[2:] == (3, 3)", "arrays[1].shape[2:] != (1, 1)", "the 7×7 convolution counts"),
            ("np.concatenate(seen)[:IMAGES]", "np.concatenate(seen)", "more test images than a thousand"),
            ("sorted(r.deviations, reverse=True)", "sorted(r.deviations)", "sorted upward"),
            ("range(1, len(values) + 1), values", "range(len(values)), values", "layers counted from 0"),
            (
                '"--" if r.network.startswith("plain")',
                '"-" if r.network.startswith("plain")',
                "plain networks not dashed",
            ),
        ],
    ),
)

GRADIENTS = within(
    "minires/paper/gradients.py",
    f"{TABLES} -k how_far",
    [
        ("float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))", "float(np.arccos(np.clip(cosine, -1, 1)))", "radians"),
        ("if step == 0:", "if step == steps:", "gradients after the steps, not before"),
        ("if step < steps:", "if step <= steps:", "one step too many"),
        ("SGD(model.parameters(), lr, 0.9)", "SGD(model.parameters(), lr)", "no momentum"),
        ("layer.weight.data.copy() for layer", "layer.weight.data for layer", "the first weights are not a copy"),
    ],
)

ITEMS = within(
    "minires/paper/items.py",
    f"{TABLES} {FIGURES} -k 'lines or columns or table_6'",
    [
        ('f"{case.norms[1]:.2g}"', 'f"{case.norms[0]:.2g}"', "the first convolution called the second"),
        ('f"{min(d):.3f}", f"{max(d):.3f}"', 'f"{max(d):.3f}", f"{min(d):.3f}"', "smallest and largest swapped"),
        ('not any("not reproduced" in line', 'not all("not reproduced" in line', "reproduced with most rows missing"),
        (
            'f"{c.training_error:.2f} %", f"{c.test_error:.2f} %"',
            'f"{c.test_error:.2f} %", f"{c.training_error:.2f} %"',
            "errors under each other's heads",
        ),
        ("[len(case.turned) // 2]", "[len(case.turned) // 4]", "a quartile called the median"),
    ],
)

TABLE = (
    *within(
        "minires/paper/table1.py",
        f"{TABLES} -k 'table_1 or median'",
        [
            ("_side(first.sizes[number + 1])", "_side(first.sizes[number])", "output sizes one stage off"),
            ("1e3 * (c.seconds or 0)", "1e6 * (c.seconds or 0)", "microseconds called milliseconds"),
            ("sorted(times[1:])[2]", "sorted(times)[2]", "the first, cold pass counts"),
            (
                'if number == 0 else ""\n        lines',
                'if number == 1 else ""\n        lines',
                "max pooling in the wrong stage",
            ),
            (']×{times}")', ']×{times - 1}")', "one repetition fewer"),
            (
                "×{c.weight.shape[3]}, {c.weight.shape[0]}",
                "×{c.weight.shape[3]}, {c.weight.shape[1]}",
                "input channels in place of filters",
            ),
        ],
    ),
    *within(
        "minires/paper/table6.py",
        f"{TABLES} -k table_6",
        [
            (
                "checkpoint.rows[-1]",
                "min(checkpoint.rows, key=lambda row: row.test_error or 101)",
                "the best error, not the last one",
            ),
            ('if config.data == "cifar10" and done', "if done", "errors on other data"),
            ('if config.data == "cifar10" and done', 'if config.data == "cifar10"', "errors of runs that were stopped"),
            (
                "errors.setdefault(config.network, []).append",
                'errors.setdefault("resnet20", []).append',
                "errors of another network",
            ),
        ],
    ),
    *within(
        "minires/paper/report.py",
        f"{TABLES} -k 'lines or markdown'",
        [
            ('cell.replace("\\n", "; ")', 'cell.replace("\\n", "")', "lines of a cell run together"),
            ('["---"] * len(head)', '["---"] * (len(head) - 1)', "a table without its last column"),
            ('cell.replace("\\n", "<br>")', "cell", "a cell's lines end the row"),
        ],
    ),
    *within(
        "minires/paper/drawing.py",
        f"{TABLES} -k 'figure_3 or bottlenecks'",
        [
            (
                "first.weight.shape[1] != last.weight.shape[0]",
                "first.weight.shape[0] != last.weight.shape[0]",
                "dotted in every bottleneck",
            ),
            (
                "shortcut.first - 1].size if shortcut.first",
                "shortcut.first].size if shortcut.first",
                "size behind the first box, not before",
            ),
            (
                'node.name == "Conv2d" and "downsample" not in node.module',
                'node.name == "Conv2d"',
                "projections drawn as layers",
            ),
            ("macs / 1e9:.1f} ×10⁹", "macs / 2**30:.1f} ×10⁹", "2³⁰ in place of 10⁹"),
        ],
    ),
)

PAGE = (
    *within(
        "minires/paper/page/claims.py",
        "tests/paper/test_page.py -k 'fail or responses or notes'",
        [
            ("abs(apart[worst]) < 0.1", "apart[worst] < 1", "any printed number holds"),
            ("all(first >= last for first, last in plain.values())", "True", "gradients that vanish hold"),
            ("bool(plain) and ", "", "a claim without numbers holds"),
            ("holds = bool(judged) and not any", "holds = not any", "a figure without a verdict holds"),
            ("if result.trained_on is None:", "if False:", "untrained networks decide"),
        ],
    ),
    *within(
        "minires/paper/page/rendering.py",
        "tests/paper/test_page.py -k 'lines or anchors or above or claim'",
        [
            ("enumerate(source.lines, source.first)", "enumerate(source.lines, source.first + 1)", "lines off by one"),
            ('for phase in ("forward", "backward"):\n            inside +=',
             'for phase in ("backward", "forward"):\n            inside +=', "backward above forward"),
        ],
    ),
)  # fmt: skip

BUGS = (*EXPERIMENT, *PLANS, *GRADIENTS, *ITEMS, *TABLE, *PAGE)
