"""Square tiles of a matrix, transposed in registers: LLVM does not find these shuffles by itself."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastloss._numba._jit import inline

# Per stage: how far apart the two rows are that are mixed, and which of their elements make the new two rows.
_STAGES = {
    4: [(1, (0, 4, 2, 6), (1, 5, 3, 7)), (2, (0, 1, 4, 5), (2, 3, 6, 7))],
    8: [
        (1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)),
        (2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
        (4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
    ],
}


def _tile(size):
    @intrinsic
    def tile(typingctx, a, start, lda, b, target, ldb):
        """Make rows of ``a`` from ``start`` on, ``lda`` elements apart, columns of ``b``."""
        real = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}[a.dtype]
        align = a.dtype.bitwidth // 8

        def generate(context, builder, signature, arguments):
            a_type, _, _, b_type, _, _ = signature.args
            a, start, lda, b, target, ldb = arguments
            source = cgutils.create_struct_proxy(a_type)(context, builder, a).data
            out = cgutils.create_struct_proxy(b_type)(context, builder, b).data
            vector = ir.VectorType(real, size)

            def place(base, first, step, i):
                offset = builder.add(first, builder.mul(step, ir.Constant(step.type, i)))
                return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

            rows = [builder.load(place(source, start, lda, i), align=align) for i in range(size)]
            for distance, even, odd in _STAGES[size]:
                masks = [ir.Constant(ir.VectorType(ir.IntType(32), size), list(m)) for m in (even, odd)]
                for i in range(size):
                    if not i & distance:
                        pair = rows[i], rows[i + distance]
                        rows[i], rows[i + distance] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            for i, row in enumerate(rows):
                builder.store(row, place(out, target, ldb, i), align=align)
            return context.get_dummy_value()

        return types.void(a, types.intp, types.intp, b, types.intp, types.intp), generate

    return tile


_tile4, _tile8 = _tile(4), _tile(8)


@inline
def _unzip(a, b, ldb, n, few):
    """transpose() of n rows of ``few`` columns. As a constant that makes a fixed shuffle of every few vectors."""
    for i in range(n):
        for j in range(few):
            b[j * ldb + i] = a[i * few + j]


@inline
def _zip_rows(a, lda, b, n, few):
    """transpose() of ``few`` rows of n columns."""
    for j in range(n):
        for i in range(few):
            b[j * few + i] = a[i * lda + j]


@inline
def transpose(a, lda, b, ldb, rows, columns):
    """b[j, i] = a[i, j] in square tiles; the last ones overlap those before, so that nothing beyond is touched."""
    if columns == 2 and lda == 2:
        _unzip(a, b, ldb, rows, 2)
        return
    if columns == 3 and lda == 3:
        _unzip(a, b, ldb, rows, 3)
        return
    if rows == 2 and ldb == 2:
        _zip_rows(a, lda, b, columns, 2)
        return
    if rows == 3 and ldb == 3:
        _zip_rows(a, lda, b, columns, 3)
        return
    if rows < 4 or columns < 4:
        for j in range(columns):
            for i in range(rows):
                b[j * ldb + i] = a[i * lda + j]
        return
    wide = a.itemsize == 4 and rows >= 8 and columns >= 8
    size = 8 if wide else 4
    for i in range(0, rows, size):
        p = min(i, rows - size)
        for j in range(0, columns, size):
            q = min(j, columns - size)
            if wide:
                _tile8(a, p * lda + q, lda, b, q * ldb + p, ldb)
            else:
                _tile4(a, p * lda + q, lda, b, q * ldb + p, ldb)
