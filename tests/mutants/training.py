"""Bugs in minires/training."""

from .bug import within

UPDATE = (
    *within(
        "minires/training/microbatch.py",
        "tests/training/test_update.py",
        [
            ("-(-N // micro_batch)", "N // micro_batch + 1", "one part too many where the size divides"),
            (
                "part.start + np.arange(shard.start, shard.stop)",
                "np.arange(shard.start, shard.stop)",
                "places counted from the start of the part",
            ),
            ("part.stop == N", "part.start == 0", "the first part is taken for the last"),
        ],
    ),
    *within(
        "minires/training/update.py",
        "tests/training/test_update.py",
        [
            (
                "shard.size / total, last)",
                "1 / len(list(shards(total, self.micro_batch, self.ranks))), last)",
                "mean of the parts' means",
            ),
            ("loss.item() * len(labels)", "loss.item()", "losses of parts added as means"),
            (
                "self.optimizer.lr = lr\n            self.optimizer.step()",
                "self.optimizer.step()\n            self.optimizer.lr = lr",
                "the learning rate one update late",
            ),
            (
                "loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)\n        loss.backward()",
                "loss = F.cross_entropy(logits, labels)\n        loss.backward()",
                "label smoothing ignored",
            ),
            (
                "loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)\n            if not",
                "loss = F.cross_entropy(logits, labels)\n            if not",
                "label smoothing ignored without a capture",
            ),
            ("self.optimizer.zero_grad()\n        with", "with", "gradients of the update before are added"),
            (
                "logits.data.argmax(axis=1) != labels",
                "logits.data.argmax(axis=1) > labels",
                "only labels below count as wrong",
            ),
        ],
    ),
    *within(
        "minires/training/divergence.py",
        "tests/training/test_update.py",
        [
            ("bad[-1].rpartition", "bad[0].rpartition", "the last bad layer instead of the first"),
        ],
    ),
)

EVALUATION = within(
    "minires/training/evaluation.py",
    "tests/training/test_loop.py -k 'evaluat or no_output'",
    [
        ("-logits, 5, axis=1)[:, :5]", "-logits, 5, axis=1)[:, :6]", "top 6 instead of top 5"),
        ("if len(confusion) > 5 else None", "if len(confusion) >= 5 else None", "a top-5 error of five classes"),
        (
            "np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)",
            "confusion[labels, logits.argmax(axis=1)] += 1",
            "equal pairs of a batch count once",
        ),
        (
            "np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)",
            "np.add.at(confusion, (logits.argmax(axis=1), labels), 1)",
            "rows and columns swapped",
        ),
        ("on_batch(images)", "on_batch(len(labels))", "progress counts the last batch alone"),
        ("labels.max() >= C:", "labels.max() > C:", "a label one past the outputs"),
    ],
)

METRICS = within(
    "minires/training/history.py",
    "tests/training/test_update.py",
    [("self.wrong + other.wrong", "max(self.wrong, other.wrong)", "errors of the parts not added")],
)

HISTORY = (
    *within(
        "minires/training/history.py",
        "tests/training/test_history.py",
        [
            ("return min(measured,", "return min(reversed(measured),", "the latest of equals"),
            ("test_error is not None]\n    return", "test_error]\n    return", "a test error of 0 is not measured"),
            ("repr(value) for value", 'f"{value:.12g}" for value', "twelve digits instead of all"),
            ("min(100.0, max(5.0, 1.25 * highest))", "max(5.0, 1.25 * highest)", "an axis beyond 100 %"),
            ("if iteration >= end / 5)", "if iteration <= end / 5)", "scaled to the first errors"),
            (
                "training = [(row.iteration, row.training_error)",
                "training = [(row.iteration, row.training_loss)",
                "the loss drawn as an error",
            ),
            ('"o" if len(test) < 2 else ""', '"o" if len(test) > 2 else ""', "a single point is not visible"),
        ],
    ),
)

CONFIG = (
    *within(
        "minires/training/config.py",
        "tests/training/test_config.py",
        [
            ("max(1, round(self.epochs * batches))", "max(1, int(self.epochs * batches))", "iterations cut down"),
            ("self.log_every or min(100, batches)", "self.log_every or 100", "no row in a short epoch"),
            ("if self.momentum >= 1:", "if self.momentum > 1:", "momentum 1 is allowed"),
            (
                "self.micro_batch > self.batch_size",
                "self.micro_batch >= self.batch_size",
                "micro_batch = batch_size is refused",
            ),
            ("len({milestone < 1 for", "len({milestone <= 1 for", "milestone 1 is taken for a fraction"),
            (
                'integer(self.warmup, "warmup", 1)',
                'integer(self.warmup, "warmup", 2)',
                "a warm-up of one iteration is refused",
            ),
            ('settings.pop("epochs", None)\n', "", "the recipe's epochs stay beside given iterations"),
            ("Warmup(schedule, self.warmup_lr,", "Warmup(schedule, self.lr,", "the warm-up has the full rate"),
            ("total, self.lr_factor)", "total)", "lr_factor ignored"),
        ],
    ),
    *within(
        "minires/training/recipes.py",
        "tests/training/test_config.py",
        [
            ('"batch_size": 256, ', "", "ImageNet's batch of 128"),
            ('"milestones": (1 / 3, 2 / 3)', '"milestones": (1 / 2, 2 / 3)', "ImageNet's first drop late"),
        ],
    ),
)

CHECKPOINT = (
    *within(
        "minires/training/checkpoint.py",
        "tests/training/test_checkpoint.py tests/training/test_faults.py::test_which_ones_are_kept",
        [
            ("kept = set(course[-keep:])", "kept = set(course[: keep])", "the oldest are kept"),
            ("-len(text) % 8)", "-len(text) % 4)", "tensors not aligned to 8 bytes"),
            ("if row.iteration <= last)", "if row.iteration < last)", "a former best one stays"),
            ("return sorted(found, key=_iteration)", "return sorted(found)", "sorted by name, not by number"),
            ('!= listed["bytes"] or', '!= listed["bytes"] and', "damaged bytes of the right number are accepted"),
            ("iteration <= _iteration(description)]", "True]", "a left course of the run counts as newer"),
        ],
    ),
    *within(
        "minires/training/restore.py",
        "tests/cli/test_predict.py -k pictures_of_a_run",
        [
            (
                'margin(size) if checkpoint.config.data == "folder" else size',
                "margin(size)",
                "a margin for pictures without one",
            ),
        ],
    ),
)

LOOP = (
    *within(
        "minires/training/loop.py",
        "tests/training/test_loop.py",
        [
            (
                "self.schedule(self.iteration - 1),",
                "self.schedule(self.iteration),",
                "the rate of the next update in a row",
            ),
            (
                "return self.seconds_before + time.perf_counter() - self.began",
                "return time.perf_counter() - self.began",
                "seconds before an interruption are lost",
            ),
            ("random.generator().bit_generator.state = start.random_state", "pass", "random state not restored"),
            (
                "self.interval, self.timed_images, self.timed_seconds = Metrics(), 0, 0.0",
                "self.interval = Metrics()",
                "throughput since the start, not since the row before",
            ),
            (
                "start.iteration, start.interval, list(start.rows)",
                "start.iteration, Metrics(), list(start.rows)",
                "the sums since the last row are lost",
            ),
            (
                "self.schedule(max(0, self.iteration - 1))",
                "self.schedule(self.iteration)",
                "a diverged run names the next rate",
            ),
            ("self.iteration / self.batches,", "self.iteration // self.batches,", "whole epochs only"),
            (
                "100.0 * self.interval.wrong / images",
                "100.0 * self.interval.wrong / self.config.batch_size / self.log_every",
                "the last partial batch counts as a whole one",
            ),
        ],
    ),
    *within(
        "minires/training/batches.py",
        "tests/training/test_loop.py",
        [
            ("seed=config.seed, shuffle=True", "seed=0, shuffle=True", "one order for every seed"),
            ("if config.augment else Augmentation()", "if config.data else Augmentation()", "augment=False ignored"),
        ],
    ),
    *within(
        "minires/training/interrupt.py",
        "tests/training/test_loop.py",
        [
            (
                "self.requested = True\n        self._restore()",
                "self.requested = True",
                "a second Ctrl-C has no effect",
            ),
            ("if signal.getsignal(number) != signal.SIG_IGN:", "if True:", "an ignored signal is handled"),
        ],
    ),
    *within(
        "minires/training/progress.py",
        "tests/training/test_progress.py",
        [
            ("max(1, self.done - self.first)", "max(1, self.done)", "time left of a resumed run too short"),
            ("divmod(round(seconds), 60)", "divmod(int(seconds), 60)", "seconds cut down"),
            (
                '{minutes:02}:{seconds:02}" if hours',
                '{minutes}:{seconds:02}" if hours',
                "minutes without a leading zero",
            ),
        ],
    ),
)

MEMORY = (
    *within(
        "minires/training/memory.py",
        "tests/training/test_memory.py",
        [
            ("size / 2**20:,.0f} MiB", "size / 1e6:,.0f} MiB", "megabytes called mebibytes"),
            (
                "limit = available(ranks.local_size)",
                "limit = available()",
                "several processes have the whole machine each",
            ),
            (
                "-(-min(config.micro_batch or batch, batch) // ranks.size)",
                "min(config.micro_batch or batch, batch) // ranks.size",
                "the largest share of a batch rounded down",
            ),
            (
                "yield int(most) - taken + int(stat.get(cache, 0))",
                "yield int(most) - taken",
                "the file cache counts as taken",
            ),
            (
                "min([shared // processes, *_limits()])",
                "min([shared, *_limits()]) // processes",
                "own limits shared among processes",
            ),
        ],
    ),
    *within(
        "minires/training/network.py",
        "tests/training/test_loop.py -k batch_norm_is_given",
        [
            ('("micro_batch", 3)', '("micro_batch", 2)', "a part of one image for batch norm"),
            ("math.prod(row.output_shape[1:])", "math.prod(row.output_shape)", "channels counted as values a channel"),
        ],
    ),
)

BUGS = (*UPDATE, *EVALUATION, *METRICS, *HISTORY, *CONFIG, *CHECKPOINT, *LOOP, *MEMORY)
