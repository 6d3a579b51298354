"""What a keyboard's model file may be: one step of a recurrent network in fifteen known operations.

A TFLite interpreter trusts its model: a damaged or hostile file reads and writes wherever it says (tflite-runtime 2.14
crashed on a third of files with a few bytes changed). So a file is let through only if all it can make the
interpreter do is arithmetic within tensors of known shape: offsets within the file, no operation, option, type or
field that our exports lack, constants as large as their shapes, each tensor computed once and before it is used, every
shape as the operations give it, look-ups within their tables whatever the token, bounded memory and work.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from device_runtime.flatbuffer import Table

SIGNATURE = "step"

_IDENTIFIER = b"TFL3"
_MOST = 4096  # tensors, operations, buffers; ours have some hundred
_NAME_BYTES = 1024
_RANK = 4
_MOST_SCALES = 2**17  # of a tensor
_MOST_ELEMENTS = 2**24  # of a tensor
_MOST_WORK = 2**26  # multiplications and elements touched by a step; ours at Gboard's size: 2^22
_ALIGNMENT = 4  # of constants; the schema asks for 16, which the converter does not keep
# int8 kernels stop the process when one scale is 2^19 times another or a product of scales overflows.
_SCALES = (2.0**-40, 2.0**40)
_SCALE_RATIO = 2.0**18

_FLOAT32, _FLOAT16, _INT32, _BOOL, _INT8 = 0, 1, 2, 6, 9  # TensorType
_ITEM_BYTES = {_FLOAT32: 4, _FLOAT16: 2, _INT32: 4, _BOOL: 1, _INT8: 1}
_ACTIVATIONS = (0, 1, 3)  # none, relu, relu6
# Which runtime is wanted, how the file was made, and of float16 models that they may be summed in float32.
_METADATA = (b"min_runtime_version", b"CONVERSION_METADATA")
_FLOAT16_METADATA = (b"reduced_precision_support", b"fp16accfp32")


@dataclass(frozen=True)
class _Tensor:
    """A tensor's type and shape, its values where they are constant, and its int8 scale."""

    kind: int
    shape: tuple[int, ...]
    constant: np.ndarray | None
    scale: float

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def integers(self) -> list[int]:
        """Values of a constant that says how an operation works."""
        if self.constant is None or self.kind != _INT32 or self.elements > 2 * _RANK:
            raise ValueError("an operation's axes, sizes and paddings must be constants")
        return self.constant.tolist()


class _Operation(NamedTuple):
    """What an operation's file entry may hold, and the shapes that it gives.

    `options` are (kind, default) of the fields of its option table, whose type is `options_type`.
    """

    inputs: tuple[int, int]
    infer: Callable[[Sequence[_Tensor], Sequence[int], int], list[tuple[int, ...]]]
    options_type: int = 0
    options: tuple[tuple[str, int], ...] = ()
    activation: int | None = None  # which of the options


def check_step_model(content: bytes) -> None:
    """Refuses a .tflite file unless running it can do no harm and signature `step` covers its inputs and outputs.

    What the tensors mean (which is the token, how wide the state is) is the decoder's to check.

    Raises:
        ValueError: says what is wrong, and at which byte, tensor or operation.
    """
    if content[4:8] != _IDENTIFIER:
        raise ValueError(f"does not begin as a TFLite file, with {_IDENTIFIER.decode()!r}")
    model = Table(content, int.from_bytes(content[:4], "little"))
    if model.scalar(0, "I") != 3:
        raise ValueError("is not of TFLite's schema 3")
    codes = [_read_code(table) for table in model.tables(1, _MOST)]
    graphs = list(model.tables(2, 1))
    model.text(3, _NAME_BYTES)
    buffers = [_read_buffer(table) for table in model.tables(4, _MOST)]
    model.numbers(5, "<i4", _MOST)
    for table in model.tables(6, _MOST):
        name, buffer = table.text(0, _NAME_BYTES), table.scalar(1, "I")
        data = (
            content[buffers[buffer].start : buffers[buffer].stop] if buffer < len(buffers) else b""
        )
        if not data or (name not in _METADATA and (name, data) != _FLOAT16_METADATA):
            raise ValueError("has metadata that is not known")
        table.close()
    signatures = list(model.tables(7, 1))
    model.close()
    if len(graphs) != 1 or len(signatures) != 1:
        raise ValueError("must have one graph and one signature")
    if not buffers or buffers[0]:
        raise ValueError("must begin its buffers with an empty one")
    _check_graph(content, graphs[0], codes, buffers, *_read_signature(signatures[0]))


def _read_code(table: Table) -> int:
    """Which operation; the number has an old, narrow place and a new one."""
    old = table.scalar(0, "b")
    table.scalar(2, "i", 1)  # version: the interpreter refuses those it lacks
    code = max(old, table.scalar(3, "i"))
    table.close()  # a custom operation's name, for one
    if code not in _OPERATIONS:
        raise ValueError(f"has operation {code}, which no keyboard's model needs")
    return code


def _read_buffer(table: Table) -> range:
    data = table.data(0, _ALIGNMENT)
    table.close()
    return data


def _read_signature(table: Table) -> list[dict[str, int]]:
    """Tensors of the signature's inputs and of its outputs, by name."""
    sides: list[dict[str, int]] = []
    for number in (0, 1):
        named: dict[str, int] = {}
        for entry in table.tables(number, _RANK):
            name = entry.text(0, _NAME_BYTES).decode("utf-8", "replace")
            if name in named:
                raise ValueError("the signature names a tensor twice")
            named[name] = entry.scalar(1, "I")
            entry.close()
        sides.append(named)
    key, graph = table.text(2, _NAME_BYTES), table.scalar(4, "I")
    table.close()
    if key != SIGNATURE.encode() or graph != 0:
        raise ValueError(f"has no signature {SIGNATURE!r}")
    return sides


def _check_graph(
    content: bytes,
    graph: Table,
    codes: Sequence[int],
    buffers: Sequence[range],
    named_inputs: Mapping[str, int],
    named_outputs: Mapping[str, int],
) -> None:
    """Follows the graph as it will be run."""
    tensors: list[_Tensor] = []
    for number, table in enumerate(graph.tables(0, _MOST)):
        try:
            tensors.append(_read_tensor(content, table, buffers))
        except ValueError as error:
            raise ValueError(f"tensor {number}: {error}") from None
    inputs, outputs = (graph.numbers(number, "<i4", _RANK).tolist() for number in (1, 2))
    if [sorted(inputs), sorted(outputs)] != [
        sorted(named.values()) for named in (named_inputs, named_outputs)
    ]:
        raise ValueError("the signature's inputs and outputs are not the graph's")
    for index in (*inputs, *outputs):
        _require_tensor(index, tensors)
    known = [tensor.constant is not None for tensor in tensors]
    for index in inputs:
        if known[index]:
            raise ValueError(f"tensor {index}: is an input, and constant or listed twice")
        known[index] = True
    if "token" not in named_inputs or "logits" not in named_outputs:
        raise ValueError("the signature must take a token and give logits")
    pieces = (1, *tensors[named_outputs["logits"]].shape)[-1]  # the decoder takes no others
    ranges = {named_inputs["token"]: (0, pieces - 1)}
    work = 0
    for number, table in enumerate(graph.tables(3, _MOST)):
        try:
            work += _check_operation(table, codes, tensors, known, ranges)
        except ValueError as error:
            raise ValueError(f"operation {number}: {error}") from None
    graph.text(4, _NAME_BYTES)
    graph.close()
    if work > _MOST_WORK:
        raise ValueError(f"takes {work} operations a step, more than the {_MOST_WORK} allowed")
    for index in outputs:
        if not known[index] or tensors[index].constant is not None:
            raise ValueError(f"tensor {index}: is an output, and not computed")


def _read_tensor(content: bytes, table: Table, buffers: Sequence[range]) -> _Tensor:
    shape = tuple(table.numbers(0, "<i4", _RANK).tolist())
    kind, buffer = table.scalar(1, "b"), table.scalar(2, "I")
    table.text(3, _NAME_BYTES)
    quantization, is_variable = table.table(4), table.scalar(5, "?")
    static = tuple(table.numbers(7, "<i4", _RANK).tolist())
    table.scalar(8, "?")
    table.close()  # sparse and variant tensors, for two
    if kind not in _ITEM_BYTES or is_variable:
        raise ValueError(f"is variable or of type {kind}, which no keyboard's model needs")
    if any(n < 1 for n in shape) or math.prod(shape) > _MOST_ELEMENTS or static not in ((), shape):
        raise ValueError(f"shape {shape} is empty, too large or not fixed")
    if buffer >= len(buffers):
        raise ValueError(f"lies in buffer {buffer} of {len(buffers)}")
    constant, where = None, buffers[buffer]
    if where:
        if len(where) != math.prod(shape) * _ITEM_BYTES[kind]:
            raise ValueError(f"{len(where)} bytes are not its {math.prod(shape)} values")
        dtype = "<i4" if kind == _INT32 else "u1"  # nobody reads the others' values here
        constant = np.frombuffer(content, dtype, len(where) // np.dtype(dtype).itemsize, where[0])
    scale = _read_scale(quantization, shape) if quantization is not None else 0.0
    if kind == _INT8 and not scale:
        raise ValueError("is int8 without a scale")
    if kind not in (_INT8, _INT32) and scale:  # int32 are the biases of int8 products
        raise ValueError("has a scale and is no integer")
    return _Tensor(kind, shape, constant, scale)


def _read_scale(table: Table, shape: tuple[int, ...]) -> float:
    """The largest scale; 0 where there is none."""
    most = min(max((*shape, 1)), _MOST_SCALES)
    for number in (0, 1):
        table.numbers(number, "<f4", most)
    scales, zeros = table.numbers(2, "<f4", most), table.numbers(3, "<i8", most)
    axis = table.scalar(6, "i")
    table.scalar(4, "B")  # type of the next, which is absent
    table.close()
    if not len(scales):
        if len(zeros):
            raise ValueError("has a zero point and no scale")
        return 0.0
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise ValueError(f"has {len(scales)} scales along axis {axis} of {shape}")
    low, high = _SCALES
    if len(zeros) != len(scales) or not ((low <= scales) & (scales <= high)).all():
        raise ValueError("has a scale that is out of range, or no zero point for it")
    if not ((zeros >= -128) & (zeros <= 127)).all():
        raise ValueError("has a zero point outside int8")
    return float(scales.max())


def _check_operation(
    table: Table,
    codes: Sequence[int],
    tensors: Sequence[_Tensor],
    known: list[bool],
    ranges: dict[int, tuple[int, int]],
) -> int:
    """Follows one operation: what it computes is known from here on. Returns its work."""
    index = table.scalar(0, "I")
    if index >= len(codes):
        raise ValueError(f"of kind {index} of {len(codes)}")
    code = codes[index]
    operation = _OPERATIONS[code]
    inputs, outputs = (table.numbers(number, "<i4", _MOST).tolist() for number in (1, 2))
    options_type, options_table = table.scalar(3, "B"), table.table(4)
    table.scalar(6, "b")  # format of custom options, which are absent
    table.close()
    options = [default for _, default in operation.options]
    if options_table is not None:
        if options_type != operation.options_type:
            raise ValueError(f"its options are of type {options_type}")
        options = [
            options_table.scalar(number, kind, default)
            for number, (kind, default) in enumerate(operation.options)
        ]
        options_table.close()
    elif options_type not in (0, operation.options_type):
        raise ValueError(f"its options are of type {options_type}")
    if operation.activation is not None and options[operation.activation] not in _ACTIVATIONS:
        raise ValueError(f"activation {options[operation.activation]} is not known")
    if code == _FULLY_CONNECTED and inputs[2:] == [-1]:
        inputs = inputs[:2]
    fewest, most = operation.inputs
    if not fewest <= len(inputs) <= most or not outputs:
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs")
    for i in inputs:
        _require_tensor(i, tensors)
        if not known[i]:
            raise ValueError(f"tensor {i} is not computed before it is used")
    for i in outputs:
        _require_tensor(i, tensors)
        if known[i]:
            raise ValueError(f"tensor {i} is computed twice, an input or constant")
        known[i] = True
    taken, given = [tensors[i] for i in inputs], [tensors[i] for i in outputs]
    _check_types(code, taken, given)
    _check_lookups(code, inputs, outputs, tensors, ranges)
    shapes = operation.infer(taken, options, len(given))
    if shapes != [tensor.shape for tensor in given]:
        raise ValueError(f"its outputs have the shapes {shapes}, the file says otherwise")
    work = sum(tensor.elements for tensor in (*taken, *given))
    return work + (given[0].shape[0] * taken[1].elements if code == _FULLY_CONNECTED else 0)


def _require_tensor(index: int, tensors: Sequence[_Tensor]) -> None:
    if not 0 <= index < len(tensors):
        raise ValueError(f"tensor {index} of {len(tensors)}")


def _check_types(code: int, taken: Sequence[_Tensor], given: Sequence[_Tensor]) -> None:
    """int32 are tokens and what says how to compute, bool is what a token was compared to."""
    kinds = {tensor.kind for tensor in given}
    allowed = {_LESS: (_BOOL,)} | dict.fromkeys(_ON_TOKENS, (_FLOAT32, _INT8, _INT32))
    if len(kinds) != 1 or not kinds.issubset(allowed.get(code, (_FLOAT32, _INT8))):
        raise ValueError(f"its outputs are of types {sorted(kinds)}")
    if (_BOOL in {tensor.kind for tensor in taken}) != (code == _CAST):
        raise ValueError("bool may be cast to float, and nothing else")
    scales = [tensor.scale for tensor in (*taken, *given) if tensor.kind == _INT8]
    if scales and max(scales) > _SCALE_RATIO * min(scales):
        raise ValueError("its int8 scales are too far apart")


def _check_lookups(
    code: int,
    inputs: Sequence[int],
    outputs: Sequence[int],
    tensors: Sequence[_Tensor],
    ranges: dict[int, tuple[int, int]],
) -> None:
    """Keeps book of what an int32 can be, and refuses what could look outside a table."""
    if code in _ON_TOKENS and tensors[outputs[0]].kind == _INT32:
        if inputs[0] not in ranges or len(tensors[inputs[1]].integers()) != 1:
            raise ValueError("arithmetic of int32 is of a token and a constant")
        (constant,) = tensors[inputs[1]].integers()
        low, high = (_ON_TOKENS[code](end, constant) for end in ranges[inputs[0]])
        if max(-low, high) > _MOST_ELEMENTS:  # no table is so large, and int32 would overflow
            raise ValueError(f"arithmetic of int32 gives {low} to {high}")
        ranges[outputs[0]] = low, high
    if code == _GATHER:
        table, place = tensors[inputs[0]], inputs[1]
        if place in ranges and table.shape:
            low, high = ranges[place]
        elif table.shape and tensors[place].kind == _INT32 and len(tensors[place].shape) == 1:
            low, high = min(tensors[place].integers()), max(tensors[place].integers())
        else:
            raise ValueError("looks up what is no token")
        if low < 0 or high >= table.shape[0]:
            raise ValueError(f"looks up {low} to {high} in a table of {table.shape[0]}")


def _same(taken: Sequence[_Tensor], _: Sequence[int], __: int) -> list[tuple[int, ...]]:
    return [taken[0].shape]


def _broadcast(taken: Sequence[_Tensor], _: Sequence[int], __: int) -> list[tuple[int, ...]]:
    return [tuple(np.broadcast_shapes(taken[0].shape, taken[1].shape))]


def _fully_connect(
    taken: Sequence[_Tensor], options: Sequence[int], _: int
) -> list[tuple[int, ...]]:
    (rows, width), (units, weights_width) = taken[0].shape, taken[1].shape
    if width != weights_width or options[1] != 0:  # weights in a shuffled layout
        raise ValueError("its weights do not fit its input")
    if any(bias.shape != (units,) for bias in taken[2:]):
        raise ValueError("its bias does not fit its weights")
    return [(rows, units)]


def _gather(taken: Sequence[_Tensor], options: Sequence[int], _: int) -> list[tuple[int, ...]]:
    if any(options):
        raise ValueError("gathers along another axis than the first")
    return [taken[1].shape + taken[0].shape[1:]]


def _concatenate(taken: Sequence[_Tensor], options: Sequence[int], _: int) -> list[tuple[int, ...]]:
    shapes, axis = [list(tensor.shape) for tensor in taken], options[0]
    _require_axis(axis, shapes[0])
    for shape in shapes[1:]:
        if len(shape) != len(shapes[0]):
            raise ValueError("its inputs are of different rank")
        shapes[0][axis] += shape[axis]
        if shape[:axis] + shape[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :]:
            raise ValueError("its inputs do not fit together")
    return [tuple(shapes[0])]


def _split(taken: Sequence[_Tensor], options: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    axes, shape = taken[0].integers(), list(taken[1].shape)
    if len(axes) != 1 or options[0] != parts:
        raise ValueError(f"splits into {options[0]} parts, and has {parts}")
    axis = axes[0] + len(shape) if axes[0] < 0 else axes[0]
    _require_axis(axis, shape)
    if shape[axis] % parts:
        raise ValueError(f"{shape[axis]} cannot be split into {parts} parts")
    shape[axis] //= parts
    return [tuple(shape)] * parts


def _require_axis(axis: int, shape: Sequence[int]) -> None:
    if not 0 <= axis < len(shape):
        raise ValueError(f"axis {axis} of {len(shape)}")


# BuiltinOperator and BuiltinOptions of TFLite's schema.
_ADD, _CONCATENATION, _DEQUANTIZE, _FULLY_CONNECTED, _LOGISTIC, _MUL, _TANH = 0, 2, 6, 9, 14, 18, 28
_GATHER, _SUB, _SPLIT, _CAST, _MAXIMUM, _MINIMUM, _LESS, _QUANTIZE = 36, 41, 49, 53, 55, 57, 58, 114

_ON_TOKENS: Mapping[int, Callable[[int, int], int]] = {
    _MINIMUM: min,
    _MAXIMUM: max,
    _SUB: operator.sub,
}
"""What may be done to a token, with a constant."""

_ACTIVATION = (("b", 0),)
_OPERATIONS: Mapping[int, _Operation] = {
    _ADD: _Operation((2, 2), _broadcast, 11, (*_ACTIVATION, ("?", 1)), 0),
    _SUB: _Operation((2, 2), _broadcast, 28, (*_ACTIVATION, ("?", 1)), 0),
    _MUL: _Operation((2, 2), _broadcast, 21, _ACTIVATION, 0),
    _MAXIMUM: _Operation((2, 2), _broadcast, 39),
    _MINIMUM: _Operation((2, 2), _broadcast, 39),
    _LESS: _Operation((2, 2), _broadcast, 41),
    _CAST: _Operation((1, 1), _same, 37, (("b", 0), ("b", 0))),
    _QUANTIZE: _Operation((1, 1), _same, 89),
    _DEQUANTIZE: _Operation((1, 1), _same, 38),
    _LOGISTIC: _Operation((1, 1), _same),
    _TANH: _Operation((1, 1), _same),
    _FULLY_CONNECTED: _Operation(
        (2, 3), _fully_connect, 8, (*_ACTIVATION, ("b", 0), ("?", 0), ("?", 0), ("b", 0)), 0
    ),
    _GATHER: _Operation((2, 2), _gather, 23, (("i", 0), ("i", 0))),
    _CONCATENATION: _Operation((1, 64), _concatenate, 10, (("i", 0), *_ACTIVATION), 1),
    _SPLIT: _Operation((2, 2), _split, 35, (("i", 0),)),
}
