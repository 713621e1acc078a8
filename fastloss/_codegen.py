"""Writes the elementwise kernels of both backends from ``formulas.py`` and ``primitives.py``.

``python -m fastloss._codegen`` rewrites the generated files, ``--check`` only says whether they are
current. A generated file names the hash of everything it was made from, and a test compares.

Why text is generated: a literal such as ``0.5`` is a double to Cython and to Numba, so a shared
float32 formula would quietly compute in double; the generator gives every literal the type of its
function. The compilers remove what a loop does not store, so each formula is written three times,
storing the loss, loss and gradient, or gradient and Hessian. A parameter that may also be one value per
element (``Loss.third``) makes a second set of loops, a parameter that is a flag a loop for each value.

What is made of parameters and literals alone, such as ``1.0 - quantile``, stands before the loop, computed in double
and rounded once to the loop's type: of a float32 quantile of 0.9999 the difference would have three digits.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastloss import primitives, registry

HERE = Path(__file__).parent
# What a loop stores, in the order of the kernels' mode argument.
MODES = {"loss": ("loss",), "loss_grad": ("loss", "grad"), "grad_hess": ("grad", "hess")}
SUFFIXES = ("f32", "f64")
_EXP_MAX = {"f32": -primitives.EXP_MIN_F32, "f64": -primitives.EXP_MIN_F64}
_LIMITED = ("exp_neg", "drop_neg")  # primitives that are given the largest useful argument
_OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.LShift: "<<", ast.RShift: ">>", ast.BitOr: "|",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_CONSTANTS = {k: v for k, v in vars(primitives).items() if k.isupper()}
_PRIMITIVES = [name for name, f in vars(primitives).items() if inspect.isfunction(f)]


class Writer:
    """Writes one function's statements for a backend in a float type."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.integers: set[str] = set()
        self.names: dict[str, str] = {}  # what is written in a name's place

    def literal(self, value: float) -> str:
        raise NotImplementedError

    def integer(self, text: str) -> str:
        raise NotImplementedError

    def rounded(self, text: str) -> str:
        """A double in the function's type."""
        raise NotImplementedError

    def is_integer(self, node: ast.expr) -> bool:
        """Whether an expression is of the unsigned integer type: it is made of bits()."""
        if isinstance(node, ast.Name):
            return node.id in self.integers
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and node.func.id == "bits"
        return isinstance(node, ast.BinOp) and (self.is_integer(node.left) or self.is_integer(node.right))

    def call(self, name: str) -> str:
        """The backend's name of a function, in the float type at hand."""
        typed = f"{name}_{self.suffix}"
        if name in _PRIMITIVES or typed in _PRIMITIVES:
            return name if name in _PRIMITIVES else typed
        if name in ("fma", "abs", "bits", "from_bits"):
            return typed
        raise SyntaxError(f"no primitive called {name}")

    def expression(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=float(v)):
                return self.literal(v)
            case ast.Constant(value=int(v)):
                return self.integer(hex(v))
            case ast.Name(id=name):
                return self.literal(_CONSTANTS[name]) if name in _CONSTANTS else self.names.get(name, name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f"(-{self.expression(operand)})"
            case ast.BinOp(left=left, op=op, right=right):
                text = f"({self.expression(left)} {_OPERATORS[type(op)]} {self.expression(right)})"
                return self.integer(text) if self.is_integer(node) else text
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"{self.expression(left)} {_OPERATORS[type(op)]} {self.expression(right)}"
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return f"({self.expression(body)} if {self.expression(test)} else {self.expression(orelse)})"
            case ast.Call(func=ast.Name(id=name), args=args):
                limit = ["exp_max_"] if name in _LIMITED else []
                return f"{self.call(name)}({', '.join([*map(self.expression, args), *limit])})"
        raise SyntaxError(f"not in the language of formulas: {ast.unparse(node)}")

    def statements(self, body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    yield f"{name} = {self.expression(value)}"
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.integers.add(name)
                    yield f"{name} = {self.expression(value)}"
                case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Tuple):
                    yield f"return {self.expression(value)}"
                case ast.Expr(value=ast.Constant()) | ast.Return():
                    pass  # a docstring, or the triple that every formula ends with
                case _:
                    raise SyntaxError(f"not in the language of formulas: {ast.unparse(node)}")


class CythonWriter(Writer):
    real = property(lambda self: {"f32": "float", "f64": "double"}[self.suffix])
    unsigned = property(lambda self: {"f32": "uint32_t", "f64": "uint64_t"}[self.suffix])

    def literal(self, value: float) -> str:
        return f"<{self.real}>{value!r}"

    def integer(self, text: str) -> str:
        return f"<{self.unsigned}>{text}"

    def rounded(self, text: str) -> str:
        return f"<{self.real}>({text})"

    def declarations(self, body: list[ast.stmt], indent: str, known: list[str]) -> list[str]:
        names = dict.fromkeys(
            n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        )
        reals = [n for n in names if n not in self.integers and n not in known]
        lines = [f"{indent}cdef {self.real} {', '.join(reals)}"] if reals else []
        if self.integers:
            lines.append(f"{indent}cdef {self.unsigned} {', '.join(sorted(self.integers))}")
        return lines


class NumbaWriter(Writer):
    def literal(self, value: float) -> str:
        return f"{self.suffix}({value!r})"

    def integer(self, text: str) -> str:
        return f"{self.suffix.replace('f', 'u')}({text})"

    def rounded(self, text: str) -> str:
        return f"{self.suffix}({text})"

    def call(self, name: str) -> str:
        # fma, bits and from_bits are intrinsics that know the type of what they are given.
        return name if name in ("fma", "abs", "bits", "from_bits") else super().call(name)


def _function(f) -> ast.FunctionDef:
    node = ast.parse(inspect.getsource(f)).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def _primitives(writer_type: type[Writer]) -> Iterator[str]:
    for name in _PRIMITIVES:
        node = _function(getattr(primitives, name))
        writer = writer_type(name[-3:])
        arguments = [a.arg for a in node.args.args]
        lines = list(writer.statements(node.body))
        doc = ast.get_docstring(node)
        if isinstance(writer, CythonWriter):
            signature = ", ".join(f"{writer.real} {a}" for a in arguments)
            yield f"cdef inline {writer.real} {name}({signature}) noexcept nogil:\n"
            yield "\n".join(writer.declarations(node.body, "    ", arguments)) + "\n"
        else:
            yield f"@inline\ndef {name}({', '.join(arguments)}):\n"
        yield f"    # {doc}\n" + "".join(f"    {line}\n" for line in lines) + "\n\n"


def _outputs(node: ast.FunctionDef) -> dict[str, ast.expr]:
    """Expressions of a formula's results; a fourth one is the derivative by what differs per element."""
    last = node.body[-1]
    if not (isinstance(last, ast.Return) and isinstance(last.value, ast.Tuple) and len(last.value.elts) in (3, 4)):
        raise SyntaxError(f"{node.name} must end with: return loss, grad, hess")
    return dict(zip(("loss", "grad", "hess", "third"), last.value.elts, strict=False))


class _Constants(ast.NodeTransformer):
    """Takes out of a formula what parameters and literals alone make; ``rest(c)`` is what rounding such c has lost."""

    def __init__(self, writer: Writer, double: Writer, places: dict[str, int]) -> None:
        self.writer, self.double = writer, double
        double.names = {name: f"params_[{k}]" for name, k in places.items()}
        self.found: dict[str, str] = {}

    def is_constant(self, node: ast.expr) -> bool:
        match node:
            case ast.Constant() | ast.Name():
                return not isinstance(node, ast.Name) or node.id in self.double.names or node.id in _CONSTANTS
            case ast.UnaryOp(operand=operand):
                return self.is_constant(operand)
            case ast.BinOp(left=left, right=right):
                return self.is_constant(left) and self.is_constant(right)
            case ast.Call(func=ast.Name(id=name), args=args):
                return name not in (*_LIMITED, "rest") and all(map(self.is_constant, args))
        return False

    def visit(self, node: ast.AST) -> Any:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found = self.visit(value)
                self.double.names.pop(name, None)
                if found is not value and self.is_constant(value):
                    self.double.names[name] = self.double.expression(value)
                node.value = found
                return node
            case ast.Call(func=ast.Name(id="rest"), args=[value]):
                return self.name(self.rest(self.double.expression(value)))
            case ast.BinOp() | ast.Call() if self.is_constant(node) and self.has_parameter(node):
                return self.name(self.writer.rounded(self.double.expression(node)))
        return self.generic_visit(node)

    def has_parameter(self, node: ast.expr) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self.double.names for n in ast.walk(node))

    def rest(self, text: str) -> str:
        return self.writer.rounded(f"{text} - {self.writer.rounded(text)}")

    def name(self, text: str) -> ast.Name:
        return ast.Name(self.found.setdefault(text, f"constant_{len(self.found)}_"), ast.Load())


# The loops' own names end in _, so that they cannot meet a formula's.
_STORES = {
    "loss": "losses_[i_] = {}", "grad": "grads_[i_] = {}", "hess": "hessians_[i_] = {}", "third": "hessians_[i_] = {}",
}  # fmt: skip


def _scaled(writer: Writer, output: str) -> str:
    """A derivative times the common factor, a double, which in float32 comes in two parts."""
    if output == "loss":
        return "loss_"
    if writer.suffix == "f64":
        return f"{output}_ * scale_"
    return f"{writer.call('fma')}({output}_, scale_high_, {output}_ * scale_low_)"


def _stage(body: list[ast.stmt]) -> int | None:
    """Index of the assignment whose result is worth a loop of its own, if there is one.

    exp and what follows it form a chain of dependent operations longer than the CPU looks ahead; as two short
    loops over a chunk they run a quarter faster (measured, both backends).
    """
    if any(isinstance(n, ast.Name) and n.id == "drop_neg" for node in body for n in ast.walk(node)):
        return None  # it shares most of its steps with exp_neg
    for k, node in enumerate(body):
        match node:
            case ast.Assign(value=ast.Call(func=ast.Name(id="exp_neg"))):
                return k
    return None


def _needs_limit(node: ast.FunctionDef) -> bool:
    return any(isinstance(n, ast.Name) and n.id in _LIMITED for n in ast.walk(node))


def _watch(writer: Writer, values: str, domain: str) -> tuple[str, str, str] | None:
    """What to collect of an array's values, how, and whether some may then be outside their domain.

    Beside a loop's other work it costs next to nothing to see that none is. None where that takes more than an
    operation or two, as of soft targets in float64.
    """
    f32, most, watched = writer.suffix == "f32", f"most_{values}", f"watched_{values}"
    bits, fma, absolute, v = writer.call("bits"), writer.call("fma"), writer.call("abs"), f"{values}[i_]"
    infinity, one, zero = (writer.integer(k) for k in ("0x7F800000", "1", "0"))
    if domain in ("binary", "sign"):
        size = v if domain == "binary" else f"{absolute}({v})"
        found = writer.integer(f"({most} << {one})") + f" != {zero}"
        return f"{bits}({fma}({v}, {v}, -{size}))", f"{most} | {watched}", found
    # Bits as integers are in order, those of negative numbers and NaN above; AVX2 has no maximum of 64 without sign.
    largest = f"{watched} if {watched} > {most} else {most}" if f32 else f"{most} | {watched}"
    if domain == "unit":
        return f"{bits}({v})", largest, f"{most} > {bits}({writer.literal(1.0)})"
    if not f32:
        return None
    if domain == "non_negative":
        return f"{bits}({v})", largest, f"{most} > {infinity}"
    v = v if domain == "positive" else f"{v} + {writer.literal(1.0)}"
    return writer.integer(f"({bits}({v}) - {one})"), largest, f"{most} >= {infinity}"


def _watches(writer: Writer, facts: registry.Loss, loop: registry.Loop) -> tuple[list[str], list[str], str]:
    """Statements for a loop's body, their variables, and whether an array may then be outside its domain."""
    domains = {"ys_": facts.target, "xs_": facts.input, "zs_": facts.third_domain if loop.third else "real"}
    watches = {name: _watch(writer, name, domain) for name, domain in domains.items() if domain != "real"}
    statements, found = [], []
    for name, watch in watches.items():
        if watch is None:
            return [], [], "True"
        statements += [f"watched_{name} = {watch[0]}", f"most_{name} = {watch[1]}"]
        found.append(watch[2])
    return statements, list(watches), " or ".join(found) or "False"


def _loop(writer: Writer, loop: registry.Loop, mode: str) -> str:
    node = _function(registry.FORMULAS[loop.loss])
    facts = registry.LOSSES[loop.loss]
    arguments = [a.arg for a in node.args.args]
    x, y = arguments[:2]
    params = [p for p in arguments[2:] if p != loop.third]
    places = {name: k for k, name in enumerate(facts.names)}
    flags = [p.name for p in facts.params if p.flag]
    numbers = {name: k for name, k in places.items() if name != loop.third and name not in flags}
    constants = _Constants(writer, type(writer)("f64"), numbers)
    node.body = [constants.visit(statement) for statement in node.body]
    params = [p for p in params if any(isinstance(n, ast.Name) and n.id == p for s in node.body for n in ast.walk(s))]
    outputs = _outputs(node)
    wanted = [o for o in (*MODES[mode], *(["third"] if mode == "loss_grad" else [])) if o in outputs]
    inputs = [f"{x} = xs_[i_]", f"{y} = ys_[i_]", *([f"{loop.third} = zs_[i_]"] if loop.third else [])]
    body = list(writer.statements(node.body))
    # All results are computed before the first store: possible aliasing would evaluate exp twice.
    results = [f"{o}_ = {writer.expression(outputs[o])}" for o in wanted]
    stores = [_STORES[o].format(_scaled(writer, o)) for o in wanted]
    split = writer.suffix == "f32" and wanted != ["loss"]
    loops = []
    stage = _stage(node.body)
    if stage is not None:
        staged = body[stage].partition(" = ")[0]
        loops.append([*inputs, *body[: stage + 1], f"losses_[i_] = {staged}"])
        body[stage] = f"{staged} = losses_[i_]"
    watched, watches, found = _watches(writer, facts, loop)
    loops.append([*inputs, *watched, *body, *results, *stores])
    name = f"{loop.name}_{mode}_{writer.suffix}"
    if isinstance(writer, CythonWriter):
        real, out = writer.real, f"out_{writer.suffix}"
        head = [
            f"cdef bint {name}(",
            f"    const {real}* xs_, const {real}* ys_, const {real}* zs_, const double* params_, double scale_,",
            f"    {out} losses_, {out} grads_, {out} hessians_, Py_ssize_t n_,",
            ") noexcept nogil:",
            "    cdef Py_ssize_t i_",
            *writer.declarations(node.body, "    ", arguments),
            f"    cdef {real} {', '.join([*arguments, *(f'{o}_' for o in wanted)])}",
            *(f"    cdef {writer.unsigned} watched_{name}, most_{name} = 0" for name in watches),
            *(f"    {p} = <{real}>params_[{places[p]}]" for p in params),
            *(f"    cdef {real} {constant} = {text}" for text, constant in constants.found.items()),
            *(["    cdef float scale_high_ = toward_zero(scale_)"] if split else []),
            *(["    cdef float scale_low_ = rest_of(scale_, scale_high_)"] if split else []),
            # A local copy of a variable: GCC makes a minimum of a comparison with it, but not with a constant.
            *([f"    cdef {real} exp_max_ = exp_max_{writer.suffix}"] if _needs_limit(node) else []),
        ]
    else:
        head = [
            "@loop",
            f"def {name}(xs_, ys_, zs_, params_, scale_, losses_, grads_, hessians_, n_):",
            *(f"    {p} = {writer.suffix}(params_[{places[p]}])" for p in params),
            *(f"    {constant} = {text}" for text, constant in constants.found.items()),
            *(["    scale_high_ = toward_zero(scale_)"] if split else []),
            *(["    scale_low_ = rest_of(scale_, scale_high_)"] if split else []),
            *([f"    exp_max_ = {writer.suffix}({_EXP_MAX[writer.suffix]!r})"] if _needs_limit(node) else []),
            *(f"    most_{name} = {writer.integer('0')}" for name in watches),
        ]
    lines = [line for part in loops for line in ["for i_ in range(n_):", *(f"    {line}" for line in part)]]
    # The compilers do not take the tests of flags out of long loops, so each of their values has a loop.
    for k, values in enumerate(itertools.product((0.0, 1.0), repeat=len(flags))):
        settings = [(flag, writer.literal(value)) for flag, value in zip(flags, values, strict=True)]
        if flags:
            test = " and ".join(f"{flag} == {value}" for flag, value in settings)
            head += [f"    {'elif' if k else 'if'} {test}:", *(f"        {flag} = {value}" for flag, value in settings)]
        head += [f"    {'    ' if flags else ''}{line}" for line in lines]
    return "\n".join([*head, f"    return {found}"]) + "\n\n\n"


def _stamp() -> str:
    """Hash of everything the generated files are made from."""
    digest = hashlib.sha256()
    for module in ("_codegen.py", "formulas.py", "primitives.py"):
        digest.update((HERE / module).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def _header(what: str) -> str:
    return f"# {what} Generated by fastloss/_codegen.py, do not edit. Sources: {_stamp()}\n\n"


def cython_primitives() -> str:
    return _header("Scalar functions.") + "".join(_primitives(CythonWriter)).rstrip() + "\n"


def cython_elementwise() -> str:
    loops = [_loop(CythonWriter(s), loop, m) for loop in registry.LOOPS for s in SUFFIXES for m in MODES]
    table = [
        f"    _loops[{i}][{j}][{k}] = <void*>{loop.name}_{m}_{s}"
        for i, loop in enumerate(registry.LOOPS)
        for j, s in enumerate(SUFFIXES)
        for k, m in enumerate(MODES)
    ]
    tail = [
        f"cdef void* _loops[{len(registry.LOOPS)}][{len(SUFFIXES)}][{len(MODES)}]",
        "",
        "",
        "cdef void _fill_loops() noexcept:",
        *table,
        "",
        "",
        "_fill_loops()",
    ]
    limits = "".join(f"cdef {CythonWriter(s).real} exp_max_{s} = {v!r}\n" for s, v in _EXP_MAX.items())
    return _header("Elementwise losses.") + limits + "\n\n" + "".join(loops) + "\n".join(tail) + "\n"


def numba_primitives() -> str:
    imports = "from fastloss._numba._jit import bits, f32, f64, fma, from_bits, inline, u32, u64\n\n\n"
    return _header("Scalar functions.") + imports + "".join(_primitives(NumbaWriter)).rstrip() + "\n"


def numba_elementwise() -> str:
    imports = (
        "from fastloss._numba._jit import bits, f32, f64, fma, loop, rest_of, toward_zero, u32, u64\n"
        f"from fastloss._numba.primitives_generated import {', '.join(sorted(_PRIMITIVES))}\n\n\n"
    )
    loops = [_loop(NumbaWriter(s), loop, m) for loop in registry.LOOPS for s in SUFFIXES for m in MODES]
    return _header("Elementwise losses.") + imports + "".join(loops).rstrip() + "\n"


FILES = {
    "_numba/primitives_generated.py": numba_primitives,
    "_numba/elementwise_generated.py": numba_elementwise,
    "_cython/primitives_generated.pxi": cython_primitives,
    "_cython/elementwise_generated.pxi": cython_elementwise,
}


def main(arguments: list[str]) -> int:
    stale = []
    for name, write in FILES.items():
        path, text = HERE / name, write()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8", newline="\n")
    if stale:
        print("stale:" if "--check" in arguments else "written:", ", ".join(stale))
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
