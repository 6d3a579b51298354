"""What a model file may do: ours pass, and each way to lead the interpreter astray is refused.

The hostile files are well-formed: TensorFlow's own schema code takes our export apart and packs it again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from device_runtime.decoder import Decoder
from device_runtime.step_model import check_step_model

Edit = Callable[[Any], Any]


def repack(content: bytes, edit: Edit) -> bytes:
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    edit(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operations(model: Any, code: int) -> list[Any]:
    """Operations of a kind, by its BuiltinOperator."""
    return [
        operation
        for operation in model.subgraphs[0].operators
        if model.operatorCodes[operation.opcodeIndex].builtinCode == code
    ]


def constant(model: Any, tensor: int) -> Any:
    return model.buffers[model.subgraphs[0].tensors[tensor].buffer]


def put(part: Any, field: str, place: int, value: int) -> None:
    """Changes one number of a vector."""
    numbers = list(getattr(part, field))
    numbers[place] = value
    setattr(part, field, numbers)


def set_integers(model: Any, tensor: int, *values: int) -> None:
    constant(model, tensor).data = np.array(values, "<i4").view(np.uint8)


def test_our_export_is_let_through(model: bytes) -> None:
    check_step_model(model)
    check_step_model(repack(model, lambda model: None))


GATHER, MINIMUM, MAXIMUM, SUB, SPLIT, CONCATENATION = 36, 57, 55, 41, 49, 2
DEQUANTIZE, FULLY_CONNECTED = 6, 9


def graph(model: Any) -> Any:
    return model.subgraphs[0]


def first(model: Any, code: int) -> Any:
    return operations(model, code)[0]


def shift(model: Any, operation: Any, by: int) -> None:
    """Adds to the constant that an operation takes second."""
    tensor = int(operation.inputs[1])
    (value,) = np.array(constant(model, tensor).data, np.uint8).view("<i4")
    set_integers(model, tensor, int(value) + by)


def token_difference(model: Any) -> Any:
    """The subtraction whose result is looked up where it is positive."""
    (found,) = (
        operation
        for operation in operations(model, SUB)
        if operation.outputs[0] == first(model, MAXIMUM).inputs[0]
    )
    return found


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        # Indices that lead outside.
        (lambda m: setattr(first(m, GATHER), "inputs", [9999, 0]), "tensor 9999"),
        (lambda m: setattr(first(m, GATHER), "inputs", [-1, 0]), "tensor -1"),
        (lambda m: setattr(first(m, GATHER), "outputs", [9999]), "tensor 9999"),
        (lambda m: setattr(first(m, GATHER), "opcodeIndex", 99), "of kind 99"),
        (lambda m: setattr(graph(m).tensors[5], "buffer", 9999), "buffer 9999"),
        (lambda m: setattr(m.metadata[0], "buffer", 9999), "metadata"),
        (lambda m: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 9999), "signature"),
        (lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 1), "signature"),
        (lambda m: put(graph(m), "inputs", 0, 9999), "signature"),
        # Writing where nobody should: constants, inputs, twice.
        (lambda m: setattr(first(m, MINIMUM), "outputs", [3]), "tensor 3 is computed twice"),
        (lambda m: setattr(first(m, MINIMUM), "outputs", [1]), "tensor 1 is computed twice"),
        (lambda m: graph(m).operators.append(graph(m).operators[0]), "computed twice"),
        (lambda m: graph(m).operators.reverse(), "before it is used"),
        (lambda m: graph(m).operators.pop(), "is an output, and not computed"),
        # Look-ups beyond the table, for some token: one entry fewer, one further on.
        (lambda m: shift(m, first(m, MINIMUM), 1), "looks up 0 to"),
        (lambda m: set_integers(m, int(first(m, MINIMUM).inputs[1]), -1), "looks up -1"),
        (lambda m: set_integers(m, int(first(m, MAXIMUM).inputs[1]), 1), "looks up 1 to 1"),
        (lambda m: set_integers(m, int(first(m, MAXIMUM).inputs[1]), -1), "looks up -"),
        (lambda m: shift(m, token_difference(m), -1), "looks up 0 to 1 in a table of 1"),
        (lambda m: set_integers(m, int(token_difference(m).inputs[1]), -(2**31)), "of int32 gives"),
        # Shapes that are not what is computed, constants that are not as large as their shape.
        (lambda m: put(graph(m).tensors[29], "shape", 1, 9), "the file says otherwise"),
        (lambda m: put(graph(m).tensors[29], "shape", 1, -1), "shape"),
        (lambda m: put(graph(m).tensors[29], "shape", 1, 0), "shape"),
        (lambda m: put(graph(m).tensors[29], "shape", 1, 2**31 - 1), "shape"),
        (
            lambda m: put(graph(m).tensors[first(m, DEQUANTIZE).inputs[0]], "shape", 0, 37),
            "bytes are not its",
        ),
        (lambda m: setattr(graph(m).tensors[3], "type", 9), "bytes are not its"),
        (lambda m: setattr(graph(m).tensors[29], "type", 5), "of type 5"),
        (lambda m: setattr(graph(m).tensors[29], "isVariable", True), "variable"),
        (lambda m: set_integers(m, int(first(m, SPLIT).inputs[0]), 7), "axis 7"),
        (lambda m: setattr(first(m, SPLIT).builtinOptions, "numSplits", 0), "splits into 0"),
        (lambda m: setattr(first(m, CONCATENATION).builtinOptions, "axis", 2), "axis 2"),
        (lambda m: setattr(first(m, GATHER).builtinOptions, "batchDims", 1), "gathers"),
        (
            lambda m: setattr(first(m, FULLY_CONNECTED).builtinOptions, "weightsFormat", 1),
            "weights",
        ),
        (
            lambda m: setattr(
                first(m, FULLY_CONNECTED).builtinOptions, "fusedActivationFunction", 99
            ),
            "activation 99",
        ),
        # What no keyboard's model needs.
        (lambda m: setattr(m.operatorCodes[0], "builtinCode", 119), "operation 119"),  # WHILE
        (
            lambda m: vars(m.operatorCodes[0]).update(builtinCode=32, deprecatedBuiltinCode=32),
            "operation 32",  # CUSTOM
        ),
        (lambda m: setattr(m.operatorCodes[0], "customCode", b"FlexPyFunc"), "not known"),
        (lambda m: setattr(first(m, GATHER), "customOptions", [1, 2, 3]), "not known"),
        (lambda m: m.subgraphs.append(m.subgraphs[0]), "2 entries"),
        (lambda m: setattr(m.buffers[4], "offset", 2**40), "not known"),
        (lambda m: setattr(m, "version", 2), "schema 3"),
        (lambda m: setattr(m.signatureDefs[0], "signatureKey", b"walk"), "'step'"),
        (lambda m: m.signatureDefs.clear(), "one signature"),
    ],
)
def test_what_could_lead_the_interpreter_astray(model: bytes, edit: Edit, said: str) -> None:
    hostile = repack(model, edit)
    with pytest.raises(ValueError, match=said):
        check_step_model(hostile)
    with pytest.raises(ValueError, match="not a TFLite model"):
        Decoder(hostile)


def test_work_and_memory_are_bounded(model: bytes) -> None:
    """A chain of concatenations, each twice as long as the one before."""

    def double(model: Any) -> None:
        import copy

        operation, end = first(model, CONCATENATION), graph(model).operators.pop
        last = end()
        before = int(operation.outputs[0])
        for _ in range(40):
            tensor = copy.deepcopy(graph(model).tensors[before])
            tensor.shape = [1, 2 * tensor.shape[1]]
            graph(model).tensors.append(tensor)
            longer = copy.deepcopy(operation)
            longer.inputs = [before, before]
            before = len(graph(model).tensors) - 1
            longer.outputs = [before]
            graph(model).operators.append(longer)
            if tensor.shape[1] > 2**24:
                break
        graph(model).operators.append(last)

    with pytest.raises(ValueError, match="too large"):
        check_step_model(repack(model, double))


@pytest.mark.parametrize("cut", range(0, 40))
def test_truncated(model: bytes, cut: int) -> None:
    for length in (cut, len(model) * cut // 40, len(model) - 1 - cut):
        with pytest.raises(ValueError, match=r"\w"):
            check_step_model(model[:length])
