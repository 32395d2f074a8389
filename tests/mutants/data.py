"""Bugs in minires/data."""

from .bug import within

AUGMENT = within(
    "minires/data/augment.py",
    "tests/data/test_augment.py",
    [
        (
            "rng.integers(0, 2 * pad + 1, (2,",
            "rng.integers(0, 2 * pad, (2,",
            "the last window of a crop is never drawn",
        ),
        (
            "rng.random((part.total, 1))[part.places]",
            "rng.random((len(part.places), 1))",
            "mirroring depends on the share",
        ),
        (
            "rng.normal(0, deviation, (part.total, 3))[part.places]",
            "rng.normal(0, deviation, (len(x), 3))",
            "colours depend on the share",
        ),
        ("amounts @ COLOUR_VECTORS.T", "amounts @ COLOUR_VECTORS", "eigenvectors in rows instead of columns"),
        (
            "np.exp(rng.uniform(-np.log1p(zoom), np.log1p(zoom), (2, part.total, 1, 1))[:, part.places])",
            "rng.uniform(1 / (1 + zoom), 1 + zoom, (2, part.total, 1, 1))[:, part.places]",
            "stretch drawn uniformly instead of its logarithm",
        ),
        ("rng.uniform(-rotate, rotate,", "rng.uniform(0, rotate,", "turns one way only"),
        ("rng.uniform(-shift, shift,", "rng.uniform(0, shift,", "moves one way only"),
        ("* stretch[0] + move[0]", "* stretch[1] + move[0]", "one stretch for height and width"),
        ("* stretch[1] + move[1]", "* stretch[1] + move[0]", "one move for rows and columns"),
        ("np.clip(j, 0, W + 0.999)", "np.clip(j, 1, W + 0.999)", "the left column is smeared instead of black"),
        ("np.clip(i, 0, H + 0.999)", "np.clip(i, 0, H)", "the bottom row is smeared instead of black"),
        ("x /= 255", "x /= 256", "wrong scale"),
        (
            "augmentation.rotate or augmentation.zoom or augmentation.shift",
            "augmentation.rotate or augmentation.zoom",
            "shift alone has no effect",
        ),
        (
            "augmentation.rotate or augmentation.zoom or augmentation.shift",
            "augmentation.rotate or augmentation.shift",
            "zoom alone has no effect",
        ),
        ("0.5 if flip else 0.0", "1.0 if flip else 0.0", "every image is mirrored"),
    ],
)

LOADER = within(
    "minires/data/loader.py",
    "tests/data/test_loader.py",
    [
        ("(rest > 1 or", "(rest >= 1 or", "a single left-over image is a batch of its own"),
        ("(self.seed, 0, epoch)", "self.seed + epoch", "the second epoch is the first one of the next seed"),
        ("(self.seed, 1, iteration)", "(self.seed, 1, batch)", "every epoch has the same augmentation"),
        ("(*seed, 1, place)", "(*seed, 1)", "all pictures of a batch are cut alike"),
        ("if len(ahead) > 2:", "if len(ahead) > 3:", "three batches ahead instead of two"),
        (
            "return self._end(iteration % len(self)) - iteration % len(self) * self.batch_size",
            "return min(self.batch_size, len(self.dataset) - iteration % len(self) * self.batch_size)",
            "the left-over image is not counted",
        ),
        (
            "return x, self.dataset.labels[own]",
            "return x, self.dataset.labels[indices[: len(own)]]",
            "labels of another share",
        ),
        (
            "(self._slice(order, batch), None)",
            "(self._slice(order, batch), (self.seed, 1, batch))",
            "evaluation is augmented",
        ),
    ],
)

DATASET = within(
    "minires/data/dataset.py",
    "tests/data/test_datasets.py tests/data/test_sets.py",
    [
        (
            "int(labels.max()) < len(self.classes)",
            "int(labels.max()) <= len(self.classes)",
            "a label one past the classes",
        ),
        ("return C, H, W", "return C, W, H", "height and width swapped"),
    ],
)

SETS = (
    *within(
        "minires/data/__init__.py",
        "tests/data/test_datasets.py",
        [
            ('integer(size, "size", 1) <= 14', 'integer(size, "size", 1) <= 7', "images of 14 pixels are padded by 4"),
        ],
    ),
    *within(
        "minires/data/digits.py",
        "tests/data/test_sets.py",
        [
            (
                "np.rint(table[:, :64] * (255 / 16)).astype",
                "(table[:, :64] * (255 / 16)).astype",
                "grey levels cut down",
            ),
            (
                "nth[labels == digit] = np.arange((labels == digit).sum())",
                "nth[labels == digit] = np.flatnonzero(labels == digit)",
                "every fifth image of all, not of each digit",
            ),
        ],
    ),
    *within(
        "minires/data/fashion_mnist.py",
        "tests/data/test_sets.py",
        [
            ('dtype="float32") + 0.5).astype', 'dtype="float32")).astype', "averages cut down instead of rounded"),
            ("axis=(2, 4)", "axis=(1, 4)", "averages over the wrong rows"),
        ],
    ),
    *within(
        "minires/data/cifar10.py",
        "tests/data/test_sets.py",
        [
            ("transpose(0, 2, 3, 1)", "transpose(0, 3, 2, 1)", "rows and columns swapped"),
        ],
    ),
    *within(
        "minires/data/files.py",
        "tests/data/test_sets.py tests/data/test_download.py",
        [
            (
                "if digest.hexdigest() != remote.md5:",
                "if digest.hexdigest()[:8] > remote.md5[:8]:",
                "checksum compared as an order",
            ),
            ("all(any((folder / file)", "any(any((folder / file)", "a folder with one of the files is taken"),
        ],
    ),
)

IMAGES = within(
    "minires/data/images.py",
    "tests/data/test_folder.py tests/data/test_datasets.py",
    [
        ("round(self.size * 480 / 224) + 1", "round(self.size * 480 / 224)", "scale jitter never reaches 480"),
        (
            "round((image.width - self.size) * rng.random())",
            "round((image.width - self.size - 1) * rng.random())",
            "the last column is never cut out",
        ),
        ("left, top = round(", "top, left = round(", "horizontal and vertical offset swapped"),
        ("rng.uniform(0.08, 1.0)", "rng.uniform(0.08, 1.0) ** 2", "areas not uniform"),
        ("left, top = (W - w) // 2, (H - h) // 2", "left, top = 0, 0", "the corner instead of the middle"),
        ("int(rng.integers(W - w + 1))", "int(rng.integers(max(W - w, 1)))", "the last column is never in a part"),
        (
            "return FolderImages(self.paths[chosen], self.size, self.crop)",
            "return FolderImages(self.paths[chosen], self.size)",
            "a slice loses the kind of crop",
        ),
    ],
)

FOLDER = within(
    "minires/data/folder.py",
    "tests/data/test_folder.py",
    [("p.suffix.lower() in SUFFIXES", "p.suffix in SUFFIXES", "files in capitals are left out")],
)

PREPROCESS = within(
    "minires/data/preprocess.py",
    "tests/data/test_preprocess.py",
    [
        ("return round(size * 256 / 224)", "return int(size * 256 / 224)", "margin cut down instead of rounded"),
        (
            "stretched = int(side * long / short)",
            "stretched = round(side * long / short)",
            "rounded instead of cut down",
        ),
        ("-((size - length) // 2)", "-((size - length + 1) // 2)", "the odd border pixel on the other side"),
        ("round((length - size) / 2)", "(length - size) // 2", "halves cut down instead of rounded to even"),
        ("mean.mean(axis=(0, 1))", "mean.mean(axis=(1, 2))", "mean of rows instead of channels"),
    ],
)

DECODE = within(
    "minires/data/decode.py",
    "tests/data/test_preprocess.py",
    [
        ("6: Image.Transpose.ROTATE_270", "6: Image.Transpose.ROTATE_90", "turned the wrong way"),
        (
            "return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))",
            "return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))",
            "16 bits divided by 257",
        ),
        ("values.max() > 0xFFFF", "values.max() >= 0xFFFF", "white in 16 bits is refused"),
    ],
)

BUGS = (*AUGMENT, *LOADER, *DATASET, *SETS, *IMAGES, *FOLDER, *PREPROCESS, *DECODE)
