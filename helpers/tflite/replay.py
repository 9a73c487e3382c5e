"""Answers of many files that begin as one does: what they have in common runs once. Loads no TensorFlow."""

import math

import numpy as np

from helpers.base import runtime_env
from helpers.tflite import cut, inputs, interpreting, litert

with runtime_env.quiet():
    from ai_edge_litert.interpreter import OpResolverType

KEPT_BYTES = 400_000_000  # of tensors between two operators, for all samples
# To tell what two files have in common takes as long as to run one that writes this much, for all samples.
WORTH_BYTES = 150_000_000
# To write a byte of a tensor anew, in the course of running a file, takes this much of the time of handing one over.
ANEW = 0.3


class Replay:
    """What a file, the base, holds between its operators for some samples: at one place at a time, which moves on with the files
    that are asked for. Ask for those first that differ from the base first.

    place: where, as `cut.Cuttable` counts. base: path or bytes of a `.tflite`. samples: name of an input -> array (n, ...), as
    `litert.run` takes them. admits_batches: whether base and files take batches (of `litert.BATCH`). kept_bytes: how much is
    held, at most. Raises as `litert.run`.
    """

    def __init__(self, base, samples, admits_batches, kept_bytes=KEPT_BYTES):
        self._base, self._samples, self._batched = cut.Cuttable(base), samples, admits_batches
        with runtime_env.quiet():
            opened = interpreting.opened(litert.content(base), 1)
        sources, targets = interpreting.declared(opened)
        self._arrays = inputs.in_order([each["name"] for each in sources], samples)
        self._names, self._number = [each["name"] for each in targets], len(self._arrays[0])
        self._size = interpreting.at_a_time(self._arrays, litert.BATCH) if admits_batches else 1
        self._sources, self._kept_bytes = opened.get_input_details(), kept_bytes
        self.place, self._batches, self._bytes = 0, None, None

    def answers(self, file):
        """What `litert.run` returns for a file and these samples, bit for bit, by the base's names of the outputs. file: bytes; its
        inputs and outputs are in the order of the base's."""
        place, twins, begun = self._where(file)
        if place:
            try:
                self._move(place)
                return self._rest(begun, place, twins)
            except (ValueError, RuntimeError):  # a part that cannot be run by itself, or is not exact
                self.place, self._batches = self._base.steps, None
        found = litert.run(file, self._samples, batch=litert.BATCH, admits_batches=self._batched)
        return dict(zip(self._names, found.values(), strict=True))

    def kept_bytes(self):
        """Of the tensors that are held."""
        return sum(array.nbytes for batch in self._batches or [] for array in batch.values())

    def _where(self, file):
        """At which place to begin a file (0 to run the whole), what the base's tensors are called in it, and the file taken apart."""
        if self._written(0, self._base.steps) < WORTH_BYTES:
            return 0, {}, None
        begun = cut.Cuttable(file)
        steps, twins = self._base.common(begun)
        last = min(steps, begun.steps - 1)
        places = [
            place
            for place in sorted(set(self._base.places) & set(begun.places))
            if max(1, self.place) <= place <= last
            and {twins.get(index) for index in self._base.live(place)} >= set(begun.live(place))
            and self._bytes_of(self._base.live(place)) <= self._kept_bytes
        ]
        return min(places, key=lambda place: self._costs(place, last), default=0), twins, begun

    def _costs(self, place, last):
        """Of handing over the tensors at a place, and of computing again what comes from there to where files begin to differ."""
        return self._bytes_of(self._base.live(place)) + ANEW * self._written(place, last)

    def _written(self, first, last):
        return self._bytes_of(index for step in range(first, last) for index in self._base.written(step))

    def _bytes_of(self, tensors):
        """Of some tensors of the base, for all samples."""
        if self._bytes is None:
            self._bytes = self._measured()
        return sum(self._bytes.get(index, math.inf) for index in tensors)

    def _measured(self):
        """Index -> bytes of the tensor for all samples; nothing of a file that cannot tell. Built-in kernels do, a delegate hides what
        is inside it."""
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            with runtime_env.quiet():
                runner = interpreting.opened(self._base.blob, 1, experimental_op_resolver_type=plain)
                _allocate(runner, [(self._size, *array.shape[1:]) for array in self._arrays])
        except (ValueError, RuntimeError):
            return {}
        many = -(-self._number // self._size)
        return {
            each["index"]: many * math.prod(map(int, each["shape"])) * np.dtype(each["dtype"]).itemsize
            for each in runner.get_tensor_details()
        }

    def _move(self, place):
        """Run the base from where it is to a place."""
        if place == self.place:
            return
        if self._batches is None:
            filled = interpreting.filled(self._sources, self._arrays, self._size)
            self._batches = [dict(zip(self._base.inputs, each, strict=True)) for each in filled]
        start, first = self._batches[0], self.place == 0
        run = self._opened_part(start, self.place, place)
        for number, batch in enumerate(self._batches):
            known = batch | run(batch)
            self._batches[number] = {index: known[index] for index in self._base.live(place)}
        self.place = place
        if first:
            self._check(start)

    def _opened_part(self, first, *places):
        return _opened(self._base.part(*places), self._base.taken(*places), self._base.given(*places), first)

    def _check(self, start):
        """Raises RuntimeError where the base, for its first batch, does not answer the same in parts, as kernels might have it
        that depend on what comes before them."""
        here = self._batches[0]
        whole = start | self._opened_part(start, 0)(start)
        parts = start | here | self._opened_part(here, self.place)(here)
        if not all(np.array_equal(whole[index], parts[index], equal_nan=True) for index in self._base.outputs):
            raise RuntimeError("the parts of this file do not answer as the whole does")

    def _rest(self, file, place, twins):
        """The answers of a file from a place on."""
        names = {twins[index]: index for index in self._batches[0]}
        batches = [{twin: batch[index] for twin, index in names.items()} for batch in self._batches]
        run, found = _opened(file.part(place), file.taken(place), file.given(place), batches[0]), []
        for start, batch in zip(range(0, self._number, self._size), batches, strict=True):
            known = batch | run(batch)
            ends = [known[index] for index in file.outputs]
            found.append(interpreting.of_samples(ends, min(self._size, self._number - start), self._size))
        stored = [np.concatenate(each) for each in zip(*found, strict=True)]
        scales = [{"quantization": file.quantization(index)} for index in file.outputs]
        real = [interpreting.real_numbers(*each) for each in zip(stored, scales, strict=True)]
        return dict(zip(self._names, real, strict=True))


def _allocate(runner, shapes):
    for details, shape in zip(runner.get_input_details(), shapes, strict=True):
        if list(details["shape"]) != list(shape):
            runner.resize_tensor_input(details["index"], shape)
    runner.allocate_tensors()


def _opened(part, taken, given, first):
    """A function that runs a part of a file for one batch after another: index of a tensor -> array as stored, for what is taken
    -> the same for what is given. first: the first batch, which tells the shapes."""
    with runtime_env.quiet():
        runner = interpreting.opened(part, runtime_env.LITERT_THREADS)
        _allocate(runner, [first[index].shape for index in taken])
    ends = runner.get_input_details(), runner.get_output_details()

    def run(batch):
        return dict(zip(given, interpreting.answered(runner, *ends, [batch[index] for index in taken]), strict=True))

    return run
