"""A `.tflite` written anew so that the tools can take it, computing the very same. Loads no TensorFlow."""

import flatbuffers

from helpers.base import runtime_env
from helpers.tflite import litert

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

SIGNATURE = "serving_default"
IDENTIFIER = b"TFL3"


def with_signature(model):
    """The file itself if it has a signature; otherwise its bytes with one, SIGNATURE, of the main graph's inputs and outputs
    under the names of their tensors. The converter leaves it out for models given as a function.

    Raises what `litert.content` raises, and InputError for a damaged file.
    """
    blob = litert.content(model)
    if litert.has_signature(blob):
        return blob
    with litert.unpacked(blob) as content:
        graph = content.subgraphs[0]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
        signature.inputs, signature.outputs = (_named(graph, ends) for ends in (graph.inputs, graph.outputs))
        content.signatureDefs = [signature]
        return _packed(content, blob)


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


def _packed(content, blob):
    """The bytes of a parsed file; buffers that lay behind the flatbuffer come into it."""
    for buffer in content.buffers:
        if buffer.offset:
            buffer.data, buffer.offset, buffer.size = litert.stored(buffer, blob), 0, 0
    builder = flatbuffers.Builder(len(blob))
    builder.Finish(content.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())
