# Elementwise losses: any of the generated loops over a range of blocks.

cdef enum:
    MAX_PARAMS = 8

ctypedef void (*LoopF32)(const float*, const float*, const double*, float, float*, float*, float*, Py_ssize_t) noexcept nogil
ctypedef void (*LoopF64)(const double*, const double*, const double*, double, double*, double*, double*, Py_ssize_t) noexcept nogil


cdef struct ElementwiseJob:
    Entries entries
    const void* x
    const void* y
    Code y_code
    double params[MAX_PARAMS]
    void* grad
    void* hess
    bint unit_target    # targets must lie in [0, 1]
    int loss
    int mode            # as in _codegen.MODES


cdef inline void run_loop(int loss, int mode, const real* x, const real* y, const double* params, real scale,
                          real* losses, real* grads, real* hessians, Py_ssize_t n) noexcept nogil:
    if real is float:
        (<LoopF32>_loops[loss][0][mode])(x, y, params, scale, losses, grads, hessians, n)
    else:
        (<LoopF64>_loops[loss][1][mode])(x, y, params, scale, losses, grads, hessians, n)


cdef inline bint suspect(const real* y, Py_ssize_t n) noexcept nogil:
    # False only if all y are in [0, 1]: their bits, as integers, are in order, and none are above those of 1.
    cdef Py_ssize_t i
    cdef uint32_t k = 0
    cdef uint64_t l = 0
    if real is float:
        for i in range(n):
            k |= bits_f32(y[i]) | (bits_f32(<float>1.0) - bits_f32(y[i]))
        return k >> 31
    else:
        for i in range(n):
            l |= bits_f64(y[i]) | (bits_f64(1.0) - bits_f64(y[i]))
        return l >> 63


cdef bint outside_unit(const real* y, const uint8_t* mask, Py_ssize_t n) noexcept nogil:
    # Whether a kept target is outside [0, 1] or NaN.
    cdef Py_ssize_t i
    if suspect(y, n):
        for i in range(n):
            if (mask == NULL or mask[i]) and not (y[i] >= <real>0.0 and y[i] <= <real>1.0):
                return True
    return False


cdef bint targets_outside(const ElementwiseJob* job, Py_ssize_t start, Py_ssize_t stop, const real* _) noexcept nogil:
    # outside_unit for many targets at once: before an input is overwritten.
    cdef Py_ssize_t n
    cdef real room[CHUNK]
    cdef uint8_t mask_room[CHUNK]
    cdef const uint8_t* mask = NULL
    while start < stop:
        n = min(stop - start, CHUNK)
        load(job.y_code, job.y, start, room, n)
        if job.entries.mask != NULL:
            mask = load_mask(&job.entries, start, mask_room, n)
        if outside_unit(room, mask, n):
            return True
        start += n
    return False


cdef bint elementwise_blocks(const ElementwiseJob* job, Py_ssize_t first, Py_ssize_t last, const real* _) noexcept nogil:
    cdef const Entries* e = &job.entries
    cdef Py_ssize_t block, start, stop, n
    cdef bint native = is_native(e.code, _), bad = False
    cdef real x_room[CHUNK]
    cdef real y_room[CHUNK]
    cdef real losses[CHUNK]
    cdef real g_room[CHUNK]
    cdef real h_room[CHUNK]
    cdef uint8_t mask_room[CHUNK]
    cdef double lanes[LANES]
    cdef const real* x
    cdef const real* y
    cdef const real* w
    cdef real* g
    cdef real* h
    cdef const uint8_t* mask = NULL
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * BLOCK
        stop = min(start + BLOCK, e.n)
        while start < stop:
            n = min(stop - start, CHUNK)
            x = <const real*>job.x + start
            y = <const real*>job.y + start
            g = <real*>job.grad + start if native and job.grad != NULL else g_room
            h = <real*>job.hess + start if native and job.hess != NULL else h_room
            # In place, x is copied: a loop that writes what it reads is not vectorised.
            if not native or job.grad == job.x:
                load(e.code, job.x, start, x_room, n)
                x = x_room
            if not is_native(job.y_code, _):
                load(job.y_code, job.y, start, y_room, n)
                y = y_room
            if e.mask != NULL:
                mask = load_mask(e, start, mask_room, n)
            if job.unit_target:
                bad |= outside_unit(y, mask, n)
            run_loop(job.loss, job.mode, x, y, job.params, <real>e.scale, losses, g, h, n)
            if e.weight != NULL:
                w = weights_in_place(e, start, x_room, n)
                multiply(losses, g if job.mode != 0 else NULL, w, n)
                if job.mode == 2:
                    multiply(h, NULL, w, n)
            if mask != NULL:
                spread_mask(mask, x_room, n)
                select(losses, g if job.mode != 0 else NULL, x_room, n)
                if job.mode == 2:
                    select(h, NULL, x_room, n)
            if job.mode != 2:
                add_lanes(lanes, losses, n)
            if e.losses != NULL:
                store(e.code, losses, e.losses, start, n)
            if not native and job.mode != 0:
                store(e.code, g, job.grad, start, n)
            if not native and job.mode == 2:
                store(e.code, h, job.hess, start, n)
            start += n
        e.partials[block] = total(lanes)
    return bad


cdef bint elementwise_blocks_f32(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return elementwise_blocks(<const ElementwiseJob*>job, first, last, <const float*>NULL)


cdef bint elementwise_blocks_f64(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return elementwise_blocks(<const ElementwiseJob*>job, first, last, <const double*>NULL)
