# Calls on plain arrays: all checks in compiled code. Whatever is not plain (another dtype, strides, class weights,
# another reduction, outputs that overlap inputs, a bad target) returns None, and the caller takes the general way,
# which also raises the errors. One block is computed here and now; more of them may be spread over threads.

cdef extern from "numpy/arrayobject.h":
    cnp.npy_intp PyArray_CountNonzero(cnp.ndarray) except -1

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1

cdef extern from *:
    """
    /* From 3.14 on a tuple keeps its hash, and 0 would be one; -1 is none yet. */
    static inline PyObject *fastloss_allocate(PyObject *kind, Py_ssize_t n) {
        PyObject *found = ((PyTypeObject *)kind)->tp_alloc((PyTypeObject *)kind, n);
    #if PY_VERSION_HEX >= 0x030E0000
        if (found != NULL) ((PyTupleObject *)found)->ob_hash = -1;
    #endif
        return found;
    }
    """
    object fastloss_allocate(object kind, Py_ssize_t n)

from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM

from fastloss._blocks import exact_sum
from fastloss._memory import LEAST, empty
from fastloss._results import LossGrad, TDLossGrad
from fastloss._threads import choose

cdef Py_ssize_t reused_bytes = LEAST, thread_grain = GRAIN


cdef inline object result(object kind, object loss, object grad, object third=None):
    # As kind(loss, grad), which takes five times as long.
    cdef object found = fastloss_allocate(kind, 2 if third is None else 3)
    Py_INCREF(loss)
    PyTuple_SET_ITEM(found, 0, loss)
    Py_INCREF(grad)
    PyTuple_SET_ITEM(found, 1, grad)
    if third is not None:
        Py_INCREF(third)
        PyTuple_SET_ITEM(found, 2, third)
    return found


cdef inline bint plain_options(object reduction, object normalizer, object grad) except? False:
    # Whether the loss is a mean over what is kept or a sum.
    return normalizer is None and type(grad) is bool and type(reduction) is str and (
        <str>reduction == "mean" or <str>reduction == "sum")


cdef inline bint plain_index(object value, int64_t* index) except? False:
    # Whether a value is an int of 64 bits, and which.
    cdef int overflow = 0
    if type(value) is not int:
        return False
    index[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
    return overflow == 0


cdef inline bint plain(object a) noexcept:
    return cnp.PyArray_CheckExact(a) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a)


cdef inline bint plain_floats(object a) noexcept:
    if not plain(a):
        return False
    cdef int kind = cnp.PyArray_TYPE(<cnp.ndarray>a)
    return kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64


cdef inline bint plain_integers(object a) noexcept:
    return plain(a) and cnp.PyTypeNum_ISINTEGER(cnp.PyArray_TYPE(<cnp.ndarray>a))


cdef inline bint plain_flags(object a) noexcept:
    return plain(a) and cnp.PyTypeNum_ISBOOL(cnp.PyArray_TYPE(<cnp.ndarray>a))


cdef inline bint same_shape(cnp.ndarray a, cnp.ndarray b, int leading) noexcept:
    # Whether b's axes are the first ones of a, all but `leading` of them.
    cdef int k, ndim = cnp.PyArray_NDIM(b)
    if cnp.PyArray_NDIM(a) - leading != ndim:
        return False
    for k in range(ndim):
        if cnp.PyArray_DIM(a, k) != cnp.PyArray_DIM(b, k):
            return False
    return True


cdef inline bint alike(object a, cnp.ndarray like, int leading) noexcept:
    # A plain array of the same dtype and shape (or leading shape).
    return plain(a) and cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.PyArray_TYPE(like) and same_shape(like, a, leading)


cdef inline cnp.ndarray empty_like(cnp.ndarray a):
    if cnp.PyArray_NBYTES(a) >= reused_bytes:
        return empty((<object>a).shape, a.dtype)
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a), 0)


cdef inline bint apart(cnp.ndarray a, object b) noexcept:
    # Whether b is no array or shares no memory with a; both are contiguous.
    if b is None:
        return True
    cdef const char* first = <const char*>cnp.PyArray_DATA(a)
    cdef const char* other = <const char*>cnp.PyArray_DATA(<cnp.ndarray>b)
    return first + cnp.PyArray_NBYTES(a) <= other or other + cnp.PyArray_NBYTES(<cnp.ndarray>b) <= first


cdef inline bint plain_output(object out, cnp.ndarray like, bint in_place) noexcept:
    # An array for the gradient: the input itself, if that may be, or one that does not overlap it.
    if not alike(out, like, 0) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
        return False
    return apart(<cnp.ndarray>out, like) or (in_place and data_of(<cnp.ndarray>out) == data_of(like))


cdef inline bint plain_entries(cnp.ndarray x, int leading, object weight, object mask) noexcept:
    # Weights and mask of one value per entry, or none.
    if weight is not None and not (plain_floats(weight) and same_shape(x, weight, leading)):
        return False
    return mask is None or (plain_flags(mask) and same_shape(x, mask, leading))


cdef object run_plain(Kernel kernel, const void* job, size_t job_size, Entries* e, Py_ssize_t width, Py_ssize_t block,
                      double divisor, object n_threads, Py_ssize_t grains=1):
    # Run a kernel over n entries of `width` elements, `block` entries to a block. Returns the loss, or None if a
    # target is bad.
    cdef cnp.npy_intp blocks = (e.n + block - 1) // block
    cdef Py_ssize_t size = e.n * width, grain = grains * thread_grain
    cdef double partial
    cdef cnp.ndarray partials
    cdef int threads = 1
    if n_threads is not None or size >= grains * worth_noting:
        threads = choose(n_threads, size, grain)
    if blocks == 1:
        e.partials = &partial
        return None if kernel(job, 0, 1) else partial / divisor
    partials = cnp.PyArray_EMPTY(1, &blocks, cnp.NPY_DOUBLE, 0)
    e.partials = <double*>cnp.PyArray_DATA(partials)
    if launch(kernel, job, job_size, blocks, block * width, threads):
        return None
    partial = exact_total(e.partials, blocks)
    return (partial if partial == partial else <double>exact_sum(partials)) / divisor


cdef bint all_inside(const ElementwiseJob* job) except? False:
    # Whether no value is outside its domain, with a look at pending signals now and then.
    cdef Py_ssize_t start = 0, stop
    cdef bint bad = False
    if not (job.domains[0] or job.domains[1] or job.domains[2]):
        return True
    while start < job.entries.n and not bad:
        stop = min(start + SPAN, job.entries.n)
        with nogil:
            if job.entries.code == F32:
                bad = values_outside(job, start, stop, <const float*>NULL)
            else:
                bad = values_outside(job, start, stop, <const double*>NULL)
        PyErr_CheckSignals()
        start = stop
    return not bad


cdef Py_ssize_t kept_rows(const RowJob* job) except? -1:
    # Number of rows whose target counts, or -1 if one is bad; with a look at pending signals now and then.
    cdef Py_ssize_t start = 0, stop, found = 0, kept = 0, n = job.entries.n
    if n <= SPAN:
        return count_targets(job, 0, n)
    while start < n and found >= 0:
        stop = min(start + SPAN, n)
        with nogil:
            found = count_targets(job, start, stop)
        PyErr_CheckSignals()
        kept += found
        start = stop
    return kept if found >= 0 else -1


cdef bint fit_f32(const double* params, Py_ssize_t n) noexcept:
    # Whether parameters are in the range that Loss.fit() asks for.
    cdef Py_ssize_t i
    for i in range(n):
        if not (params[i] == 0.0 or params[i] != params[i]
                or 1.1754943508222875e-38 <= abs_f64(params[i]) <= 3.4028234663852886e38):
            return False
    return True


def plain_elementwise(object facts, object x, object y, object third, tuple params, object weight, object mask,
                      object reduction, object normalizer, double factor, object grad, bint want_third, object out,
                      object n_threads, bint squared):
    cdef tuple codes = facts.codes
    if not plain_options(reduction, normalizer, grad) or (third is None and <int>codes[0] < 0):
        return None
    if not plain_floats(x) or not plain(y) or not same_shape(x, y, 0) or not plain_entries(x, 0, weight, mask):
        return None
    if third is not None and not alike(third, x, 0):
        return None
    cdef int kind = cnp.PyArray_TYPE(<cnp.ndarray>y)
    if kind != cnp.PyArray_TYPE(<cnp.ndarray>x) and not cnp.PyTypeNum_ISINTEGER(kind) and not cnp.PyTypeNum_ISBOOL(kind):
        return None
    cdef bint want_grad = grad, mean = reduction == "mean"
    if out is not None:
        if not want_grad or not plain_output(out, x, True):
            return None
        if not (apart(out, y) and apart(out, third) and apart(out, weight) and apart(out, mask)):
            return None
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>x), kept = n if mask is None else PyArray_CountNonzero(mask)
    if kept == 0:
        return None
    cdef double divisor = kept if mean else 1.0
    cdef ElementwiseJob job = elementwise_job(
        codes, x, y, third, params, entries_of(x, n, weight, mask, factor / divisor, None, None))
    cdef cnp.ndarray gradient = (empty_like(x) if out is None else out) if want_grad else None
    cdef cnp.ndarray third_grad = empty_like(x) if want_grad and want_third else None
    job.grad = data_of(gradient)
    job.hess = data_of(third_grad)
    job.mode = 1 if want_grad else 0
    job.squared = squared
    if job.entries.code == F32 and not fit_f32(job.params, len(params)):
        return None
    if job.grad == job.x:
        # The kernel checks values while it writes the gradient, too late for an input that is overwritten.
        if not all_inside(&job):
            return None
    cdef Kernel kernel = elementwise_blocks_f32 if job.entries.code == F32 else elementwise_blocks_f64
    cdef object value = run_plain(kernel, &job, sizeof(job), &job.entries, 1, BLOCK, divisor, n_threads, codes[5])
    if value is None:
        return None
    return (value, gradient, third_grad) if want_third else result(LossGrad, value, gradient)


def plain_rows(object facts, object x, object target, tuple params, object class_weight, object ignore_index,
               object weight, object mask, object reduction, object normalizer, object grad, object out,
               object n_threads):
    cdef int64_t ignored
    if not plain_options(reduction, normalizer, grad) or class_weight is not None:
        return None
    if not plain_index(ignore_index, &ignored):
        return None
    if not plain_floats(x) or not plain_integers(target) or not same_shape(x, target, 1):
        return None
    if not plain_entries(x, 1, weight, mask):
        return None
    cdef bint want_grad = grad, mean = reduction == "mean"
    if out is not None:
        if not want_grad or not plain_output(out, x, True):
            return None
        if not (apart(out, target) and apart(out, weight) and apart(out, mask)):
            return None
    cdef Py_ssize_t classes = cnp.PyArray_DIM(<cnp.ndarray>x, cnp.PyArray_NDIM(<cnp.ndarray>x) - 1)
    cdef Py_ssize_t kept, n = cnp.PyArray_SIZE(<cnp.ndarray>target)
    if n == 0 or classes == 0:
        return None
    cdef RowJob job = row_job(target, classes, None, ignored, entries_of(x, n, weight, mask, 1.0, None, None))
    kept = kept_rows(&job)
    if kept <= 0:
        return None
    cdef double divisor = kept if mean else 1.0
    cdef cnp.ndarray gradient = (empty_like(x) if out is None else out) if want_grad else None
    job.entries.scale = 1.0 / divisor
    cdef Kernel kernel = prepare_rows(&job, facts.index, x, params, gradient)
    cdef object value = run_plain(kernel, &job, sizeof(job), &job.entries, classes, job.block_rows, divisor, n_threads)
    return None if value is None else result(LossGrad, value, gradient)


def plain_softmax(object x, object target, object how, object class_weight, object ignore_index, object legal,
                  object factor, object weight, object mask, object reduction, object normalizer, object grad,
                  object out, object n_threads, bint takes_indices, bint takes_shares):
    cdef int64_t ignored = INT64_MIN
    if not plain_options(reduction, normalizer, grad) or class_weight is not None:
        return None
    if ignore_index is not None and not plain_index(ignore_index, &ignored):
        return None
    cdef bint want_grad = grad, mean = reduction == "mean"
    cdef bint shared = takes_shares and plain_floats(target)
    if not plain_floats(x) or not plain_entries(x, 1, weight, mask):
        return None
    if shared:
        if not alike(target, x, 0):
            return None
    elif not takes_indices or not plain_integers(target) or not same_shape(x, target, 1):
        return None
    if factor is not None and not alike(factor, x, 1):
        return None
    if legal is not None and not (plain_flags(legal) and same_shape(x, legal, 0)):
        return None
    if out is not None:
        # Shares are checked while the gradient is written, too late for an input that is overwritten.
        if not want_grad or not plain_output(out, x, not shared):
            return None
        if not (apart(out, target) and apart(out, legal) and apart(out, factor) and apart(out, weight) and apart(out, mask)):
            return None
    cdef Py_ssize_t classes = cnp.PyArray_DIM(<cnp.ndarray>x, cnp.PyArray_NDIM(<cnp.ndarray>x) - 1)
    if cnp.PyArray_SIZE(<cnp.ndarray>x) == 0:
        return None
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>x) // classes, kept = n if mask is None else PyArray_CountNonzero(mask)
    cdef SoftJob job = soft_job(
        x, classes, None if shared else target, target if shared else None, how, None,
        ignored, legal, factor, entries_of(x, n, weight, mask, 1.0, None, None))
    cdef Py_ssize_t counted = kept if shared else kept_rows(&job.row)
    if counted <= 0 or (ignore_index is None and counted != kept):  # a target may be the value that stands in
        return None
    cdef double divisor = counted if mean else 1.0
    cdef cnp.ndarray gradient = (empty_like(x) if out is None else out) if want_grad else None
    job.row.grad = data_of(gradient)
    job.row.entries.scale = 1.0 / divisor
    cdef object value = run_plain(
        soft_kernel(&job), &job, sizeof(job), &job.row.entries, classes, job.row.block_rows, divisor, n_threads)
    return None if value is None else result(LossGrad, value, gradient)


def plain_td_loss(object q, object actions, object rewards, object next_q, object terminated, double gamma,
                  object online, object legal, int loss, tuple params, object weight, object mask,
                  object reduction, object normalizer, object grad, object out, object n_threads):
    if not plain_options(reduction, normalizer, grad):
        return None
    cdef bint want_grad = grad, mean = reduction == "mean"
    if not plain_floats(q) or cnp.PyArray_NDIM(<cnp.ndarray>q) == 0 or not alike(next_q, q, 0):
        return None
    if not plain_integers(actions) or not same_shape(q, actions, 1) or not alike(rewards, q, 1):
        return None
    if not plain_flags(terminated) or not same_shape(q, terminated, 1):
        return None
    if online is not None and not alike(online, q, 0):
        return None
    if legal is not None and not (plain_flags(legal) and same_shape(q, legal, 0)):
        return None
    if not plain_entries(q, 1, weight, mask):
        return None
    if out is not None:
        if not want_grad or not plain_output(out, q, False):
            return None
        for other in (actions, rewards, next_q, terminated, online, legal, weight, mask):
            if not apart(out, other):
                return None
    cdef Py_ssize_t count = cnp.PyArray_DIM(<cnp.ndarray>q, cnp.PyArray_NDIM(<cnp.ndarray>q) - 1)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>actions), kept = n if mask is None else PyArray_CountNonzero(mask)
    if kept == 0 or count == 0:
        return None
    cdef double divisor = kept if mean else 1.0
    cdef TDJob job = td_job(
        q, count, actions, rewards, next_q, terminated, gamma, online, legal, loss, params,
        entries_of(q, n, weight, mask, 1.0 / divisor, None, None))
    cdef cnp.ndarray gradient = (empty_like(q) if out is None else out) if want_grad else None
    cdef cnp.ndarray error = empty_like(rewards)
    job.grad = data_of(gradient)
    job.td_error = data_of(error)
    cdef Kernel kernel = td_blocks_f32 if job.entries.code == F32 else td_blocks_f64
    cdef object value = run_plain(kernel, &job, sizeof(job), &job.entries, count, job.block_rows, divisor, n_threads)
    return None if value is None else result(TDLossGrad, value, gradient, error)
