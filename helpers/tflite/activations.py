"""Activations written so that a factor for each channel can pass, in a float `.tflite`: they compute the same, in more operators.

    ReLU6   a ReLU and a minimum with a cap for each channel
    swish   x * sigmoid(1 * x), with that 1 for each channel, which takes the factor back before the sigmoid

    capped = activations.with_caps(blob)
    plain = activations.with_fused_caps(capped)    # back again, where all caps are still the same

Loads no TensorFlow.
"""

import numpy as np

from helpers.base import runtime_env
from helpers.tflite import flatbuffer, litert, rewrite

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

CAP = 6  # of a ReLU6
_OPTIONS = {"MINIMUM": "MaximumMinimumOptions", "MUL": "MulOptions"}


def with_caps(model):
    """The file with a ReLU and, behind it, a minimum with a constant for each channel, CAP, wherever an operator fuses a ReLU6: what
    lets a factor for each channel pass, and computes the very same. Operators that make an output of the file stay as they are;
    the file itself if none is left. Raises InputError for a damaged file."""
    blob = litert.content(model)
    with flatbuffer.unpacked(blob) as content:
        graph, operators = content.subgraphs[0], []
        for operator in graph.operators:
            operators.append(operator)
            made = graph.tensors[operator.outputs[0]]
            capped = _activation(operator) == schema.ActivationFunctionType.RELU6
            channels = int(made.shape[-1]) if made.shape is not None and len(made.shape) else 0
            if not capped or operator.outputs[0] in graph.outputs or channels < 1:
                continue
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
            uncapped = rewrite.twin(graph, operator.outputs[0], b"_uncapped")
            caps = rewrite.twin(graph, operator.outputs[0], b"_caps")
            tensor = graph.tensors[caps]
            tensor.shape, tensor.shapeSignature = [channels], None
            rewrite.store(content, tensor, np.full(channels, CAP, np.float32))
            operators.append(_operator(content, "MINIMUM", [uncapped, caps], list(operator.outputs)))
            operator.outputs = [uncapped]
        if len(operators) == len(graph.operators):
            return blob
        graph.operators = operators
        return rewrite.packed(content, blob)


def with_fused_caps(model):
    """The file with a fused ReLU6 for each ReLU and minimum behind it whose constant is CAP for all channels: takes back what
    `with_caps` did, where nothing came of it. Raises InputError for a damaged file."""
    blob = litert.content(model)
    if not _has_minimums(blob):
        return blob
    with flatbuffer.unpacked(blob) as content:
        graph, fused = content.subgraphs[0], []
        makers, readers = _makers(graph), _readers(graph)
        for operator in graph.operators:
            if flatbuffer.operator_name(content, operator) != "MINIMUM":
                continue
            source, caps = map(int, operator.inputs)
            values = flatbuffer.stored(content.buffers[graph.tensors[caps].buffer], blob)
            maker = makers.get(source)
            plain = graph.tensors[caps].type == schema.TensorType.FLOAT32 and len(values) and maker is not None
            if not plain or _activation(maker) != schema.ActivationFunctionType.RELU or len(readers[source]) > 1:
                continue
            if (values.view(np.float32) == CAP).all():
                maker.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU6
                maker.outputs = list(operator.outputs)
                fused.append(operator)
        return _without(fused, content, blob)


def with_gates(model):
    """The file with a product with a constant for each channel, 1, before the sigmoid of every swish: x * sigmoid(x). The file itself if
    it has none. Raises InputError for a damaged file."""
    blob = litert.content(model)
    with flatbuffer.unpacked(blob) as content:
        graph, operators = content.subgraphs[0], []
        readers = _readers(graph)
        for operator in graph.operators:
            source, made = int(operator.inputs[0]) if len(operator.inputs) else -1, int(operator.outputs[0])
            kinds = [each and flatbuffer.operator_name(content, each) for each in readers.get(made, [])]
            shape = graph.tensors[source].shape
            channels = int(shape[-1]) if shape is not None and len(shape) > 1 else 0
            sigmoid = flatbuffer.operator_name(content, operator) == "LOGISTIC" and kinds == ["MUL"] and channels > 0
            if sigmoid and source in readers[made][0].inputs:
                ones, gate = rewrite.twin(graph, source, b"_ones"), rewrite.twin(graph, source, b"_gate")
                graph.tensors[ones].shape, graph.tensors[ones].shapeSignature = [channels], None
                rewrite.store(content, graph.tensors[ones], np.ones(channels, np.float32))
                operators.append(_operator(content, "MUL", [source, ones], [gate]))
                operator.inputs = [gate]
            operators.append(operator)
        if len(operators) == len(graph.operators):
            return blob
        graph.operators = operators
        return rewrite.packed(content, blob)


def without_gates(model):
    """The file without products with 1 before a sigmoid: takes back what `with_gates` did, where nothing came of it. Raises InputError
    for a damaged file."""
    blob = litert.content(model)
    with flatbuffer.unpacked(blob) as content:
        graph, gone = content.subgraphs[0], []
        makers = _makers(graph)
        for operator in graph.operators:
            before = makers.get(int(operator.inputs[0])) if len(operator.inputs) else None
            if flatbuffer.operator_name(content, operator) != "LOGISTIC" or before is None:
                continue
            if flatbuffer.operator_name(content, before) == "MUL" and not _activation(before):
                values = flatbuffer.stored(content.buffers[graph.tensors[before.inputs[1]].buffer], blob)
                if len(values) and (values.view(np.float32) == 1).all():
                    operator.inputs = [before.inputs[0]]
                    gone.append(before)
        return _without(gone, content, blob)


def with_whole_minimums(model):
    """A quantized file in which a minimum with a constant works on integers, where it stood in float32 between two tensors of one
    scale: litert-quantizer has no rule for it, LiteRT has a kernel. Raises InputError for a damaged file."""
    blob = litert.content(model)
    if not _has_minimums(blob):
        return blob
    with flatbuffer.unpacked(blob) as content:
        graph, gone = content.subgraphs[0], []
        makers, readers = _makers(graph), _readers(graph)
        for place, operator in enumerate(graph.operators):
            if (
                flatbuffer.operator_name(content, operator) != "MINIMUM"
                or len(readers.get(operator.outputs[0], [])) != 1
            ):
                continue
            caps, into = graph.tensors[operator.inputs[1]], readers[operator.outputs[0]][0]
            source = makers.get(int(operator.inputs[0]))
            values = flatbuffer.stored(content.buffers[caps.buffer], blob)
            kinds = [each and flatbuffer.operator_name(content, each) for each in (source, into)]
            if kinds != ["DEQUANTIZE", "QUANTIZE"] or not len(values) or caps.type != schema.TensorType.FLOAT32:
                continue
            one, other = (graph.tensors[index] for index in (source.inputs[0], into.outputs[0]))
            if one.type != schema.TensorType.INT8 or _steps(one) is None or _steps(one) != _steps(other):
                continue
            scale, zero = _steps(one)
            whole = np.clip(np.rint(values.view(np.float32) / np.float32(scale)) + zero, -128, 127)
            twin = rewrite.twin(graph, operator.inputs[1], b"_quantized")
            graph.tensors[twin].type, graph.tensors[twin].quantization = one.type, one.quantization
            rewrite.store(content, graph.tensors[twin], whole.astype(np.int8))
            graph.operators[place] = _operator(content, "MINIMUM", [source.inputs[0], twin], list(into.outputs), 2)
            gone += [into] if len(readers[source.outputs[0]]) > 1 else [into, source]
        return _without(gone, content, blob)


def minimums(model):
    """(name of the tensor that it reads, name of the one that it makes) of every minimum with a constant that alone reads it. Raises
    InputError for a damaged file."""
    blob = litert.content(model)
    if not _has_minimums(blob):
        return []
    with flatbuffer.unpacked(blob) as content:
        graph = content.subgraphs[0]
        names, readers = [tensor.name.decode() for tensor in graph.tensors], _readers(graph)
        return [
            (names[operator.inputs[0]], names[operator.outputs[0]])
            for operator in graph.operators
            if flatbuffer.operator_name(content, operator) == "MINIMUM"
            and len(flatbuffer.stored(content.buffers[graph.tensors[operator.inputs[1]].buffer], blob))
            and len(readers[operator.inputs[0]]) == 1
        ]


def _has_minimums(blob):
    """Told from the list of operators alone: unpacking a file takes a while."""
    model = schema.Model.GetRootAs(blob, 0)
    codes = (model.OperatorCodes(place).BuiltinCode() for place in range(model.OperatorCodesLength()))
    return schema.BuiltinOperator.MINIMUM in codes


def _activation(operator):
    """What an operator fuses; None for one that has no such option."""
    return getattr(operator.builtinOptions, "fusedActivationFunction", None)


def _without(gone, content, blob):
    """The file without some operators; the file itself where there are none."""
    if not gone:
        return blob
    graph = content.subgraphs[0]
    graph.operators = [each for each in graph.operators if not any(each is other for other in gone)]
    return rewrite.packed(content, blob)


def _makers(graph):
    return {int(index): operator for operator in graph.operators for index in operator.outputs}


def _readers(graph):
    """Index of a tensor -> operators that read it, and None for an output of the file."""
    found = {}
    for operator in graph.operators:
        for index in operator.inputs:
            found.setdefault(int(index), []).append(operator)
    for index in graph.outputs:
        found.setdefault(int(index), []).append(None)
    return found


def _steps(tensor):
    """(scale, zero point) of a tensor of integers that has one of each; None otherwise."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return None
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


def _operator(content, kind, inputs, outputs, version=1):
    """A new operator; its code is put into the file if it is not there. version: of its kernel, 2 for minimums of integers."""
    number, options = getattr(schema.BuiltinOperator, kind), _OPTIONS[kind]
    known = [(code.builtinCode, code.version) for code in content.operatorCodes]
    if (number, version) not in known:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = version
        content.operatorCodes.append(code)
        known.append((number, version))
    operator = schema.OperatorT()
    operator.opcodeIndex = known.index((number, version))
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    operator.builtinOptions = getattr(schema, f"{options}T")()
    operator.inputs, operator.outputs = inputs, outputs
    return operator
