"""A file of several signatures: each becomes a file of its own, with the answers that it had."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.tflite import flatbuffer, interpreting, litert, measure, packing, rewrite
from tests.several_signatures import PICTURES, VECTORS, converted


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("several") / "saved", "see", "weigh", "double")


def one_by_one(file, name, x):
    """What the file's own signature answers, by the interpreter's runner of signatures."""
    called = litert.Interpreter(model_content=file).get_signature_runner(name)
    [argument] = called.get_input_details()
    found = [called(**{argument: each[None]}) for each in x]
    return {key: np.concatenate([each[key] for each in found]) for key in found[0]}


@pytest.mark.parametrize("name, x, graphs", [("see", PICTURES, 1), ("weigh", VECTORS, 1), ("double", VECTORS, 3)])
def test_each_signature_alone_answers_as_it_did_among_the_others(several, name, x, graphs):
    file = rewrite.one_signature(several, name)
    assert packing.signatures(file) == ([name], True) and len(file) < len(several)
    with flatbuffer.unpacked(file) as content:
        assert len(content.subgraphs) == graphs
    wanted = one_by_one(several, name, x)
    [end] = interpreting.declared(litert.interpreter(file))[0]
    found = litert.run(file, {end["name"]: x}, batch=8)
    assert set(found) == set(wanted)
    for key in wanted:
        np.testing.assert_allclose(found[key], wanted[key], atol=1e-5)


def test_the_order_of_the_signatures_decides_nothing(several, tmp_path):
    other = converted(tmp_path / "saved", "weigh", "double", "see")
    graphs = []
    for file in (several, other):
        with flatbuffer.unpacked(file) as content:
            graphs.append({each.signatureKey.decode(): each.subgraphIndex for each in content.signatureDefs})
    assert all(0 in each.values() and len(set(each.values())) == 3 for each in graphs)
    for name, x in (("see", PICTURES), ("weigh", VECTORS)):
        one, two = (litert.run(rewrite.one_signature(file, name), {"x": x}) for file in (several, other))
        assert set(one) == set(two)
        for key in one:
            np.testing.assert_allclose(one[key], two[key], atol=1e-6)


def test_a_file_of_one_signature_or_none_stays_as_it_is(tmp_path):
    named = converted(tmp_path / "saved", "weigh")
    assert rewrite.one_signature(named) is named and rewrite.one_signature(named, "weigh") is named
    with pytest.raises(
        InputError, match=r"^model: it has no signature see: its only one is weigh, which need not be named\.$"
    ):
        rewrite.one_signature(named, "see")
    with flatbuffer.unpacked(named) as content:
        content.signatureDefs = None
        bare = packing.packed(content, named)
    usual = rewrite.with_signature(bare)
    for file in (bare, usual, usual[:99], b"", b"nonsense"):  # of what names nothing any name will do
        assert rewrite.one_signature(file) is file and rewrite.one_signature(file, "see") is file


def test_without_a_name_or_by_a_wrong_one_it_is_refused_and_the_cure_works(several):
    told = r"^it: it has 3 signatures \((\w+), (\w+), (\w+)\): name one, as in --signature (\w+)\.$"
    with pytest.raises(InputError, match=told) as refused:
        rewrite.one_signature(several, None, "it")
    cure = str(refused.value).rstrip(".").split()[-1]
    assert interpreting.declared(litert.interpreter(rewrite.one_signature(several, cure)))[0]
    with pytest.raises(InputError, match=r"^model: it has no signature all: choose one of \w+, \w+, \w+\.$"):
        rewrite.one_signature(several, "all")


def test_a_signature_of_another_graph_than_the_first_is_not_taken_for_the_first(several):
    with flatbuffer.unpacked(several) as content:
        [last] = [each for each in content.signatureDefs if each.signatureKey == b"weigh"]
        assert last.subgraphIndex > 0
        content.signatureDefs = [last]
        file = packing.packed(content, several)
    with pytest.raises(InputError, match=r"its first graph has no name: say which, as in --signature weigh\."):
        litert.interpreter(file)
    wanted = one_by_one(several, "weigh", VECTORS)
    for asked in (None, "weigh"):
        found = litert.run(rewrite.one_signature(file, asked), {"numbers": VECTORS})
        np.testing.assert_allclose(found["wide"], wanted["wide"], atol=1e-5)


def test_what_looks_into_a_file_takes_none_of_several_quietly(several):
    for look in (litert.tensors, litert.operators, litert.weight_layers, litert.kernels, measure.random_samples):
        with pytest.raises(InputError, match=r"has 3 signatures \(.*\): name one, as in --signature "):
            look(several)
    with pytest.raises(InputError, match=r"has 3 signatures"):
        litert.run(several, {"numbers": VECTORS})


def test_files_of_several_are_measured_by_the_one_that_is_named(several):
    models = {"several": several, "one": rewrite.one_signature(several, "see")}
    with pytest.raises(InputError, match=r"^several: it has 3 signatures"):
        measure.report(models, "several", rounds=6)
    frame, _ = measure.report(models, "several", PICTURES, rounds=6, signature="see")
    assert list(frame["size"]) == [len(several), len(models["one"])] and (frame["milliseconds"] > 0).all()
