# The Cython backend. One source, compiled once per CPU level (see setup.py): each module is this file.
#
#   kernels.pxi                  types, block sizes, threads, the functions that Python calls
#   primitives_generated.pxi     exp, log1p, ... from fastloss/primitives.py
#   elementwise_generated.pxi    one loop per elementwise loss, from fastloss/formulas.py
#   blocks.pxi                   loading any dtype, weights, masks, sums: what all kernels share
#   elementwise.pxi rows.pxi (with wide, narrow, margins.pxi) gather.pxi   the kernels: arithmetic on a range of blocks, nothing else
#   plain.pxi                    the short way for calls on plain arrays
#
# A kernel never allocates, raises or touches Python. It writes one partial sum per block of fixed
# size at a fixed place, so no result depends on the number of threads.

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, INT64_MAX, INT64_MIN,
)
from libc.string cimport memcpy, memmove, memset
cimport numpy as cnp

cnp.import_array()

cdef extern from "platform.h" nogil:
    float fma_f32(float, float, float)
    double fma_f64(double, double, double)
    float abs_f32(float)
    double abs_f64(double)
    uint32_t bits_f32(float)
    uint64_t bits_f64(double)
    float from_bits_f32(uint32_t)
    double from_bits_f64(uint64_t)
    void prefetch(const void*)
    int64_t atomic_add(int64_t*, int64_t)   # returns what was there before; so does the next
    int64_t atomic_swap(int64_t*, int64_t)
    int64_t atomic_load(int64_t*)
    void yield_core()
    int this_cpu()
    void leave_cpu(int)
    Py_ssize_t halves_to_f32(const uint16_t*, float*, Py_ssize_t)
    Py_ssize_t f32_to_halves(const float*, uint16_t*, Py_ssize_t)
    # Pointers through which no other is written: else a loop of many arrays is not vectorised.
    ctypedef float* out_f32
    ctypedef double* out_f64
    const double INFINITY
    const double NAN
    const int FASTLOSS_HAS_FMA
    const int FASTLOSS_VECTOR

ctypedef fused real:
    float
    double

# Keep in step with fastloss/_blocks.py, whose values the tests compare with these.
cdef enum:
    BLOCK = 4096    # elements per partial sum
    CHUNK = 1024    # elements worked on at a time: inputs and results of a chunk fit into L1
    LANES = 64      # accumulators of a sum
    NARROW = 64     # up to this many classes, rows are worked on side by side
    SPAN = 1 << 20  # elements that are worked on without a look at pending signals

cdef enum:
    SQUARES = 3     # mode of an elementwise loss: as loss alone, but of its squares is the sum

cdef enum Code:     # dtype of an array whose elements are converted chunk by chunk
    F16, BF16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64


cdef struct Entries:
    # What every loss has per entry (element, row or transition).
    Py_ssize_t n
    const void* weight      # NULL or one value per run of entries
    Code weight_code
    Py_ssize_t weight_run
    const uint8_t* mask     # NULL or one flag per run of entries
    Py_ssize_t mask_run
    double scale            # of gradients
    void* losses            # NULL or the weighted loss of each entry
    Code code               # dtype of input, losses and gradients
    double* partials


cdef inline float toward_zero(double v) noexcept nogil:
    # The float32 next to it that is not larger.
    cdef float rounded = <float>v
    return from_bits_f32(bits_f32(rounded) - <uint32_t>(abs_f64(rounded) > abs_f64(v)))


cdef inline float rest_of(double v, float part) noexcept nogil:
    # What a float32 leaves of v, of v's sign and never 0: infinity times it shall not be NaN.
    cdef float rest = <float>(v - part)
    return rest if rest != 0.0 else part * <float>9.094947017729282e-13


ctypedef bint (*Kernel)(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil

include "primitives_generated.pxi"
include "elementwise_generated.pxi"
include "blocks.pxi"
include "elementwise.pxi"
include "rows.pxi"
include "gather.pxi"

HAS_FMA = bool(FASTLOSS_HAS_FMA)
ROW_LOSSES = {
    "cross_entropy": CROSS_ENTROPY, "multi_margin_loss": MULTI_MARGIN, "crammer_singer_loss": CRAMMER_SINGER,
    "nll_loss": NLL,
}
SIZES = {"BLOCK": BLOCK, "CHUNK": CHUNK, "LANES": LANES, "NARROW": NARROW, "SIDE": SIDE}


include "tasks.pxi"


cdef Code code_of(cnp.ndarray a) noexcept:
    # The validation has let through no other dtypes than these.
    cdef int size = <int>cnp.PyArray_ITEMSIZE(a), kind = cnp.PyArray_TYPE(a)
    if kind == cnp.NPY_FLOAT16:
        return F16
    if cnp.PyTypeNum_ISFLOAT(kind):
        return F32 if size == 4 else F64
    if cnp.PyTypeNum_ISSIGNED(kind):
        return I8 if size == 1 else (I16 if size == 2 else (I32 if size == 4 else I64))
    if cnp.PyTypeNum_ISUNSIGNED(kind) or cnp.PyTypeNum_ISBOOL(kind):
        return U8 if size == 1 else (U16 if size == 2 else (U32 if size == 4 else U64))
    return BF16


cdef inline void* data_of(cnp.ndarray a) noexcept:
    return NULL if a is None else cnp.PyArray_DATA(a)


cdef Entries entries_of(cnp.ndarray x, Py_ssize_t n, cnp.ndarray weight, cnp.ndarray mask, double scale,
                        cnp.ndarray losses, cnp.ndarray partials):
    cdef Entries e
    e.n = n
    e.weight = data_of(weight)
    e.weight_run = 1
    e.weight_code = F64
    if weight is not None:
        e.weight_code = code_of(weight)
        e.weight_run = n // cnp.PyArray_SIZE(weight) if n > 0 else 1
    e.mask = <const uint8_t*>data_of(mask)
    e.mask_run = 1
    if mask is not None:
        e.mask_run = n // cnp.PyArray_SIZE(mask) if n > 0 else 1
    e.scale = scale
    e.losses = data_of(losses)
    e.code = code_of(x)
    e.partials = <double*>data_of(partials)
    return e


cdef void fill(double* values, tuple params):
    cdef Py_ssize_t i
    for i in range(len(params)):
        values[i] = params[i]


cdef ElementwiseJob elementwise_job(tuple codes, cnp.ndarray x, cnp.ndarray y, cnp.ndarray third, tuple params,
                                    Entries entries):
    # Everything but what is written and how gradients are scaled; so do the next two. The codes are the registry's.
    cdef ElementwiseJob job
    job.entries = entries
    job.x = data_of(x)
    job.y = data_of(y)
    job.y_code = code_of(y)
    job.third = data_of(third)
    job.third_code = job.entries.code if third is None else code_of(third)
    job.period = 0 if third is None else cnp.PyArray_SIZE(third)
    fill(job.params, params)
    job.loss = codes[0] if third is None else codes[1]
    job.domains[0] = codes[2]
    job.domains[1] = codes[3]
    job.domains[2] = codes[4]
    return job


cdef RowJob row_job(cnp.ndarray target, Py_ssize_t classes, cnp.ndarray class_weight, int64_t ignore_index, Entries entries):
    # What concerns targets and weights alone.
    cdef RowJob job
    cdef Py_ssize_t k
    job.entries = entries
    job.classes = classes
    job.block_rows = max(1, BLOCK // max(1, classes))
    job.target = data_of(target)
    job.target_code = I64 if target is None else code_of(target)
    job.class_weight = <const double*>data_of(class_weight)
    job.weight_sum = classes
    if class_weight is not None:
        job.weight_sum = 0.0
        for k in range(classes):
            job.weight_sum += job.class_weight[k]
    job.ignore_index = ignore_index
    job.is_head = False
    return job


cdef TDJob td_job(cnp.ndarray q, Py_ssize_t count, cnp.ndarray actions, cnp.ndarray rewards, cnp.ndarray next_q,
                  cnp.ndarray terminated, double gamma, cnp.ndarray online, cnp.ndarray legal, int loss, tuple params,
                  Entries entries):
    cdef TDJob job
    job.entries = entries
    job.actions_count = count
    job.block_rows = max(1, BLOCK // count)
    job.q = data_of(q)
    job.actions = data_of(actions)
    job.actions_code = code_of(actions)
    job.rewards = data_of(rewards)
    job.next_q = data_of(next_q)
    job.terminated = <const uint8_t*>data_of(terminated)
    job.gamma = gamma
    job.online = data_of(online)
    job.legal = <const uint8_t*>data_of(legal)
    job.loss = loss
    fill(job.params, params)
    return job


def elementwise(tuple codes, int mode, cnp.ndarray x not None, cnp.ndarray y not None, cnp.ndarray third, tuple params,
                cnp.ndarray weight, cnp.ndarray mask, double scale, cnp.ndarray losses, cnp.ndarray grad,
                cnp.ndarray hess, cnp.ndarray partials not None, int threads):
    cdef ElementwiseJob job = elementwise_job(
        codes, x, y, third, params,
        entries_of(x, cnp.PyArray_SIZE(x), weight, mask, scale, losses, partials))
    job.grad = data_of(grad)
    job.hess = data_of(hess)
    job.mode = 0 if mode == SQUARES else mode
    job.squared = mode == SQUARES
    cdef Kernel kernel = elementwise_blocks_f64 if job.entries.code == F64 else elementwise_blocks_f32
    return launch(kernel, &job, sizeof(job), cnp.PyArray_SIZE(partials), BLOCK, threads)


cdef Kernel prepare_rows(RowJob* job, int loss, cnp.ndarray x, tuple params, cnp.ndarray grad):
    # What row_job has left out; returns the kernel.
    job.loss = loss
    fill(job.params, params)
    job.smoothing = job.params[0] if loss == CROSS_ENTROPY else 0.0
    job.x = data_of(x)
    job.grad = data_of(grad)
    return row_blocks_f64 if job.entries.code == F64 else row_blocks_f32


def rows(int loss, cnp.ndarray x not None, cnp.ndarray target not None, tuple params, cnp.ndarray class_weight,
         int64_t ignore_index, cnp.ndarray weight, cnp.ndarray mask, double scale, cnp.ndarray losses,
         cnp.ndarray grad, cnp.ndarray partials not None, int threads):
    cdef RowJob job = row_job(
        target, cnp.PyArray_DIM(x, 1), class_weight, ignore_index,
        entries_of(x, cnp.PyArray_DIM(x, 0), weight, mask, scale, losses, partials))
    cdef Kernel kernel = prepare_rows(&job, loss, x, params, grad)
    return launch(kernel, &job, sizeof(job), cnp.PyArray_SIZE(partials), job.block_rows * job.classes, threads)


def target_weight(cnp.ndarray target not None, Py_ssize_t classes, cnp.ndarray class_weight, int64_t ignore_index,
                  cnp.ndarray weight, cnp.ndarray mask, cnp.ndarray partials not None):
    cdef RowJob job = row_job(
        target, classes, class_weight, ignore_index,
        entries_of(target, cnp.PyArray_SIZE(target), weight, mask, 1.0, None, partials))
    return launch(target_weight_blocks, &job, sizeof(job), cnp.PyArray_SIZE(partials), BLOCK, 1)


def td_loss(cnp.ndarray q not None, cnp.ndarray actions not None, cnp.ndarray rewards not None,
            cnp.ndarray next_q not None, cnp.ndarray terminated not None, double gamma, cnp.ndarray online,
            cnp.ndarray legal, int loss, tuple params, cnp.ndarray weight, cnp.ndarray mask, double scale,
            cnp.ndarray losses, cnp.ndarray grad, cnp.ndarray td_error, cnp.ndarray partials not None,
            int threads):
    cdef TDJob job = td_job(
        q, cnp.PyArray_DIM(q, 1), actions, rewards, next_q, terminated, gamma, online, legal, loss, params,
        entries_of(q, cnp.PyArray_DIM(q, 0), weight, mask, scale, losses, partials))
    job.grad = data_of(grad)
    job.td_error = data_of(td_error)
    cdef Kernel kernel = td_blocks_f64 if job.entries.code == F64 else td_blocks_f32
    return launch(kernel, &job, sizeof(job), cnp.PyArray_SIZE(partials), job.block_rows * job.actions_count, threads)


include "soft.pxi"
include "soft_heads.pxi"
include "soft_narrow.pxi"
include "soft_wide.pxi"
include "plain.pxi"
