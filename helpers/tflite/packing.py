"""The content of a `.tflite` put back into a file; and the file of one of its signatures, where it has several.

Needs Python, numpy, flatbuffers and ai_edge_litert, nothing else of the lab: `runner` loads it in a process of its own, for files that
nobody vouches for.
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"


def stored(buffer, blob):
    """A buffer's bytes, uint8 (n,). Some writers put large ones behind the flatbuffer and leave their place in it."""
    if buffer.offset:
        return np.frombuffer(blob, np.uint8, buffer.size, buffer.offset)
    return np.asarray([] if buffer.data is None else buffer.data, np.uint8)


def packed(content, blob):
    """The bytes of a `schema.ModelT` that was read from `blob`, without buffers that nothing refers to; those that lay behind the
    flatbuffer come into it."""
    used = {tensor.buffer for graph in content.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in content.metadata or []}
    for number, buffer in enumerate(content.buffers):
        if number not in used:
            buffer.data, buffer.offset, buffer.size = None, 0, 0
        elif buffer.offset:
            buffer.data, buffer.offset, buffer.size = stored(buffer, blob), 0, 0
    builder = flatbuffers.Builder(len(blob))
    builder.Finish(content.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def signatures(blob):
    """The names of a file's signatures, in its order, and whether its first graph is the only one with a name, or nothing has one.
    No names, and True, of a file that is too damaged to tell."""
    try:
        model = schema.Model.GetRootAs(blob, 0)
        found = [model.SignatureDefs(place) for place in range(model.SignatureDefsLength())]
        names = [(each.SignatureKey() or b"").decode("utf-8", "replace") for each in found]
        return names, len(found) < 2 and not any(each.SubgraphIndex() for each in found)
    except Exception:  # damage makes the generated reader fail in any way
        return [], True


def alone(blob, place):
    """The bytes of a file with one of its signatures: its graph, which comes first, and the graphs that it calls. place: of
    the signature. Raises whatever a damaged file makes the generated reader raise."""
    content = schema.ModelT.InitFromPackedBuf(blob, 0)
    signature = content.signatureDefs[place]
    reached = [signature.subgraphIndex]
    for number in reached:  # which grows
        found = (index for *_, indices in _calls(content.subgraphs[number]) for index in indices)
        reached += [index for index in dict.fromkeys(found) if index not in reached]
    for number in reached:
        for options, key, indices in _calls(content.subgraphs[number]):
            places = [reached.index(index) for index in indices]
            setattr(options, key, places if np.ndim(getattr(options, key)) else places[0])
    content.subgraphs = [content.subgraphs[number] for number in reached]
    content.signatureDefs, signature.subgraphIndex = [signature], 0
    return packed(content, blob)


def _calls(graph):
    """Where the operators of a graph name other graphs: their options, the field, and the numbers in it."""
    found = []
    for operator in graph.operators or []:
        for options in (operator.builtinOptions, operator.builtinOptions2):
            for key, value in vars(options).items() if options else ():
                if "subgraph" in key.lower() or key == "calledComputations":
                    found.append((options, key, [] if value is None else np.atleast_1d(value).tolist()))
    return [each for each in found if each[2]]
