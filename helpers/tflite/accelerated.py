"""A `.tflite` on LiteRT's GPU accelerator, as much of an interpreter as `runner` uses; and the adapters that Vulkan finds.

Needs Python, numpy and ai_edge_litert, nothing else of the lab.
"""

import ctypes
import math

from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.options import GpuOptions, Options

# VkPhysicalDeviceType, and where a name lies in VkPhysicalDeviceProperties (Vulkan 1.0, sections 5.1 and 3.3).
KINDS = ("other", "integrated", "discrete", "virtual", "software")
_SIZE, _KIND, _NAME = 2048, 16, 20


class Accelerated:
    """One sample at a time. What the file declares is asked of a plain interpreter.

    Raises ValueError for a file of several signatures, for one whose sizes are open, and where a part of the graph does not
    run on the accelerator; RuntimeError, of LiteRT, where there is no adapter or it takes none of the graph.
    """

    def __init__(self, file, float32=False):
        """file: path. float32: no arithmetic in float16."""
        self._plain = Interpreter(file, num_threads=1)
        for each in self._plain.get_input_details():
            if (each["shape_signature"][1:] < 0).any():
                raise ValueError(
                    f"the accelerator needs fixed sizes, and {each['name']} has open ones: convert with sizes"
                )
        if len(self._plain.get_signature_list()) > 1:
            raise ValueError("the accelerator runs files of one signature: name the one to run")
        self._model = CompiledModel.from_file(
            file,
            options=Options(hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=float32)),
        )
        if not self._model.is_fully_accelerated():
            raise ValueError("a part of its graph has no kernel on the accelerator")
        self._inputs = self._model.create_input_buffers(0)
        self._outputs = self._model.create_output_buffers(0)
        # Buffers come in the order of the signature, which need not be that of the graph.
        [(name, ends)] = self._model.get_signature_list().items()
        known = self._model.get_input_tensor_details(name), self._model.get_output_tensor_details(name)
        ordered = zip((ends["inputs"], ends["outputs"]), known, strict=True)
        self._places = [{of[each]["index"]: place for place, each in enumerate(names)} for names, of in ordered]
        self._ends = {each["index"]: each for each in self._plain.get_output_details()}

    def get_signature_list(self):
        return self._plain.get_signature_list()

    def get_signature_runner(self, name):
        return self._plain.get_signature_runner(name)

    def get_input_details(self):
        return self._plain.get_input_details()

    def get_output_details(self):
        return self._plain.get_output_details()

    def set_tensor(self, index, array):
        self._inputs[self._places[0][index]].write(array)

    def reset_all_variables(self):
        pass  # a graph that holds any does not run on the accelerator as a whole

    def invoke(self):
        self._model.run_by_index(0, self._inputs, self._outputs)

    def get_tensor(self, index):
        end = self._ends[index]
        flat = self._outputs[self._places[1][index]].read(math.prod(end["shape"].tolist()), end["dtype"])
        return flat.reshape(end["shape"])


def adapters():
    """What Vulkan finds on this machine: a list of [name, one of KINDS]; empty without a loader or a driver."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return []
    # VkInstanceCreateInfo, all zero but its type, 1.
    information = (ctypes.c_uint64 * 8)(1)
    instance, number = ctypes.c_void_p(), ctypes.c_uint32()
    if vulkan.vkCreateInstance(information, None, ctypes.byref(instance)):
        return []
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(number), None)
    devices = (ctypes.c_void_p * number.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(number), devices)
    found = []
    for device in devices:
        properties = ctypes.create_string_buffer(_SIZE)
        vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), properties)
        kind = int.from_bytes(properties.raw[_KIND : _KIND + 4], "little")
        name = properties.raw[_NAME:].split(b"\0", 1)[0].decode("utf-8", "replace")
        found.append([name, KINDS[kind] if kind < len(KINDS) else KINDS[0]])
    vulkan.vkDestroyInstance(instance, None)
    return found
