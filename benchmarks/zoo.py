"""What can the lab do with the models that people bring? 36 architectures, small and with random weights, through each tool.

    python benchmarks/zoo.py                       # all, an hour on two cores; the counts go to results/zoo/
    python benchmarks/zoo.py ViT "MobileNet 3"     # these only, nothing is kept
    python benchmarks/zoo.py --columns sensitivity,gate    # these anew, of all, and the other columns as they are kept

Each is saved as a file of Keras 3 (of Keras 2 where its Keras 3 form does not get as far) and handed to the lab as a user
would. A cell is "right", "refused" (with a sentence), "wrong", "traceback" or "crash". Right means: the float file answers as
the model, to a thousandth of its largest answer; a quantized file is at most 3 dB worse than what the official converter
makes of the same model (and no NaN); equalized and narrow models compute what they should; quantization-aware training starts
at most 6 dB below PTQ; the sweep names every layer of weights as the model does; the gate decides.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COLUMNS = (
    "load",
    "float32",
    "dynamic",
    "int8",
    "int16x8",
    "per_tensor",
    "equalize",
    "qat",
    "sensitivity",
    "prune_channels",
    "gate",
)
OUTCOMES = ("right", "refused", "wrong", "traceback", "crash")
SAMPLES = 10
# Of one architecture: whatever takes more hangs. The clock would count what else the machine does.
PROCESSOR_SECONDS = 3600
CLOSE, WORSE, START = 1e-3, 3, 6
FEW = 20  # layers
LARGE = ("ResNet-50", "DenseNet", "Xception", "NASNet", "Inception", "EfficientNet 1", "EfficientNet 2", "ConvNeXt")


class Wrong(Exception):
    """A tool gave an answer, and not the right one."""


class Candidate:
    """An architecture as a file, the samples that go with it, and what the tools have made of it so far."""

    def __init__(self, name, library, folder):
        import keras
        import numpy as np

        from helpers.base import runtime_env
        from tests import architectures

        with runtime_env.quiet():
            import tensorflow as tf

            self.model = architectures.build(name, {"2": tf.keras, "3": keras}[library])
            self.folder, self.code = Path(folder), None
            if name == "subclassed":  # declares no inputs
                self.x = [np.random.default_rng(0).normal(size=(SAMPLES, 8)).astype("float32")]
            else:
                self.x = architectures.samples(self.model, SAMPLES)
            self.path = self.saved(name)
            self.exact = [np.asarray(each, "float32") for each in tf.nest.flatten(self.called())]
        if name == "custom layer":
            self.code = self.folder / "layers.py"
            self.code.write_text(architectures.CUSTOM_CODE)
        self.name = name
        self.own = self.int8 = self.exportable = None
        self.data, self.labelled = self.folder / "calibration.npz", self.folder / "test.npz"

    def called(self):
        return self.model(self.x[0] if len(self.x) == 1 else self.x, training=False)

    def saved(self, name):
        if name != "subclassed":
            self.model.save(self.folder / "model.keras")
            return self.folder / "model.keras"
        self.called()
        self.export(self.folder / "model")
        return self.folder / "model"

    def export(self, folder):
        """As a SavedModel."""
        self.model.export(folder, verbose=False) if is_keras_3(self.model) else self.model.save(folder)

    def load(self):
        import numpy as np

        from helpers import own_model

        self.own = own_model.load(self.path, code=self.code)
        names = ["x"] if len(self.x) == 1 else [end.name for end in self.own.inputs]
        arrays = dict(zip(names, self.in_order(), strict=True))
        np.savez(self.data, **arrays)
        np.savez(self.labelled, **arrays, y=self.exact[0].reshape(SAMPLES, -1).argmax(axis=1))
        self.check_close(self.own.file)

    def in_order(self):
        """The samples in the order of the file's inputs: their shapes tell which is which."""
        left, found = list(self.x), []
        for end in self.own.inputs:
            fits = next(each for each in left if each.ndim == len(end.shape) + 1 and each.dtype == end.dtype)
            left = [each for each in left if each is not fits]
            found.append(fits)
        return found

    def answers(self, file):
        from helpers import litert

        named = {end.name: each for end, each in zip(self.own.inputs, self.in_order(), strict=True)}
        return list(litert.run(file, named).values())

    def sqnr(self, outputs):
        """The worst over the outputs, each compared with the one of its shape."""
        from helpers import affine

        left, worst = list(outputs), math.inf
        for wanted in self.exact:
            got = next(each for each in left if each.shape == wanted.shape)
            left = [each for each in left if each is not got]
            worst = min(worst, affine.sqnr(wanted, got))
        return worst

    def check_close(self, file):
        if not self.sqnr(self.answers(file)) > -20 * math.log10(CLOSE):
            raise Wrong(f"{self.sqnr(self.answers(file)):.1f} dB")

    def float32(self):
        self.check_close(self.converted("float32"))

    def converted(self, recipe, per_channel=True):
        from helpers.compress import reports

        output = self.folder / f"{recipe}{per_channel}.tflite"
        reports.convert_file(self.path, output, recipe, self.data, per_channel, code=self.code)
        return output.read_bytes()

    def official(self, recipe, per_channel):
        """SQNR of what the official converter makes of the model; -inf where it fails."""
        from helpers.base import runtime_env
        from helpers.compress import quantize

        with runtime_env.quiet():
            try:
                converter = self.official_converter()
                quantize.RECIPES[recipe].configure(converter)
                converter._experimental_disable_per_channel = not per_channel
                if quantize.RECIPES[recipe].calibrated:
                    converter.representative_dataset = lambda: ([a[i : i + 1] for a in self.x] for i in range(SAMPLES))
                return self.sqnr(self.answers(converter.convert()))
            except Exception:  # whatever stops it
                return -math.inf

    def official_converter(self):
        """TensorFlow's, from a SavedModel that is exported once; straight from Keras where it cannot be exported."""
        import tensorflow as tf

        exported = self.folder / "exported"
        if self.exportable is None:
            try:
                self.export(exported)
                self.exportable = True
            except Exception:  # whatever stops it
                self.exportable = False
        if self.exportable:
            return tf.lite.TFLiteConverter.from_saved_model(str(exported))
        return tf.lite.TFLiteConverter.from_keras_model(self.model)

    def quantized(self, recipe, per_channel=True):
        file = self.converted(recipe, per_channel)
        ours, theirs = self.sqnr(self.answers(file)), self.official(recipe, per_channel)
        if math.isnan(ours) or ours < min(theirs - WORSE, 40):
            raise Wrong(f"{ours:.1f} dB, the official converter {theirs:.1f}")
        return file

    def dynamic(self):
        self.quantized("dynamic")

    def int16x8(self):
        self.quantized("int16x8")

    def per_tensor(self):
        self.quantized("int8", per_channel=False)

    def keras(self):
        from helpers.base.errors import StructureError

        if self.own.keras is None:
            raise StructureError(self.own.skipped)
        return self.own.keras

    def of(self, model):
        """Outputs of a flat Keras model for the samples."""
        import numpy as np
        import tensorflow as tf

        x = self.in_order()
        return [np.asarray(each) for each in tf.nest.flatten(model(x[0] if len(x) == 1 else x, training=False))]

    def equalize(self):
        from helpers import equalization

        folded = equalization.fold_batch_norms(self.keras())
        equalized = equalization.equalize(equalization.clear_dead(folded))
        if not self.sqnr(self.of(equalized)) > -20 * math.log10(CLOSE):
            raise Wrong(f"{self.sqnr(self.of(equalized)):.1f} dB")

    def qat(self):
        from helpers import qat

        aware = qat.quantization_aware(self.keras())
        qat.start_calibrated(aware, self.own.keras, self.in_order() if len(self.x) > 1 else self.x[0])
        found = self.sqnr(self.of(aware))
        if self.int8 is None or found < min(self.int8 - START, 30):
            raise Wrong(f"{found:.1f} dB, PTQ {self.int8}")

    def sensitivity(self):
        from helpers import sensitivity

        x = self.named()
        # One after the other where they are few; the names, and a file of all layers, where they are many.
        table = sensitivity.weight_layers(self.own.file, self.own.layers)
        modes = ("alone",) if len(table) <= FEW else ()
        found = sensitivity.sweep(self.own.file, x, x, modes=modes, known=self.own.layers, purpose=self.purpose())
        if not (found["damage"] > 0).any():
            raise Wrong("nothing does damage")
        named = {layer.name for layer in self.layers(self.model)}
        named |= {layer.name for layer in self.layers(self.own.keras)} if self.own.keras else set()
        strange = [name for name in table["layer"] if not _known(name, named)]
        if strange:
            raise Wrong(f"names that the model does not have: {', '.join(strange[:4])}")

    def layers(self, model):
        """Those that may have a kernel: a normalization is folded into another's."""
        for layer in getattr(model, "layers", []):
            if not type(layer).__name__.endswith("Normalization"):
                yield layer
            yield from self.layers(layer)

    def prune_channels(self):
        import numpy as np

        from helpers import channels

        wide = self.keras()
        masks = channels.keep(channels.scores(wide), 0.5)
        narrow, masked = channels.narrow(wide, masks), channels.masked(wide, masks)
        for wanted, found in zip(self.of(masked), self.of(narrow), strict=True):
            if not np.abs(wanted - found).max() <= CLOSE * np.abs(wanted).max():
                raise Wrong("the narrow model is not the masked one")
        if not narrow.count_params() < wide.count_params():
            raise Wrong("nothing was removed")

    def gate(self):
        import numpy as np

        from helpers import gate
        from helpers.base.errors import LabError

        if self.int8 is None:
            raise LabError("there is no int8 file to judge")
        file = (self.folder / "int8True.tflite").read_bytes()
        x = {name: np.concatenate([each] * 10) for name, each in self.named().items()}
        same = gate.judge(self.own.file, self.own.file, x, purpose=self.purpose(), speed=False)
        gate.judge(file, self.own.file, x, purpose=self.purpose(), speed=False)
        lost = [of.value for name, of in same.measured.items() if name.startswith("delta_")]
        if len(lost) != (1 if self.purpose() else len(self.own.outputs)) or any(lost):
            raise Wrong(f"the float file beside itself: {lost}")

    def named(self):
        return dict(zip([end.name for end in self.own.inputs], self.in_order(), strict=True))

    def purpose(self):
        """What a user would have to say: that a detector is one."""
        from helpers.tflite.heads import Purpose

        return Purpose("detection") if self.name == "detector" else None


def is_keras_3(model):
    """Whether a model was made by Keras 3, and not by tf-keras."""
    return any(of.__module__.startswith("keras.src") for of in type(model).__mro__)


def _known(name, layers):
    """Whether a row's name is a layer's, or that of a part of it ("attention/query"), numbered where it occurs twice."""
    return any(
        each in layers or any(each.startswith(f"{layer}/") for layer in layers)
        for each in (name, re.sub(r"_\d+$", "", name))
    )


def _int8(candidate):
    candidate.int8 = candidate.sqnr(candidate.answers(candidate.quantized("int8")))


def one(name, library, columns=COLUMNS):
    """Print a line of JSON for each column, as it is decided: whoever reads them knows which one a crash came in."""
    from helpers.base.errors import LabError

    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate(name, library, folder)
        for column in columns:
            print(json.dumps({"column": column}), flush=True)
            try:
                if column != "load" and candidate.own is None:
                    raise LabError("it could not be loaded")
                _int8(candidate) if column == "int8" else getattr(candidate, column)()
                outcome, why = "right", ""
            except LabError as error:
                outcome, why = "refused", str(error)
            except Wrong as error:
                outcome, why = "wrong", str(error)
            except Exception as error:
                outcome, why = "traceback", f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
                if isinstance(error, ValueError) and traceback.extract_tb(error.__traceback__)[-1].filename.endswith(
                    "helpers/compress/qat.py"
                ):
                    outcome, why = "refused", str(error)  # that module stands alone, without the lab's errors
                traceback.print_exc(file=sys.stderr)
            print(json.dumps({"column": column, "outcome": outcome, "why": why[:300]}), flush=True)


def _limited():
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))


def judged(name, library, columns=COLUMNS):
    """column -> (outcome, why) of an architecture, from a process of its own."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, __file__, "--one", name, library, ",".join(columns)]
        subprocess.run(command, stdout=out, stderr=errors, preexec_fn=_limited)
        out.seek(0)
        found, column = {}, None
        for line in out.read().splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                column = told["column"]
                if "outcome" in told:
                    found[column], column = (told["outcome"], told["why"]), None
        if column:
            found[column] = ("crash", "")
        if not found and column is None:
            errors.seek(0)
            found["load"] = ("traceback", (errors.read().strip().splitlines() or [""])[-1])
    return {each: found.get(each, ("crash", "it ended before")) for each in columns}


def best(name):
    """The row of an architecture: as a file of Keras 3, or of Keras 2 where that gets further. column -> (outcome, why). What is
    wrong, or no refusal, is not covered up by the other file: the row that has more of it is shown."""
    row = judged(name, "3")
    if _failed(row) or row["load"][0] != "right" or row["qat"][0] != "right":
        other = judged(name, "2")
        if _failed(row) == _failed(other):
            return max(row, other, key=lambda row: [outcome for outcome, _ in row.values()].count("right"))
        row = max(row, other, key=_failed)
    return row


def again(columns, kept):
    """Some columns of all architectures anew, in the table as it is kept: architecture -> column -> (outcome, why). The gate
    judges an int8 file, so that is made again too."""
    from tests import architectures

    needed = [each for each in COLUMNS if each in {"load", "int8", *columns}]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        rows = pool.map(lambda name: _better(name, needed, columns), architectures.BUILDERS)
        for name, row in zip(architectures.BUILDERS, rows, strict=True):
            kept[name] |= {column: row[column] for column in columns}
            print(f"{name:28}", *(f"{column} {': '.join(row[column])[:150]};" for column in columns), flush=True)
    return kept


def _better(name, needed, columns):
    """As `best`, by these columns."""
    row = judged(name, "3", needed)
    if all(row[column][0] == "right" for column in columns):
        return row
    other = judged(name, "2", needed)
    return max(row, other, key=lambda row: (_failed(row), [row[each][0] for each in columns].count("right")))


def _failed(row):
    return sum(outcome not in ("right", "refused") for outcome, _ in row.values())


def main():
    """Judge the architectures that are named, or go on with all."""
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:4], sys.argv[4].split(","))
        return
    import pandas as pd

    from helpers.base import repository
    from tests import architectures

    kept = repository.output_root() / f"zoo_{code(__file__)}.csv"  # a killed run goes on, by the same code
    table = {}
    if kept.is_file() and not sys.argv[1:]:
        table = _table(pd.read_csv(kept, keep_default_na=False))
    if sys.argv[1:2] == ["--columns"]:
        from helpers.lab import readme

        table = _table(pd.read_csv(readme.outcomes_file("zoo"), keep_default_na=False))
        table = again(sys.argv[2].split(","), table)
        keep(_frame(table), _counts(table), sys.argv[2])
        return
    names = [name for name in sys.argv[1:] or architectures.BUILDERS if name not in table]
    names.sort(key=lambda name: name in LARGE)  # what takes minutes comes last
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1))) as pool:
        for name, row in zip(names, pool.map(best, names), strict=True):
            table[name] = row
            print(f"{name:28}", *(f"{outcome[:7]:8}" for outcome, _ in row.values()), flush=True)
            for column, (outcome, why) in row.items():
                if outcome != "right":
                    print(f"{'':30}{column}: {outcome}: {why[:200]}", flush=True)
            if not sys.argv[1:]:  # a killed run goes on from here
                repository.write(kept, _frame(table).to_csv(index=False))
    counts = _counts(table)
    for column in COLUMNS:
        print(f"{column:16}", *(f"{outcome} {counts[f'zoo.{column}.{outcome}']:2}" for outcome in OUTCOMES))
    if not sys.argv[1:]:
        keep(pd.read_csv(kept, keep_default_na=False), counts)
        kept.unlink()


def code(script):
    """Of what judges, a hash: of the helpers, a script and the networks that it judges."""
    from helpers.lab import notebook
    from tests import architectures

    content = b"".join(Path(file).read_bytes() for file in (__file__, script, architectures.__file__))
    return hashlib.sha256(notebook.helpers_hash().encode() + content).hexdigest()[:12]


def _table(frame):
    """architecture -> column -> (outcome, why)."""
    return {
        architecture: {row.column: (row.outcome, row.why) for row in part.itertuples()}
        for architecture, part in frame.groupby("architecture")
    }


def _frame(table):
    import pandas as pd

    from tests import architectures

    done = [each for each in architectures.BUILDERS if each in table]
    rows = [(each, column, *table[each][column]) for each in done for column in COLUMNS]
    return pd.DataFrame(rows, columns=["architecture", "column", "outcome", "why"])


def _counts(table):
    return {
        f"zoo.{column}.{outcome}": [row[column][0] for row in table.values()].count(outcome)
        for column in COLUMNS
        for outcome in OUTCOMES
    }


def keep(frame, counts, anew="all"):
    """The table and its counts, beside the other results in the repository."""
    from helpers.base import repository
    from helpers.evidence import results

    os.environ[repository.OUTPUT_VARIABLE] = str(repository.REPOSITORY)
    path = results.record("zoo", "zoo", {"samples": SAMPLES, "anew": anew}, counts)
    repository.write((repository.REPOSITORY / path).with_suffix(".csv"), frame.to_csv(index=False))
    print(f"Kept: {path}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
