# Elementwise losses: any of the generated loops over a range of blocks.

cdef enum:
    MAX_PARAMS = 8
    STEP = 512      # elements that are worked on at a time, of 4 bytes: the sum of a short piece overlaps the next one

ctypedef bint (*LoopF32)(const float*, const float*, const float*, const double*, double, float*, float*, float*, Py_ssize_t) noexcept nogil
ctypedef bint (*LoopF64)(const double*, const double*, const double*, const double*, double, double*, double*, double*, Py_ssize_t) noexcept nogil


cdef struct ElementwiseJob:
    Entries entries
    const void* x
    const void* y
    Code y_code
    const void* third       # NULL or what else differs per element
    Code third_code
    Py_ssize_t period       # of its values, which are repeated
    double params[MAX_PARAMS]
    void* grad
    void* hess              # the Hessian, or the gradient by the third array
    int domains[3]          # of x, y and third, as in registry.DOMAINS
    int loss
    int mode                # as in _codegen.MODES
    bint squared            # whether the sums are of the losses' squares


cdef inline bint run_loop(int loss, int mode, const real* x, const real* y, const real* z, const double* params,
                          double scale, real* losses, real* grads, real* hessians, Py_ssize_t n) noexcept nogil:
    # Returns whether values may be outside their domain.
    if real is float:
        return (<LoopF32>_loops[loss][0][mode])(x, y, z, params, scale, losses, grads, hessians, n)
    else:
        return (<LoopF64>_loops[loss][1][mode])(x, y, z, params, scale, losses, grads, hessians, n)


cdef inline bint belongs(int domain, real v) noexcept nogil:
    # Whether a value lies in one of the registry's domains.
    if domain == 1:
        return v >= <real>0.0 and v <= <real>1.0
    if domain == 2:
        return v == <real>0.0 or v == <real>1.0
    if domain == 3:
        return v == <real>0.0 or v == <real>1.0 or v == -<real>1.0
    if domain == 4:
        return v >= <real>0.0
    if domain == 5:
        return v > <real>0.0
    return v > -<real>1.0


cdef inline bint suspect_above(const real* v, real shift, uint32_t less, real limit, Py_ssize_t n) noexcept nogil:
    # False only if all v + shift are from 0 to the limit, without 0 if less is 1: their bits as integers are in order,
    # those of what is negative, NaN, or 0 less 1 above all others.
    cdef Py_ssize_t i
    cdef uint32_t k = 0
    cdef uint64_t l = 0
    if real is float:
        for i in range(n):
            k = max(k, bits_f32(v[i] + shift) - less)
        return k > bits_f32(limit) - less
    else:
        # By subtraction: no vector instruction compares 64 bits without sign.
        for i in range(n):
            l |= (bits_f64(v[i] + shift) - less) | (bits_f64(limit) - bits_f64(v[i] + shift))
        return (l >> 63) != 0


cdef inline bint suspect(int domain, const real* v, Py_ssize_t n) noexcept nogil:
    # False only if all values are in the domain. Integers are collected: sums of floats would not be vectorised.
    cdef Py_ssize_t i
    cdef uint32_t k = 0
    cdef uint64_t l = 0
    cdef real low
    if domain == 1:
        return suspect_above(v, <real>0.0, 0, <real>1.0, n)
    if domain >= 4:
        return suspect_above(v, <real>1.0 if domain == 6 else <real>0.0, domain != 4, <real>INFINITY, n)
    # v (v - 1), with a factor of v + 1 for signs: 0 where the value is allowed.
    low = <real>1.0 if domain == 3 else <real>0.0
    for i in range(n):
        if real is float:
            k |= bits_f32(v[i] * (v[i] - <real>1.0) * (low * v[i] + <real>1.0))
        else:
            l |= bits_f64(v[i] * (v[i] - <real>1.0) * (low * v[i] + <real>1.0))
    return (k << 1) != 0 or (l << 1) != 0


cdef bint outside(int domain, const real* v, const uint8_t* mask, Py_ssize_t n, bint target) noexcept nogil:
    # Whether a kept value is outside its domain. A prediction that is NaN is no error, it propagates.
    cdef Py_ssize_t i
    if domain != 0 and suspect(domain, v, n):
        for i in range(n):
            if (mask == NULL or mask[i]) and not belongs(domain, v[i]) and (target or v[i] == v[i]):
                return True
    return False


cdef const real* load_third(const ElementwiseJob* job, Py_ssize_t start, real* room, Py_ssize_t n) noexcept nogil:
    # The third array's values from start on, where they are if that will do.
    cdef Py_ssize_t i = 0, k, run
    if job.third == NULL:
        return NULL
    if job.period == job.entries.n and is_native(job.third_code, room):
        return <const real*>job.third + start
    while i < n:
        k = (start + i) % job.period
        run = min(n - i, job.period - k)
        load(job.third_code, job.third, k, room + i, run)
        i += run
    return room


cdef bint values_outside(const ElementwiseJob* job, Py_ssize_t start, Py_ssize_t stop, const real* _) noexcept nogil:
    # outside() for many values at once: before an input is overwritten.
    cdef Py_ssize_t n
    cdef real room[CHUNK]
    cdef uint8_t mask_room[CHUNK]
    cdef const uint8_t* mask = NULL
    while start < stop:
        n = min(stop - start, CHUNK)
        if job.entries.mask != NULL:
            mask = load_mask(&job.entries, start, mask_room, n)
        load(job.y_code, job.y, start, room, n)
        if outside(job.domains[1], room, mask, n, True):
            return True
        load(job.entries.code, job.x, start, room, n)
        if outside(job.domains[0], room, mask, n, False):
            return True
        if job.third != NULL and outside(job.domains[2], load_third(job, start, room, n), mask, n, False):
            return True
        start += n
    return False


cdef inline bint large_integers(const ElementwiseJob* job, const float* targets, Py_ssize_t n) noexcept nogil:
    # Whether targets are integers that may be more than a float32 holds.
    cdef Py_ssize_t i
    cdef uint32_t k = 0
    if job.y_code != I32 and job.y_code != I64 and job.y_code != U32 and job.y_code != U64:
        return False
    if 1 <= job.domains[1] <= 3:
        return False
    for i in range(n):
        k = max(k, bits_f32(targets[i]) & <uint32_t>0x7FFFFFFF)
    return k >= bits_f32(<float>16777216.0)


cdef void exact_targets(const ElementwiseJob* job, Py_ssize_t start, const float* x, const float* y, const float* z,
                        double scale, float* losses, float* grads, float* hessians, Py_ssize_t n) noexcept nogil:
    # What depends on targets that a float32 does not hold, computed once more in float64, each element for itself.
    cdef Py_ssize_t i, count = 0
    cdef Py_ssize_t places[STEP]
    cdef double xs[STEP]
    cdef double ys[STEP]
    cdef double zs[STEP]
    cdef double ls[STEP]
    cdef double gs[STEP]
    cdef double hs[STEP]
    cdef double exact
    load(job.y_code, job.y, start, hs, n)
    for i in range(n):
        exact = hs[i]
        if exact != y[i]:
            places[count] = i
            xs[count] = x[i]
            ys[count] = exact
            zs[count] = z[i] if z != NULL else 0.0
            count += 1
    if count == 0:
        return
    run_loop(job.loss, job.mode, xs, ys, zs, job.params, scale, ls, gs, hs, count)
    for i in range(count):
        losses[places[i]] = <float>ls[i]
        if job.mode != 0:
            grads[places[i]] = <float>gs[i]
        if job.hess != NULL:
            hessians[places[i]] = <float>hs[i]


cdef bint elementwise_blocks(const ElementwiseJob* job, Py_ssize_t first, Py_ssize_t last, const real* _) noexcept nogil:
    cdef const Entries* e = &job.entries
    cdef Py_ssize_t block, start, stop, n, head = 0, piece = STEP if real is float else STEP // 2
    # Factors of gradients are applied in double where they differ per element or leave float32's range.
    cdef bint apart = e.weight != NULL or not is_moderate(e.scale)
    cdef double scale = 1.0 if apart else e.scale
    cdef bint narrow = real is float and is_narrow(e) and not job.squared
    # The usual case of float64 weights needs no room for what a mask leaves of them.
    cdef bint in_place = (job.mode == 1 and e.weight != NULL and e.weight_code == F64 and e.weight_run == 1
                          and e.losses == NULL and job.hess == NULL)
    cdef bint native = is_native(e.code, _), bad = False
    cdef real x_room[STEP]
    cdef real y_room[STEP]
    cdef real z_room[STEP]
    cdef real losses[STEP]
    cdef real g_room[STEP]
    cdef real h_room[STEP]
    cdef double w_room[STEP]
    cdef uint8_t mask_room[STEP]
    cdef double lanes[LANES]
    cdef double* into
    cdef const real* x
    cdef const real* y
    cdef const real* z
    cdef const double* w = NULL
    cdef const float* w_f32
    cdef real* g
    cdef real* h
    cdef const uint8_t* mask = NULL
    if native and e.n >= BLOCK:
        head = before_line(<const real*>job.x)
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * BLOCK
        stop = min(start + BLOCK, e.n)
        # The first piece ends where a line does; the lanes count from there.
        n = min(stop - start, head if head != 0 else piece)
        while start < stop:
            x = <const real*>job.x + start
            y = <const real*>job.y + start
            g = <real*>job.grad + start if native and job.grad != NULL and not narrow else g_room
            h = <real*>job.hess + start if native and job.hess != NULL and not narrow else h_room
            # In place, x is copied: a loop that writes what it reads is not vectorised.
            if not native or job.grad == job.x:
                load(e.code, job.x, start, x_room, n)
                x = x_room
            if not is_native(job.y_code, _):
                load(job.y_code, job.y, start, y_room, n)
                y = y_room
            if e.mask != NULL:
                mask = load_mask(e, start, mask_room, n)
            z = load_third(job, start, z_room, n)
            fetch_entries(e, start, n)
            # Afterwards, when the values are in the cache: the loop has time to wait for them, these checks have not.
            if run_loop(job.loss, job.mode, x, y, z, job.params, scale, losses, g, h, n):
                bad |= outside(job.domains[1], y, mask, n, True)
                bad |= outside(job.domains[0], x, mask, n, False)
                if z != NULL:
                    bad |= outside(job.domains[2], z, mask, n, False)
            if real is float:
                if large_integers(job, y, n):
                    exact_targets(job, start, x, y, z, scale, losses, g, h, n)
            if mask != NULL:
                select(losses, g if job.mode != 0 else NULL, mask, n)
                if job.hess != NULL:
                    select(h, NULL, mask, n)
            into = lanes + (LANES - head if n == head else 0)
            if narrow:
                if real is float:
                    w_f32 = kept_weights(e, start, mask, <float*>w_room, n)
                    if job.mode != 2:
                        add_weighed(into, losses, w_f32, n)
                    if job.grad != NULL:
                        weigh_f32(g, w_f32, e.scale, <float*>job.grad + start, n)
                    if job.hess != NULL:
                        weigh_f32(h, w_f32, e.scale, <float*>job.hess + start, n)
                    if e.losses != NULL:
                        weigh(losses, w_f32, 1.0, n)
            elif in_place:
                add_and_weigh(into, losses, g, <const double*>e.weight + start, mask, e.scale, n)
            else:
                if apart:
                    w = kept_weights(e, start, mask, w_room, n)
                if job.squared:
                    add_squares(into, losses, w, n)
                elif job.mode == 0:
                    if e.weight != NULL:
                        add_weighed(into, losses, w, n)
                    else:
                        add_lanes(into, losses, n)
                elif job.mode == 1:
                    if apart:
                        add_and_weigh(into, losses, g, w, NULL, e.scale, n)
                    else:
                        add_lanes(into, losses, n)
                elif apart:
                    weigh(g, w, e.scale, n)
                if apart and job.hess != NULL:
                    weigh(h, w, e.scale, n)
                if e.losses != NULL and e.weight != NULL:
                    weigh(losses, w, 1.0, n)
            if e.losses != NULL:
                store(e.code, losses, e.losses, start, n)
            if not native and job.mode != 0:
                store(e.code, g, job.grad, start, n)
            if not native and job.hess != NULL:
                store(e.code, h, job.hess, start, n)
            start += n
            n = min(stop - start, piece)
        rotate(lanes, head)
        e.partials[block] = total(lanes)
    return bad


cdef bint elementwise_blocks_f32(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return elementwise_blocks(<const ElementwiseJob*>job, first, last, <const float*>NULL)


cdef bint elementwise_blocks_f64(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return elementwise_blocks(<const ElementwiseJob*>job, first, last, <const double*>NULL)
