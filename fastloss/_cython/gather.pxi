# The temporal-difference loss: one action's value per row, a target from the next row, any of the elementwise losses.

cdef struct TDJob:
    Entries entries
    Py_ssize_t actions_count
    Py_ssize_t block_rows
    const void* q
    const void* actions
    Code actions_code
    const void* rewards
    const void* next_q
    const uint8_t* terminated
    double gamma
    const void* online      # NULL, or the values whose maximum names the next action
    const uint8_t* legal    # NULL, or the next actions that exist
    int loss
    double params[MAX_PARAMS]
    void* grad
    void* td_error


cdef inline real value_at(const real* _, Code code, const void* source, Py_ssize_t i) noexcept nogil:
    cdef real v
    if is_native(code, _):
        return (<const real*>source)[i]
    load(code, source, i, &v, 1)
    return v


cdef real best_value(const real* values, const uint8_t* legal, Py_ssize_t count) noexcept nogil:
    # Largest legal value, 0 if there is none; NaN wins, as everywhere. Eight maxima at a time, without branches.
    cdef real m[8]
    cdef real v
    cdef Py_ssize_t a, j, whole = count - count % 8
    cdef int nan = 0, some = legal == NULL
    for j in range(8):
        m[j] = <real>-INFINITY
    if legal == NULL:
        for a in range(0, whole, 8):
            for j in range(8):
                v = values[a + j]
                nan |= v != v
                m[j] = larger(v, m[j])
    else:
        for a in range(0, whole, 8):
            for j in range(8):
                v = values[a + j] if legal[a + j] else <real>-INFINITY
                some |= legal[a + j]
                nan |= v != v
                m[j] = larger(v, m[j])
    for a in range(whole, count):
        if legal == NULL or legal[a]:
            v = values[a]
            some = 1
            nan |= v != v
            m[a - whole] = larger(v, m[a - whole])
    if not some:
        return <real>0.0
    if nan:
        return <real>NAN
    # Of 0 and -0 either may have won; adding 0 makes it 0.
    return larger(larger(larger(m[0], m[1]), larger(m[2], m[3])), larger(larger(m[4], m[5]), larger(m[6], m[7]))) + <real>0.0


cdef real best_next(const TDJob* job, Py_ssize_t i, const real* _) noexcept nogil:
    # Value of the best legal next action; 0 if there is none.
    cdef Code code = job.entries.code
    cdef Py_ssize_t a, count = job.actions_count, base = i * count, top = -1
    cdef const void* values = job.next_q if job.online == NULL else job.online
    cdef real v, best = <real>-INFINITY
    if job.online == NULL and is_native(code, _):
        return best_value(<const real*>values + base, job.legal + base if job.legal != NULL else NULL, count)
    for a in range(count):
        if job.legal != NULL and not job.legal[base + a]:
            continue
        v = value_at(_, code, values, base + a)
        if top < 0 or v > best or (v != v and best == best):
            best = v
            top = a
    if top < 0:
        return <real>0.0
    return best + <real>0.0 if job.online == NULL or best != best else value_at(_, code, job.next_q, base + top)


cdef void best_beside(const TDJob* job, Py_ssize_t first, real* best, Py_ssize_t n, const real* _) noexcept nogil:
    # best_next of few actions, for rows side by side: one action after the other.
    cdef Code code = job.entries.code
    cdef Py_ssize_t count = job.actions_count, base = first * count, i, r, k, k1, k2, k3
    cdef real flat[NARROW * SIDE]
    cdef real x[NARROW * SIDE]
    cdef int32_t nan[SIDE]
    cdef int32_t some
    cdef const real* source = <const real*>job.next_q + base
    cdef const uint8_t* legal = NULL
    cdef real v, w, y, z
    if job.legal != NULL or not is_native(code, _):
        load(code, job.next_q, base, flat, n * count)
        source = flat
    if job.legal != NULL:
        legal = job.legal + base
        for i in range(n * count):
            flat[i] = flat[i] if legal[i] else <real>-INFINITY
    transpose(source, count, x, n, n, count)
    for r in range(n):
        best[r] = <real>-INFINITY
        nan[r] = 0
    for k in range(0, count, 4):
        k1 = min(k + 1, count - 1) * n
        k2 = min(k + 2, count - 1) * n
        k3 = min(k + 3, count - 1) * n
        for r in range(n):
            v = x[k * n + r]
            w = x[k1 + r]
            y = x[k2 + r]
            z = x[k3 + r]
            best[r] = larger(z, larger(y, larger(w, larger(v, best[r]))))
            nan[r] = nan[r] | (v != v) | (w != w) | (y != y) | (z != z)
    for r in range(n):
        # Of 0 and -0 either may have won; adding 0 makes it 0.
        best[r] = <real>NAN if nan[r] else best[r] + <real>0.0
    if legal != NULL:
        for r in range(n):
            if best[r] == <real>-INFINITY:
                some = 0
                for k in range(count):
                    some |= legal[r * count + k]
                best[r] = best[r] if some else <real>0.0


cdef bint td_blocks(const TDJob* job, Py_ssize_t first, Py_ssize_t last, const real* _) noexcept nogil:
    cdef const Entries* e = &job.entries
    cdef Py_ssize_t block, start, stop, n, r, a, count = job.actions_count
    cdef Py_ssize_t size = bytes_of(e.code)
    cdef bint native = is_native(e.code, _), bad = False
    cdef real value[SIDE]
    cdef real target[SIDE]
    cdef real best[SIDE]
    cdef real losses[SIDE]
    cdef real grads[SIDE]
    cdef real errors[SIDE]
    cdef double values[SIDE]
    cdef double weights[SIDE]
    cdef uint8_t kept[SIDE]
    cdef uint8_t room[SIDE]
    cdef const uint8_t* mask
    cdef const uint8_t* terminated
    cdef int64_t chosen[SIDE]
    cdef int64_t outside
    cdef double lanes[LANES]
    cdef double later
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * job.block_rows
        stop = min(start + job.block_rows, e.n)
        while start < stop:
            n = min(stop - start, SIDE)
            load_indices(job.actions_code, job.actions, start, chosen, n)
            memset(kept, 1, SIDE)
            if e.mask != NULL:
                mask = load_mask(e, start, room, n)
                for r in range(n):
                    kept[r] = mask[r] != 0
                for r in range(n):
                    chosen[r] = chosen[r] if kept[r] else 0
            outside = 0
            for r in range(n):
                # Negative if either is; unsigned, as -2^63 has no negative.
                outside |= chosen[r] | <int64_t>(<uint64_t>(count - 1) - <uint64_t>chosen[r])
            if outside < 0:
                bad = True
                for r in range(n):
                    if chosen[r] < 0 or chosen[r] >= count:
                        kept[r] = 0
                        chosen[r] = 0
            # The values chosen lie scattered; the next rows' and the gradient's place are fetched along with them.
            for r in range(n):
                prefetch(<const char*>job.q + ((start + r) * count + chosen[r]) * size)
            fetch(<const char*>job.next_q + (start + n) * count * size, n * count * size)
            if job.grad != NULL:
                fetch(<const char*>job.grad + start * count * size, n * count * size)
            terminated = job.terminated + start
            # Of so many in float64, transposing costs more than it saves.
            if job.gamma == 0.0:
                for r in range(n):  # what comes next is worth nothing, whatever it is
                    best[r] = <real>0.0
            elif job.online == NULL and count * <Py_ssize_t>sizeof(real) <= 4 * NARROW:
                best_beside(job, start, best, n, _)
            else:
                for r in range(n):
                    best[r] = best_next(job, start + r, _) if kept[r] and not terminated[r] else <real>0.0
            load(e.code, job.rewards, start, target, n)
            for r in range(n):
                later = 0.0 if terminated[r] else <double>best[r]
                target[r] = <real>fma_f64(job.gamma, later, <double>target[r]) if kept[r] else <real>0.0
            for r in range(n):
                value[r] = value_at(_, e.code, job.q, (start + r) * count + chosen[r])
            select(value, NULL, kept, n)
            run_loop(job.loss, 1, value, target, <const real*>NULL, job.params, 1.0, losses, grads, grads, n)
            for r in range(n):
                errors[r] = target[r] - value[r]
            # Neither costs anything where nothing is kept; a weight may still be NaN there.
            if e.weight != NULL:
                load_weights(e, start, weights, n)
                select(weights, NULL, kept, n)
                for r in range(n):
                    values[r] = <double>losses[r] * weights[r]
                    losses[r] = <real>values[r]
                    grads[r] = <real>(<double>grads[r] * (weights[r] * e.scale))
                add_lanes(lanes, values, n)
            else:
                for r in range(n):
                    grads[r] = <real>(<double>grads[r] * e.scale)
                add_lanes(lanes, losses, n)
            if e.losses != NULL:
                store(e.code, losses, e.losses, start, n)
            if job.td_error != NULL:
                store(e.code, errors, job.td_error, start, n)
            if job.grad != NULL:
                memset(<char*>job.grad + start * count * size, 0, n * count * size)
                for r in range(n):
                    a = (start + r) * count + chosen[r]
                    if native:
                        (<real*>job.grad)[a] = grads[r]
                    else:
                        store(e.code, grads + r, job.grad, a, 1)
            start += n
        e.partials[block] = total(lanes)
    return bad


cdef bint td_blocks_f32(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return td_blocks(<const TDJob*>job, first, last, <const float*>NULL)


cdef bint td_blocks_f64(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return td_blocks(<const TDJob*>job, first, last, <const double*>NULL)
