"""Bugs in minires/prediction."""

from .bug import within

PREDICT = within(
    "minires/prediction/predict.py",
    "tests/prediction/test_predict.py",
    [
        (
            'np.argsort(-self.probabilities, kind="stable")',
            'np.argsort(self.probabilities, kind="stable")[::-1]',
            "of equals the higher number first",
        ),
        ("- logits.max(axis=1, keepdims=True)", "- logits.max()", "logits of one picture underflow beside another's"),
        ("powers.sum(axis=1, keepdims=True)", "powers.sum(axis=0, keepdims=True)", "sums over pictures, not classes"),
        (".astype(np.float64)\n", "\n", "softmax in float32"),
        (
            "for start in range(0, len(paths), batch_size)",
            "for start in range(0, len(paths) - batch_size + 1, batch_size)",
            "the last partial batch is dropped",
        ),
        ("for batch in (*batches, ()):", "for batch in batches:", "the last batch is never given"),
        ("if ready:\n", "if len(ready) > 1:\n", "batches of one are dropped"),
        ("Prediction(path, cut, next(rows))", "Prediction(batch[0], cut, next(rows))", "the batch's first path"),
        ("with evaluating(classifier.model):", "if True:", "training mode"),
    ],
)

CLASSES = within(
    "minires/prediction/classes.py",
    "tests/prediction/test_classes.py",
    [
        ("if len(content) > _MAX_BYTES:", "if len(content) >= _MAX_BYTES:", "the largest allowed file is refused"),
        ("value = value[-1]", "value = value[0]", "the identifier in place of the name"),
        ("lines.index('') + 1", "lines.index('')", "lines counted from 0"),
        (
            "content = [content[number] for number in numbers]",
            "content = [content[number] for number in sorted(numbers)]",
            "10 before 2",
        ),
        ('content.decode("utf-8-sig")', 'content.decode("utf-8")', "a byte order mark in the first name"),
        ('text.rstrip().split("\\n")', 'text.strip().split("\\n")', "empty lines before the first name are skipped"),
    ],
)

CLASSIFIER = within(
    "minires/prediction/classifier.py",
    "tests/prediction/test_predict.py",
    [
        ("usual | match.preprocessing", "match.preprocessing | usual", "the usual preprocessing overrides the file's"),
        ("stride_in=stride_in, zero_channels=zero_channels)", "stride_in=stride_in)", "zero_channels ignored"),
        (
            "models.options(match.network) | dict(match.options)",
            "dict(match.options) | models.options(match.network)",
            "defaults go before the file's options",
        ),
        (
            "models.input_shape(match.network)[1] == 224",
            "models.input_shape(match.network)[1] > 224",
            "CIFAR's size for ImageNet",
        ),
        ('"std": (0.226,)', '"std": (0.229,)', "red's deviation for grey"),
        ("str(index) if self.classes is None", "str(index + 1) if self.classes is None", "classes numbered from 1"),
        ("len(found.classes), found.classes)", "len(found.classes))", "a run's names of classes are lost"),
    ],
)

FIGURE = within(
    "minires/prediction/figure.py",
    "tests/prediction/test_predict.py",
    [
        (
            "rows = math.ceil(len(shown) / columns)",
            "rows = len(shown) // columns",
            "the last row of pictures is missing",
        ),
        ("math.ceil(math.sqrt(len(shown)))", "math.isqrt(len(shown))", "more rows than columns"),
        ("    bars.invert_yaxis()\n", "", "the most probable class at the bottom"),
        (
            "[100 * probability for _, probability in best]",
            "[probability for _, probability in best]",
            "shares drawn as percent",
        ),
        ("vmin=0, vmax=255", "vmin=None, vmax=None", "grey levels stretched"),
        ("text if len(text) <= length", "text if len(text) < length", "a name that just fits is cut"),
        ("{text[: length - 1]}…", "{text[:length]}…", "a cut name is one too long"),
        ("[:MOST_ON_A_SHEET]", "[-MOST_ON_A_SHEET:]", "the last hundred pictures, not the first"),
        (
            "picture[:, :, 0] if picture.shape[2] == 1",
            "picture[:, :, 0] if picture.shape[2] > 1",
            "red alone of a coloured picture",
        ),
    ],
)

PICTURES = within(
    "minires/prediction/pictures.py",
    "tests/prediction/test_pictures.py",
    [
        ("inside = sorted(_below(path))", "inside = list(_below(path))[::-1]", "pictures in no order"),
        ("name.lower().endswith(SUFFIXES)", "name.endswith(SUFFIXES)", "files in capitals are left out"),
        ('if not name.startswith(".")]', "]", "hidden folders are searched"),
        ("found += inside", "found = inside + found", "later folders first"),
    ],
)

BUGS = (*PREDICT, *CLASSES, *CLASSIFIER, *FIGURE, *PICTURES)
