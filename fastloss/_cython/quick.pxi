# Small calls on plain arrays: all checks in compiled code, no threads. Whatever is not plain (another dtype, strides,
# several blocks, a bad target) returns None, and the caller takes the general way, which also raises the errors.

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
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a), 0)


cdef Entries quick_entries(cnp.ndarray x, Py_ssize_t n, double scale, double* partial) noexcept:
    cdef Entries e
    e.n = n
    e.weight = NULL
    e.weight_code = F64
    e.weight_run = 1
    e.mask = NULL
    e.mask_run = 1
    e.scale = scale
    e.losses = NULL
    e.code = F32 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else F64
    e.partials = partial
    return e


def quick_elementwise(int loss, object x, object y, tuple params, bint mean, bint want_grad, bint unit_target):
    if not plain_floats(x) or not plain(y) or not same_shape(x, y, 0):
        return None
    cdef int kind = cnp.PyArray_TYPE(<cnp.ndarray>y)
    if kind != cnp.PyArray_TYPE(<cnp.ndarray>x) and not cnp.PyTypeNum_ISINTEGER(kind) and not cnp.PyTypeNum_ISBOOL(kind):
        return None
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(<cnp.ndarray>x)
    if n == 0 or n > BLOCK:
        return None
    cdef ElementwiseJob job
    cdef double values[MAX_PARAMS]
    cdef double partial
    cdef bint bad
    for i in range(len(params)):
        values[i] = params[i]
    cdef cnp.ndarray grad = empty_like(x) if want_grad else None
    job.entries = quick_entries(x, n, 1.0 / n if mean else 1.0, &partial)
    job.x = data_of(x)
    job.y = data_of(y)
    job.y_code = code_of(y)
    job.params = values
    job.grad = data_of(grad)
    job.hess = NULL
    job.unit_target = unit_target
    job.loss = loss
    job.mode = 1 if want_grad else 0
    bad = elementwise_blocks_f32(&job, 0, 1) if job.entries.code == F32 else elementwise_blocks_f64(&job, 0, 1)
    if bad:
        return None
    return (partial / n if mean else partial), grad


def quick_cross_entropy(object x, object target, int64_t ignore_index, double smoothing, bint mean, bint want_grad):
    if not plain_floats(x) or not plain_integers(target) or not same_shape(x, target, 1):
        return None
    cdef RowJob job
    cdef Py_ssize_t r, start, kept = 0, n = cnp.PyArray_SIZE(<cnp.ndarray>target)
    job.classes = cnp.PyArray_DIM(<cnp.ndarray>x, cnp.PyArray_NDIM(<cnp.ndarray>x) - 1)
    if n == 0 or job.classes == 0 or n * job.classes > BLOCK:
        return None
    cdef double partial
    cdef int64_t y[SIDE]
    job.entries = quick_entries(x, n, 1.0, &partial)
    job.block_rows = BLOCK // job.classes
    job.x = data_of(x)
    job.target = data_of(target)
    job.target_code = code_of(target)
    job.class_weight = NULL
    job.weight_sum = job.classes
    job.ignore_index = ignore_index
    job.smoothing = smoothing
    for start in range(0, n, SIDE):
        if load_targets(&job, start, y, min(n - start, SIDE)):
            return None
        for r in range(min(n - start, SIDE)):
            kept += y[r] >= 0
    if kept == 0:
        return None
    cdef cnp.ndarray grad = empty_like(x) if want_grad else None
    job.entries.scale = 1.0 / kept if mean else 1.0
    job.grad = data_of(grad)
    if row_blocks_f32(&job, 0, 1) if job.entries.code == F32 else row_blocks_f64(&job, 0, 1):
        return None
    return (partial / kept if mean else partial), grad


def quick_td_loss(object q, object actions, object rewards, object next_q, object terminated, double gamma,
                  object online, object legal, int loss, tuple params, object weight, object mask, bint mean,
                  bint want_grad):
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
    if weight is not None and not (plain_floats(weight) and same_shape(q, weight, 1)):
        return None
    if mask is not None and not (plain_flags(mask) and same_shape(q, mask, 1)):
        return None
    cdef TDJob job
    cdef double values[MAX_PARAMS]
    cdef double partial
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(<cnp.ndarray>actions), kept = n
    job.actions_count = cnp.PyArray_DIM(<cnp.ndarray>q, cnp.PyArray_NDIM(<cnp.ndarray>q) - 1)
    if n == 0 or job.actions_count == 0 or n * job.actions_count > BLOCK:
        return None
    for i in range(len(params)):
        values[i] = params[i]
    job.entries = quick_entries(q, n, 1.0, &partial)
    if weight is not None:
        job.entries.weight = data_of(weight)
        job.entries.weight_code = code_of(weight)
    if mask is not None:
        job.entries.mask = <const uint8_t*>data_of(mask)
        kept = 0
        for i in range(n):
            kept += job.entries.mask[i] != 0
    if kept == 0:
        return None
    cdef cnp.ndarray grad = empty_like(q) if want_grad else None
    cdef cnp.ndarray error = empty_like(rewards)
    job.entries.scale = 1.0 / kept if mean else 1.0
    job.block_rows = BLOCK // job.actions_count
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
    job.params = values
    job.grad = data_of(grad)
    job.td_error = data_of(error)
    if td_blocks_f32(&job, 0, 1) if job.entries.code == F32 else td_blocks_f64(&job, 0, 1):
        return None
    return (partial / kept if mean else partial), grad, error
