"""Interpreters of `.tflite` files: which samples go into which input, batches, real numbers and stored ones, and their times.

Needs Python, numpy and ai_edge_litert, nothing else of the lab: `runner` takes this file along to another machine.
"""

import hashlib
import math
import shlex
import time

# One timing lasts at least this long, so that the clock's resolution and a single interrupt do not decide it.
SAMPLE_SECONDS = 0.002
BLOCKS = 6
BATCH_BYTES = 8_000_000  # of the samples in a batch: more are no faster, and take memory
UNNAMED = "serving_default"  # what converters call a signature that was given no name
_admitted = {}  # what `admits_batches` was asked -> its answer


def interleaved(load, samples, rounds, blocks=BLOCKS, threads=1):
    """Time one sample on several models in turn: A B C, A B C, …

    load: name -> function(threads) that gives an interpreter with tensors allocated for one sample. samples: as `fed` takes
    them; the first is run. Each block has interpreters of its own, since where their buffers happen to lie shifts their times
    for as long as they live. Returns a list of blocks, each a list of rounds, each name -> seconds.
    """
    found = []
    for _ in range(blocks):
        runners = None  # the former block's are gone before this one's take their memory
        runners = {name: _Timed(function(threads), samples) for name, function in load.items()}
        found.append([{name: runner.seconds() for name, runner in runners.items()} for _ in range(rounds // blocks)])
    return found


def admits_batches(model, size, samples=None):
    """Whether a model, its inputs resized to a batch of `size`, still computes each sample by itself.

    A constant batch size in the graph, as converters leave it when they saw one sample, can fail loudly (RESHAPE), keep the
    first sample and repeat its values for all (SLICE), or lay the samples end to end in another axis (RESHAPE to (1, -1, 4)). So
    every tensor that depends on an input must grow by `size`, each output in its first axis, and two samples drawn at random
    must be answered together as they are one by one. model: path or bytes of a `.tflite`. samples: as `fed` takes them; open sizes become
    theirs. It takes as long as a batch does, so a process remembers the answer for the same content of a file.
    """
    blob = model
    if not isinstance(blob, bytes):
        with open(model, "rb") as file:
            blob = file.read()
    sides = {name: array.shape[1:] for name, array in (samples or {}).items()}
    key = hashlib.sha256(blob).digest(), size, tuple(sides.items())
    if key not in _admitted:
        _admitted[key] = _admits_batches(model, size, samples)
    return _admitted[key]


def _admits_batches(model, size, samples):
    from ai_edge_litert.interpreter import OpResolverType

    try:
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides what is inside it
        one, many = (load(model, 1, batch, samples, experimental_op_resolver_type=plain) for batch in (1, size))
        before, after = ({d["index"]: d["shape"] for d in it.get_tensor_details()} for it in (one, many))
        dependent = {d["index"] for d in one.get_input_details()}
        for operator in one._get_ops_details():  # private, but nothing else tells what an operator reads
            if operator["op_name"] in ("WHILE", "IF", "CALL", "CALL_ONCE"):
                return False  # what happens in there is not listed
            if operator["op_name"] != "SHAPE" and dependent.intersection(operator["inputs"]):
                dependent.update(operator["outputs"])
        ends = [d["index"] for d in one.get_output_details()]
        if not all(after[index].prod() == size * before[index].prod() for index in (*dependent, *ends)):
            return False
        if not all(after[index][:1].tolist() == [size * side for side in before[index][:1]] for index in ends):
            return False
        return size == 1 or _alike(one, many, size)
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return False


def _alike(one, many, size):
    """Whether two interpreters, of one sample and of many, answer the first two of random samples alike. Every other sample is as large
    as pixels are: a file whose scales are made for these rounds the small ones to nothing."""
    import numpy as np

    inputs = one.get_input_details()
    random = drawn(declared(one)[0], size)
    for array in random:
        if array.dtype.kind == "f":
            array[1::2] *= 64
    samples = [as_stored(array, each) for array, each in zip(random, inputs)]
    together = answered(many, many.get_input_details(), many.get_output_details(), samples)
    for place in range(2):
        single = answered(one, inputs, one.get_output_details(), [array[place : place + 1] for array in samples])
        for it, of in zip(single, together):
            alone, beside = (np.asarray(each, "float64") for each in (it, of[place : place + 1]))
            known = np.isfinite(alone) & np.isfinite(beside)
            # Integers may be rounded by one step to the other side.
            near = 1.5 if of.dtype.kind in "iu" else 1e-6 + 1e-3 * np.abs(alone[known]).max(initial=0)
            if (np.isfinite(alone) != np.isfinite(beside)).any() or (np.abs(alone - beside)[known] > near).any():
                return False
    return True


def at_a_time(arrays, most):
    """How many samples to show a model at once: `most` at most, and fewer where they are large. arrays: (n, ...) for each input."""
    each = sum(array[:1].nbytes for array in arrays)
    return max(1, min(most, len(arrays[0]), BATCH_BYTES // max(1, each)))


def drawn(inputs, number):
    """Samples drawn at random, a list of arrays (number, ...) in the order of the inputs: normal ones, 0 or 1 where whole numbers
    are needed. inputs: their details, of `declared`."""
    import numpy as np

    random, found = np.random.default_rng(0), []
    for each in inputs:
        shape = (number, *each["shape"][1:])
        whole = each["dtype"].startswith(("int", "uint")) and not each["scale"]
        normal = random.integers(0, 2, shape) if whole else random.normal(size=shape)
        found.append(normal.astype(each["dtype"] if whole else "float32"))
    return found


def fed(inputs, samples):
    """Which samples go into which input: a list of arrays (n, ...) in the order of the inputs.

    inputs: their details, of `declared`. samples: name -> array. One array goes into the only input; several go by names or,
    where a file has other names, by shapes that occur once. Raises ValueError where neither tells.
    """
    if len(inputs) == 1 and "x" in samples:
        return [samples["x"]]
    if len(inputs) != len(samples):
        names = ", ".join(each["name"] for each in inputs)
        raise ValueError(f"its inputs are {names}, the samples have {', '.join(samples)}")
    arrays = list(samples.values())
    if len(inputs) == 1:
        return arrays
    names = [each["name"] for each in inputs]
    if set(names) == set(samples):
        return [samples[name] for name in names]
    shapes = [tuple(each["shape"][1:]) for each in inputs]
    given = [array.shape[1:] for array in arrays]
    if len(set(shapes)) < len(shapes) or sorted(shapes) != sorted(given):
        raise ValueError(f"its inputs are {', '.join(names)}, the samples have {', '.join(samples)}")
    return [arrays[given.index(shape)] for shape in shapes]


def batches(runner, arrays, size):
    """What a model puts out for samples, as stored: for each batch a list with an array (up to size, ...) of each output.

    runner: an interpreter, its tensors allocated for batches of `size`. arrays: (n, ...) for each input in their order.
    """
    number, sources, targets = len(arrays[0]), runner.get_input_details(), runner.get_output_details()
    for start, stored in zip(range(0, number, size), filled(sources, arrays, size)):
        yield of_samples(answered(runner, sources, targets, stored), min(size, number - start), size)


def filled(sources, arrays, size):
    """The batches of some samples as stored, each a list with an array (size, ...) for each input; the last is filled up, so that
    its shape and hence its kernels stay the same. sources: details of the inputs. arrays: as in `batches`."""
    import numpy as np

    number = len(arrays[0])
    for start in range(0, number, size):
        missing = max(0, start + size - number)
        parts = [as_stored(array[start : start + size], source) for source, array in zip(sources, arrays)]
        yield [np.concatenate([each, np.repeat(each[-1:], missing, axis=0)]) if missing else each for each in parts]


def answered(runner, sources, targets, stored):
    """What an interpreter puts out for one batch as stored: a list with an array of each output. sources, targets: details of its
    inputs and outputs."""
    for source, array in zip(sources, stored):
        runner.set_tensor(source["index"], array)
    runner.reset_all_variables()  # a recurrent layer's, or a sample's answer would depend on the samples before it
    runner.invoke()
    return [runner.get_tensor(target["index"]) for target in targets]


def of_samples(found, number, size):
    """The rows of a batch's outputs that belong to its samples, `number` of them among `size`."""
    # An output without an axis of samples belongs to the one sample that was run.
    return [each[:number] if size > 1 or each.shape[:1] == (1,) else each[None] for each in found]


def as_stored(x, details):
    """Real numbers as a tensor holds them: rounded to its integers by its scale and zero point, if it has a scale.

    details: of the tensor, as an interpreter gives them. Raises ValueError for numbers that its integers do not hold, and for whole
    ones where they have a scale.
    """
    import numpy as np

    if not np.issubdtype(details["dtype"], np.integer):
        return x.astype(details["dtype"], copy=False)
    scale, zero_point = details["quantization"]
    limits, whole = np.iinfo(details["dtype"]), x.dtype.kind in "iub"
    if scale and whole:
        raise ValueError(f"{limits.dtype} with a scale, which real numbers are rounded by: give float samples")
    if not scale:  # whole numbers that stand for themselves, such as tokens
        if not whole and (x != np.round(x)).any():
            raise ValueError(f"{limits.dtype} without a scale, the samples are {x.dtype}: give whole numbers")
        if x.size and not limits.min <= x.min() <= x.max() <= limits.max:
            raise ValueError(
                f"{limits.dtype}, which holds {limits.min} to {limits.max}: the samples go from {x.min()} to {x.max()}"
            )
        return x.astype(details["dtype"], copy=False)
    return np.clip(np.round(x / scale) + zero_point, limits.min, limits.max).astype(details["dtype"])


def real_numbers(stored, details):
    """The inverse of `as_stored`, float32."""
    if stored.dtype.kind not in "iu":
        return stored
    scale, zero_point = details["quantization"]
    if not scale:
        return stored
    return ((stored.astype("float32") - zero_point) * scale).astype("float32")


class _Timed:
    """One loaded model that can be timed again and again."""

    def __init__(self, interpreter, samples):
        self.interpreter = interpreter
        put(interpreter, samples)
        self.repeats = 1
        warm_up = time.perf_counter() + 20 * SAMPLE_SECONDS
        while time.perf_counter() < warm_up:
            interpreter.invoke()
        self.repeats = max(1, round(SAMPLE_SECONDS / self.seconds()))

    def seconds(self):
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.interpreter.invoke()
        return (time.perf_counter() - start) / self.repeats


def opened(model, threads, **options):
    """An interpreter without its tensors, which still tells its inputs and outputs. model: path, or bytes."""
    from ai_edge_litert.interpreter import Interpreter

    source = "model_content" if isinstance(model, bytes) else "model_path"
    return Interpreter(**{source: model}, num_threads=threads, **options)


def load(model, threads, batch=None, samples=None, **options):
    """An interpreter with its tensors allocated. model: path, or bytes. batch: samples at once. samples: as `fed` takes them;
    open sizes become theirs, and one at a time is to be run unless batch says more."""
    runner = opened(model, threads, **options)
    shapes = [(batch or 1, *each.shape[1:]) for each in fed(declared(runner)[0], samples)] if samples else None
    for place, details in enumerate(runner.get_input_details()):
        wanted = list(shapes[place]) if shapes else [batch, *details["shape"][1:]] if batch else None
        if wanted and wanted != details["shape"].tolist():
            runner.resize_tensor_input(details["index"], wanted)
    runner.allocate_tensors()
    return runner


def put(runner, samples=None):
    """Put the first sample into the inputs of an interpreter; zeros without samples."""
    import numpy as np

    details = runner.get_input_details()
    if samples is None:
        arrays = [np.zeros(each["shape"], each["dtype"]) for each in details]
    else:
        arrays = [as_stored(array[:1], each) for array, each in zip(fed(declared(runner)[0], samples), details)]
    for each, array in zip(details, arrays):
        runner.set_tensor(each["index"], array)


def declared(runner):
    """What a file says of its inputs and of its outputs, two lists of plain values, by the names of its signature, if any; no two
    names in a list are the same. scale is None where there is none that can be used."""
    signed, signatures = ({}, {}), list(runner.get_signature_list())
    if len(signatures) == 1:
        only = runner.get_signature_runner(signatures[0])
        signed = only.get_input_details(), only.get_output_details()
    found = []
    for details, known in zip((runner.get_input_details(), runner.get_output_details()), signed):
        free, taken = [(name, each["index"]) for name, each in known.items()], []
        for each in details:
            name = next((name for name, index in free if index == each["index"]), None)
            if name is None:
                name = each["name"]
            else:  # a tensor that is put out twice has two names
                free.remove((name, each["index"]))
            name = printable(name, 250)  # short enough for a number behind it
            taken.append(f"{name}_{len(taken)}" if name in taken else name)
        found.append([_declared(each, name) for each, name in zip(details, taken)])
    return found


def _declared(details, name):
    import numpy as np

    scale, zero_point = details["quantization"]
    return {
        "name": name,
        "shape": [int(size) for size in details["shape"]],
        "open": [place for place, size in enumerate(details["shape_signature"]) if place and size < 0],
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scale) if math.isfinite(scale) and scale > 0 else None,
        "zero_point": int(zero_point),
    }


def chosen(names, asked=None):
    """The place of the signature that is meant among those of a file. asked: its name, needed where there are several; of an only
    one that is UNNAMED, any will do. Raises ValueError."""
    if len(names) > 1 and asked is None:
        raise ValueError(several(names))
    if asked in names:
        return names.index(asked)
    if asked is None or names in ([], [UNNAMED]):
        return 0
    instead = (
        f"choose one of {listed(names)}"
        if len(names) > 1
        else f"its only one is {listed(names)}, which need not be named"
    )
    raise ValueError(f"it has no signature {printable(asked)}: {instead}")


def several(names):
    """Why a file cannot be used as it is whose signatures, with these names, are not its first graph alone."""
    has = (
        f"it has {len(names)} signatures ({listed(names)}): name one"
        if len(names) > 1
        else "its first graph has no name: say which"
    )
    return f"{has}, as in --signature {shlex.quote(printable(names[0]))}"


def listed(names):
    """Names from a file, in words."""
    return ", ".join(map(printable, names))


def ambiguous(runner):
    """Why it does not follow from a file which of its functions is meant, or None."""
    names = list(runner.get_signature_list())
    # The number of its graph is private, but nothing else tells it.
    single = len(names) < 2 and not any(
        getattr(runner.get_signature_runner(each), "_subgraph_index", 0) for each in names
    )
    return None if single else several(names)


def remembers(runner, model, samples=None):
    """Why a file does not answer each sample by itself, or None: where it assigns variables, which nothing resets, a sample drawn at
    random is run again behind another. (What pruning wraps assigns the same each time.) model, samples: as in `admits_batches`."""
    if not any(each["op_name"] == "ASSIGN_VARIABLE" for each in runner._get_ops_details()):
        return None
    one = load(model, 1, 1, samples)
    sources, targets = one.get_input_details(), one.get_output_details()
    arrays = [as_stored(array, source) for array, source in zip(drawn(declared(one)[0], 2), sources)]
    first, _, again = (answered(one, sources, targets, [each[at : at + 1] for each in arrays]) for at in (0, 1, 0))
    if all((one == other).all() for one, other in zip(first, again)):
        return None
    return "it keeps numbers in a variable from sample to sample: make its state an input and an output of the model, and convert it again"


def unusable(inputs, outputs, samples):
    """Why a file with these inputs and outputs cannot answer these samples, or None."""
    if not outputs:
        return "it has no output"
    for each in outputs:
        if not each["dtype"].startswith(("float", "int", "uint", "bool")):
            return f"its output {each['name']} is {each['dtype']}: numbers are needed"
    try:
        arrays = fed(inputs, samples)
    except ValueError as error:
        return str(error)
    for each, array in zip(inputs, arrays):
        name = "input" if len(inputs) == 1 else f"input {each['name']}"
        shape, given = each["shape"], [1, *array.shape[1:]]
        if len(shape) != len(given) or any(
            side != other and place not in each["open"] for place, (side, other) in enumerate(zip(shape, given))
        ):
            return f"its {name} has shape {tuple(shape)}, one sample has {tuple(given)}"
        whole, integers = array.dtype.kind in "iub", each["dtype"].startswith(("int", "uint"))
        if each["dtype"].startswith("float") and whole:
            return f"its {name} is {each['dtype']}, the samples are {array.dtype}: give them as float32, scaled as the model takes them"
        if integers and not each["scale"] and not whole:
            return f"its {name} is {each['dtype']} without a scale, the samples are {array.dtype}: give whole numbers"
        if integers and each["scale"] and whole:
            return f"its {name} is {each['dtype']} with a scale, which real numbers are rounded by: give float samples"
        if integers and not each["scale"]:
            try:
                as_stored(array, {"dtype": each["dtype"], "quantization": (0, 0)})
            except ValueError as error:
                return f"its {name} is {error}"
        if not integers and each["dtype"] not in ("float32", "float16", "bool"):
            return f"its {name} is {each['dtype']}: float32, or integers, are needed"
    return None


def printable(text, longest=300):
    """Text from a file that nobody vouches for, safe for terminals and XML."""
    return "".join(c if c.isprintable() else "?" for c in text[:longest])
