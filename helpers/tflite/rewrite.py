"""A `.tflite` written anew so that the tools can take it, computing the very same. Loads no TensorFlow."""

import functools
import re

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.tflite import flatbuffer, inputs, interpreting, litert, packing

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

SIGNATURE = interpreting.UNNAMED
UNPACKING = ("DEQUANTIZE", "DENSIFY")  # operators that make float32 weights of what a file stores smaller
_NUMBERED = re.compile(r"(?:output|Identity)(?:_(\d+))?")  # what the converter calls the outputs of a function


def one_signature(model, name=None, parameter="model"):
    """The file of one signature of a `.tflite` that may have several: its bytes, or those of the file itself if it has one or
    none.

    name: of the signature; needed where there are several. Raises InputError, which calls the file by `parameter`, where the name
    does not say which one, and what `inputs.content` raises; a damaged file is refused where it is used.
    """
    return flatbuffer.of_signature(inputs.content(model, parameter), name, parameter)


def with_signature(model):
    """The file itself if it has a signature; otherwise its bytes with one, SIGNATURE, of the main graph's inputs and outputs
    under the names of their tensors. The converter leaves it out for models given as a function. Numbers of operators that
    only old converters wrote are written as they are today.

    Raises what `litert.content` raises, and InputError for a damaged file.
    """
    blob = litert.content(model)
    signed = flatbuffer.has_signature(blob)
    if signed and not flatbuffer.has_old_codes(blob):
        return blob
    with flatbuffer.unpacked(blob) as content:
        if signed:
            return packed(content, blob)
        graph = content.subgraphs[0]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
        signature.inputs, signature.outputs = (_named(graph, ends) for ends in (graph.inputs, graph.outputs))
        content.signatureDefs = [signature]
        return packed(content, blob)


def with_output_names(model, names):
    """The bytes of a file with a signature that has these names for its outputs, which the converter only numbers, in an order of its own.

    names: of the outputs of the function that was converted, in its order. The file itself where it has one output, where names
    are missing or the same, or where its outputs have names already. Raises as `with_signature`.
    """
    blob = litert.content(model)
    if len(names) < 2 or len(set(names)) < len(names):
        return blob
    with flatbuffer.unpacked(blob) as content:
        entries = content.signatureDefs[0].outputs
        numbered = [_NUMBERED.fullmatch(entry.name.decode()) for entry in entries]
        places = [int(found[1] or 0) if found else None for found in numbered]
        if sorted(places, key=str) != sorted(range(len(names)), key=str):
            return blob
        for entry, place in zip(entries, places, strict=True):
            entry.name = names[place].encode()
        return packed(content, blob)


def with_sizes(model, shapes, signatures=None):
    """The bytes of a file whose inputs have other sizes: name of an input, as its tensor has it -> shape (1, ...). signatures: the
    same with -1 for sizes that stay open; none does by default. What the file says of the tensors in between is left as it
    is: interpreters find it anew. Raises as `with_signature`."""
    blob = litert.content(model)
    with flatbuffer.unpacked(blob) as content:
        graph = content.subgraphs[0]
        for index in graph.inputs:
            tensor = graph.tensors[index]
            name = tensor.name.decode()
            tensor.shape, tensor.shapeSignature = list(shapes[name]), list(signatures[name]) if signatures else None
        return packed(content, blob)


def with_plain_weights(model):
    """The file with its weights as dense float32 tensors, and the notes that say so: float16 behind a DEQUANTIZE operator is
    widened, which is exact, and a sparse encoding is filled up. The file itself, and no note, if it has neither.

    Integer weights stay: what they were rounded from cannot be had back. Raises InputError for a damaged file.
    """
    blob, notes = litert.content(model), []
    with flatbuffer.unpacked(blob) as content:
        graph = content.subgraphs[0]
        sparse = [tensor for tensor in graph.tensors if tensor.sparsity is not None]
        for tensor in sparse:
            values = flatbuffer.stored(content.buffers[tensor.buffer], blob).view(_numpy_type(tensor))
            store(content, tensor, _filled(tensor, values))
            tensor.sparsity = None
        if sparse:
            notes.append(f"Sparse weights ({len(sparse)} tensors) were filled up with their zeros.")
        kept, widened = [], 0
        for operator in graph.operators:
            source = graph.tensors[operator.inputs[0]] if len(operator.inputs) else None
            data = None if source is None else flatbuffer.stored(content.buffers[source.buffer], blob)
            unpacking = flatbuffer.operator_name(content, operator) in UNPACKING and data is not None and len(data)
            if unpacking and source.type in (schema.TensorType.FLOAT16, schema.TensorType.FLOAT32):
                target = graph.tensors[operator.outputs[0]]
                values = data.view(_numpy_type(source)).astype(_numpy_type(target))
                target.quantization = None
                store(content, target, values)
                widened += source.type != target.type
            else:
                kept.append(operator)
        if widened:
            notes.append(f"float16 weights ({widened} tensors) became float32, which is exact.")
        if not sparse and len(kept) == len(graph.operators):
            return blob, []
        graph.operators = kept
        return packed(content, blob), notes


def with_constants(model, constants):
    """The file with other values in some constant tensors of its main graph: index of the tensor -> array of its dtype and
    shape. Raises InputError where one does not fit."""
    blob = litert.content(model)
    with flatbuffer.unpacked(blob) as content:
        return _with_values(content, constants, blob)


def with_operands(model, operands):
    """The file with other values in constants that operators of its main graph read: (number of the operator, place among its
    inputs) -> array of the constant's dtype and shape. A constant that others read as it was, or with other values, gets a
    twin for each. Raises InputError where one does not fit."""
    blob, fresh, twins = litert.content(model), {}, {}
    with flatbuffer.unpacked(blob) as content:
        graph = content.subgraphs[0]
        readers = {}
        for number, operator in enumerate(graph.operators):
            for place, index in enumerate(operator.inputs):
                readers.setdefault(int(index), []).append((number, place))
        for (number, place), values in operands.items():
            operator, index = graph.operators[number], int(graph.operators[number].inputs[place])
            same = [at for at in readers[index] if at in operands and np.array_equal(operands[at], values)]
            if len(same) == len(readers[index]):
                fresh[index] = values
                continue
            known = (index, values.tobytes())
            if known not in twins:
                twins[known] = twin(graph, index, f"_twin_{len(graph.tensors)}".encode())
                fresh[twins[known]] = values
            operator.inputs = [twins[known] if at == place else each for at, each in enumerate(operator.inputs)]
        return _with_values(content, fresh, blob)


def with_own_constants(model, places):
    """The file in which operators that read the same constant at one of their places, but not the same kernel, each have their own:
    the converter stores equal biases, such as zeros, once. places: operator, such as "CONV_2D" -> (place of its kernel, of its
    bias). The file itself where nothing is shared."""
    blob, first, shared = litert.content(model), {}, False
    with flatbuffer.unpacked(blob) as content:
        graph = content.subgraphs[0]
        for operator in graph.operators:
            kernel, bias = places.get(flatbuffer.operator_name(content, operator), (0, -1))
            if not 0 <= bias < len(operator.inputs) or operator.inputs[bias] < 0:
                continue
            if not len(flatbuffer.stored(content.buffers[graph.tensors[operator.inputs[bias]].buffer], blob)):
                continue  # it is computed
            index, reads = int(operator.inputs[bias]), int(operator.inputs[kernel])
            owners = first.setdefault(index, {reads: index})
            if reads not in owners:
                owners[reads], shared = twin(graph, index, f"_own_{len(owners)}".encode()), True
            operator.inputs = [owners[reads] if at == bias else each for at, each in enumerate(operator.inputs)]
        return packed(content, blob) if shared else blob


def with_outputs_of(made, model):
    """A quantized file whose outputs are those of the float model that it was made of, under their names.

    Where other operators read an output as well, litert-quantizer may make another tensor the output, lose its name, or let an
    operator of integers read real numbers, which no interpreter takes. The file itself where no output is read.
    """
    names, place_of = _read_outputs(litert.content(model))
    if not names:
        return made
    with flatbuffer.unpacked(made) as content:
        graph = content.subgraphs[0]
        index_of = {tensor.name: index for index, tensor in enumerate(graph.tensors)}
        kinds = [flatbuffer.operator_name(content, operator) for operator in graph.operators]
        unpacked = [each for kind, each in zip(kinds, graph.operators, strict=True) if kind == "DEQUANTIZE"]
        whole = {int(each.outputs[0]): int(each.inputs[0]) for each in unpacked}
        real = {integers: number for number, integers in whole.items()}
        for kind, operator in zip(kinds, graph.operators, strict=True):
            if kind != "QUANTIZE" and _holds_real_numbers(graph.tensors[operator.outputs[0]]):
                operator.inputs = [whole.get(int(each), each) for each in operator.inputs]
        ends = [index_of[name] for name in names]
        graph.outputs = [real.get(each, each) for each in ends]  # or the integers, where it gives them on purpose
        for entry in content.signatureDefs[0].outputs:
            entry.tensorIndex = graph.outputs[place_of[entry.name]]
        return packed(content, made)


@functools.lru_cache(maxsize=2)
def _read_outputs(blob):
    """The names of a file's output tensors, and name in the signature -> place among them; both are empty where no operator reads an
    output. Kept, since many files are made of one."""
    with flatbuffer.unpacked(blob) as content:
        graph = content.subgraphs[0]
        if not {int(index) for operator in graph.operators for index in operator.inputs} & set(map(int, graph.outputs)):
            return [], {}
        free, place_of = list(map(int, graph.outputs)), {}
        for entry in content.signatureDefs[0].outputs:
            place_of[entry.name] = free.index(int(entry.tensorIndex))
            free[place_of[entry.name]] = None  # a tensor may be put out under two names
        return [graph.tensors[index].name for index in graph.outputs], place_of


def _holds_real_numbers(tensor):
    """Whether its integers stand for real numbers."""
    scaled = (
        tensor.quantization is not None and tensor.quantization.scale is not None and len(tensor.quantization.scale)
    )
    return tensor.type in (schema.TensorType.INT8, schema.TensorType.INT16) and bool(scaled)


def _with_values(content, constants, blob):
    for index, values in constants.items():
        tensor = content.subgraphs[0].tensors[index]
        if values.shape != tuple(map(int, tensor.shape)) or values.dtype != _numpy_type(tensor):
            raise InputError(
                f"{tensor.name.decode()} cannot hold {values.dtype} of shape {values.shape}: it has another form."
            )
        store(content, tensor, values)
    return packed(content, blob)


def twin(graph, index, suffix):
    """The number of a new tensor, like another one but for its name."""
    tensor = schema.TensorT()
    vars(tensor).update(vars(graph.tensors[index]))
    tensor.name = bytes(tensor.name) + suffix
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def store(content, tensor, values):
    """Give a tensor of an unpacked file other values, in a buffer of its own. values: an array of the tensor's dtype and shape."""
    buffer = schema.BufferT()
    buffer.data = np.ascontiguousarray(values).view(np.uint8).ravel()
    content.buffers.append(buffer)
    tensor.buffer = len(content.buffers) - 1


def _numpy_type(tensor):
    names = {schema.TensorType.FLOAT32: "float32", schema.TensorType.FLOAT16: "float16", schema.TensorType.INT8: "int8"}
    if tensor.type not in names:
        raise InputError(f"tensor {tensor.name.decode()} is a sparse or packed tensor of an unknown kind.")
    return np.dtype(names[tensor.type])


def _filled(tensor, values):
    """A sparse tensor in dense form.

    The schema's encoding is a tree with a level for each dimension in `traversalOrder`: those of the tensor, then those of
    the blocks that the dimensions in `blockMap` are cut into. A level is dense or lists the places that are taken; the
    leaves are the values.
    """
    sparsity, rank = tensor.sparsity, len(tensor.shape)
    blocked = [] if sparsity.blockMap is None else list(sparsity.blockMap)
    entries, places, sizes = np.zeros(1, np.int64), {}, {}
    for dimension, level in zip(sparsity.traversalOrder, sparsity.dimMetadata, strict=True):
        if level.format == schema.DimensionType.DENSE:
            many, sizes[dimension] = np.full(len(entries), level.denseSize), level.denseSize
            first, place = entries * level.denseSize, None
        else:
            segments, place = _indices(level.arraySegments), _indices(level.arrayIndices)
            first, many = segments[entries], np.diff(segments)[entries]
        parent = np.repeat(np.arange(len(entries)), many)
        step = np.arange(len(parent)) - np.repeat(np.cumsum(many) - many, many)
        entries = first[parent] + step
        places = {known: of[parent] for known, of in places.items()}
        places[dimension] = step if place is None else place[entries]
    for number, dimension in enumerate(blocked):
        places[dimension] = places[dimension] * sizes[rank + number] + places[rank + number]
    dense = np.zeros(tensor.shape, values.dtype)
    dense[tuple(places[dimension] for dimension in range(rank))] = values[entries]
    return dense


def _indices(vector):
    return np.asarray(vector.values, np.int64)


def _named(graph, indices):
    """Entries of a signature for some tensors; two of the same name are told apart by their place."""
    entries, seen = [], set()
    for place, index in enumerate(indices):
        entry = schema.TensorMapT()
        name = graph.tensors[index].name
        entry.name = name if name not in seen else name + f"_{place}".encode()
        entry.tensorIndex = index
        seen.add(entry.name)
        entries.append(entry)
    return entries


def packed(content, blob):
    """The bytes of an unpacked file that was read from `blob`, without what no operator reads."""
    for code in content.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for number, graph in enumerate(content.subgraphs):
        _drop_unread(content, number, graph)
    return packing.packed(content, blob)


def _drop_unread(content, number, graph):
    """Take the tensors that no operator reads or writes out of a graph: interpreters give them no memory, and fail on them."""
    read = {index for operator in graph.operators for index in (*operator.inputs, *operator.outputs) if index >= 0}
    read |= set(map(int, graph.inputs)) | set(map(int, graph.outputs))
    kept = [index for index in range(len(graph.tensors)) if index in read]
    place = {-1: -1, **{index: new for new, index in enumerate(kept)}}
    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs, graph.outputs = ([place[int(index)] for index in ends] for ends in (graph.inputs, graph.outputs))
    for operator in graph.operators:
        operator.inputs, operator.outputs = (
            [place[int(index)] for index in ends] for ends in (operator.inputs, operator.outputs)
        )
        operator.intermediates = None  # of quantized recurrent layers, which are not rewritten
    for signature in content.signatureDefs or []:
        if signature.subgraphIndex == number:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = place[entry.tensorIndex]
