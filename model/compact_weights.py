"""Stores matrices of a TFLite file in fewer bytes, and has the interpreter restore them when it loads the file.

The file's own operator for that is DEQUANTIZE, which runs once on a constant; XNNPACK then multiplies in float32. The
converter writes it for float16 only and for whole files only, so int8 for some rows has to be put in afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

_TYPES = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
}
_PER_ROW_VERSION = 5  # of DEQUANTIZE: the first with a scale for each row; knows float16 as well


@dataclass(frozen=True, eq=False)
class CompactMatrix:
    """How a float32 matrix [N, M] of the file is stored.

    Attributes:
        matrix: as it is in the file.
        stored: int8 or float16 [N, M].
        scale: float32 [N] for int8; None for float16.
    """

    matrix: np.ndarray
    stored: np.ndarray
    scale: np.ndarray | None = None


def compact(model: bytes, matrices: Sequence[CompactMatrix]) -> bytes:
    """The TFLite file of one subgraph with these matrices stored as they say.

    Raises:
        ValueError: the file does not hold a matrix, or holds it twice.
    """
    file = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    (graph,) = file.subgraphs
    code = len(file.operatorCodes)
    file.operatorCodes.append(_dequantize_code())
    restoring = []
    for compact_matrix in matrices:
        index = _find(file, graph, compact_matrix.matrix)
        restored = graph.tensors[index]
        stored = schema.TensorT()
        stored.name, stored.shape = restored.name + b"/stored", restored.shape
        stored.type = _TYPES[compact_matrix.stored.dtype]
        stored.buffer, restored.buffer = restored.buffer, 0  # 0 is the empty buffer
        content = compact_matrix.stored.tobytes()
        file.buffers[stored.buffer].data = np.frombuffer(content, np.uint8)
        if compact_matrix.scale is not None:
            stored.quantization = schema.QuantizationParametersT()
            stored.quantization.scale = compact_matrix.scale
            stored.quantization.zeroPoint = np.zeros(len(compact_matrix.scale), np.int64)
            stored.quantization.quantizedDimension = 0
        graph.tensors.append(stored)
        operator = schema.OperatorT()
        operator.opcodeIndex = code
        operator.inputs, operator.outputs = [len(graph.tensors) - 1], [index]
        operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = schema.DequantizeOptionsT()
        restoring.append(operator)
    graph.operators[:0] = restoring
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file))


def _dequantize_code() -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = _PER_ROW_VERSION
    return code


def _find(file: Any, graph: Any, matrix: np.ndarray) -> int:
    """Index of the one constant tensor that holds the matrix."""
    content = matrix.astype(np.float32).tobytes()
    found = []
    for index, tensor in enumerate(graph.tensors):
        data = file.buffers[tensor.buffer].data
        if data is not None and len(data) == len(content) and bytes(data) == content:
            found.append(index)
    if len(found) != 1:
        raise ValueError(f"matrix {list(matrix.shape)}: in {len(found)} tensors of the file, not 1")
    return found[0]
