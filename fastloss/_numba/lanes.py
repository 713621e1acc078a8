"""The two loops of long rows in vectors as wide as their lanes, which LLVM keeps in registers.

Written in Python, lanes are memory that may be the row's own for all LLVM knows: it would load and store them for
every row of values.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

TOPS = 32  # accumulators of a row's maximum
SUMS = 16  # and of the sum of its exponentials in float32
_INT = ir.IntType(32)


def _load(builder, pointer, size, bits):
    """A vector of so many elements."""
    kind = ir.VectorType(pointer.type.pointee, size)
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=bits // 8)


def _store(builder, vector, pointer, bits):
    builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=bits // 8)


def _accumulate(builder, vector, count, step):
    """``vector = step(vector, i)`` for i below count."""
    place = cgutils.alloca_once_value(builder, vector)
    with cgutils.for_range(builder, count) as loop:
        builder.store(step(builder.load(place), loop.index), place)
    return builder.load(place)


def _larger(builder, v, m):
    more = builder.fcmp_ordered if isinstance(v.type.element, (ir.FloatType, ir.DoubleType)) else builder.icmp_signed
    return builder.select(more(">", v, m), v, m)


def _greatest(builder, v):
    """Of a vector's elements, by halving."""
    size = v.type.count
    while size > 1:
        size //= 2
        halves = (ir.Constant(ir.VectorType(_INT, size), list(range(k, k + size))) for k in (size, 0))
        v = _larger(builder, *(builder.shuffle_vector(v, v, half) for half in halves))
    return builder.extract_element(v, _INT(0))


def _splat(builder, value):
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, TOPS), ir.Undefined), value, _INT(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT, TOPS), None))


@intrinsic
def greatest(typingctx, x, n, m):
    """The maximum of m and the n >= TOPS values of x, and the last of TOPS lanes that has it.

    Value i is in lane i % TOPS; the last TOPS values are once more in lanes 0 to TOPS.
    """
    bits = x.dtype.bitwidth

    def generate(context, builder, signature, arguments):
        x, n, m = arguments
        tops = n.type(TOPS)
        last = builder.sub(n, tops)

        def raised(lanes, i):
            at = builder.mul(i, tops)
            at = builder.select(builder.icmp_signed("<", at, last), at, last)
            return _larger(builder, _load(builder, builder.gep(x, [at]), TOPS, bits), lanes)

        rows = builder.sdiv(builder.add(n, n.type(TOPS - 1)), tops)
        lanes = _accumulate(builder, _splat(builder, m), rows, raised)
        v = _greatest(builder, lanes)
        numbers = ir.Constant(ir.VectorType(_INT, TOPS), list(range(TOPS)))
        having = builder.select(builder.fcmp_ordered(">=", lanes, _splat(builder, v)), numbers, numbers.type(None))
        lane = builder.sext(_greatest(builder, having), n.type)
        return context.make_tuple(builder, signature.return_type, [v, lane])

    return types.Tuple((x.dtype, types.intp))(x, types.intp, x.dtype), generate


@intrinsic
def add_fours(typingctx, lanes, e, count):
    """SUMS sums of count times 4 SUMS values of e of float32, added in fours before they are widened."""
    bits = e.dtype.bitwidth

    def generate(context, builder, signature, arguments):
        lanes, e, count = arguments

        def added(total, i):
            starts = (builder.add(builder.mul(i, i.type(4 * SUMS)), i.type(k * SUMS)) for k in range(4))
            v = [_load(builder, builder.gep(e, [start]), SUMS, bits) for start in starts]
            v = builder.fadd(builder.fadd(v[0], v[1]), builder.fadd(v[2], v[3]))
            return builder.fadd(total, builder.fpext(v, total.type))

        zeros = ir.Constant(ir.VectorType(lanes.type.pointee, SUMS), None)
        _store(builder, _accumulate(builder, zeros, count, added), lanes, 64)
        return context.get_dummy_value()

    return types.void(lanes, e, types.intp), generate
