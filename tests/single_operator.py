"""A `.tflite` of one operator, written by hand: every option can be set, and none needs a converter."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}


def build(kind, options=None, given=(), constants=(), order=None, results=("float32",), **settings):
    """The bytes of a file whose operator `kind` reads the inputs `given` (arrays, of which only shape and dtype matter), then
    the constants (arrays); order: places among these, -1 for an input that is left out, where it is another. options: the
    schema's class for them, with its settings. results: dtypes of the outputs, whose shapes LiteRT finds.
    """
    content, graph = schema.ModelT(), schema.SubGraphT()
    content.version, content.description, content.buffers = 3, b"", [schema.BufferT()]
    graph.tensors, graph.name = [], b"main"

    def tensor(name, dtype, shape, data=None):
        made = schema.TensorT()
        made.name, made.type, made.buffer = name.encode(), TYPES[dtype], 0
        made.shape = np.array(shape, np.int32)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(data).view(np.uint8).ravel()
            content.buffers.append(buffer)
            made.buffer = len(content.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    inputs = [tensor(f"x{n}", str(each.dtype), each.shape) for n, each in enumerate(given)]
    fixed = [tensor(f"c{n}", str(each.dtype), each.shape, each.reshape(-1)) for n, each in enumerate(constants)]
    outputs = [tensor(f"y{n}", dtype, ()) for n, dtype in enumerate(results)]
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 2 if kind == "BROADCAST_TO" else 1
    content.operatorCodes = [code]
    operator = schema.OperatorT()
    known = inputs + fixed
    operator.inputs = known if order is None else [known[place] if place >= 0 else -1 for place in order]
    operator.outputs = outputs
    if options is not None:
        operator.builtinOptions = options()
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options.__name__.removesuffix("T"))
        for name, value in settings.items():
            assert hasattr(operator.builtinOptions, name), name
            setattr(operator.builtinOptions, name, value)
    graph.inputs, graph.outputs, graph.operators = inputs, outputs, [operator]
    content.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
