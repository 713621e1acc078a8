# Cross-entropy of many classes: each row's maximum and exponentials in chunks.

cdef enum:
    LOW = 256               # float32 rows whose maximum is below this in magnitude have a shorter way still
    GUESSED = 768           # rows of so many classes do not look for their maximum first
    HIGHER = 40             # by so much the maximum may be above what was taken for it
    TOPS = 32               # accumulators of a row's maximum
    SUMS = 16               # and of the sum of its exponentials in float32
    LINE = 16               # exponentials between two looks ahead in memory
    PIECE = 256             # in float64
    WIDE_ROOM = 5120        # rows of a block, each rounded up to 16 classes: most for 65 classes, 63 rows of 80

cdef double TINY = 1e-30    # a factor below this may not fit into float32


cdef void zero_row(const RowJob* job, Py_ssize_t i) noexcept nogil:
    cdef Py_ssize_t size = job.classes * bytes_of(job.entries.code)
    if job.grad != NULL:
        memset(<char*>job.grad + i * size, 0, size)


cdef inline real greatest(const real* tops) noexcept nogil:
    cdef Py_ssize_t j
    cdef real b[16]
    for j in range(16):
        b[j] = larger(tops[j + 16], tops[j])
    for j in range(8):
        b[j] = larger(b[j + 8], b[j])
    for j in range(4):
        b[j] = larger(b[j + 4], b[j])
    return larger(larger(b[3], b[1]), larger(b[2], b[0]))


cdef inline bint raise_to(const real* tops, const real* x, Py_ssize_t n, real* m, Py_ssize_t* place) noexcept nogil:
    # Raise m to the greatest of n values if that is more, and say where it is, given the greatest of each lane.
    cdef Py_ssize_t i, j, found = n - TOPS
    cdef int lane = 0
    cdef real v = greatest(tops)
    if not v > m[0]:
        return False
    # Loops without a break: no branch to guess.
    for j in range(TOPS):
        lane = <int>j if tops[j] >= v else lane
    found += lane
    for i in range(n // TOPS):
        found = i * TOPS + lane if x[i * TOPS + lane] >= v else found
    m[0] = v
    place[0] = found
    return True


cdef bint raise_maximum(const real* x, Py_ssize_t n, real* m, Py_ssize_t* place) noexcept nogil:
    # The same from the start.
    cdef Py_ssize_t i, j, found = 0
    cdef real a[TOPS]
    cdef real v = m[0]
    cdef const real* r
    if n >= TOPS:
        for j in range(TOPS):
            a[j] = v
        for i in range((n + TOPS - 1) // TOPS):
            # The last row of lanes may overlap the one before: a maximum does not mind.
            r = x + min(i * TOPS, n - TOPS)
            for j in range(TOPS):
                a[j] = larger(r[j], a[j])
        return raise_to(a, x, n, m, place)
    for i in range(n):
        v = larger(x[i], v)
    if not v > m[0]:
        return False
    for i in range(n):
        found = i if x[i] >= v else found
    m[0] = v
    place[0] = found
    return True


cdef inline bint is_low(real m) noexcept nogil:
    # Whether e is exp(x - m) times a factor near 2^31, which float32 saves operations by. Then m has a say in the factor
    # alone: in m's place there may be any value from which the maximum is not far.
    return real is float and abs_f32(<float>m) < <float>LOW


cdef inline double unit_of(real m, real near) noexcept nogil:
    # What e computed with a value near the maximum are relative to; close to what the maximum's e is rounded to.
    return exp_top_f64(m, halvings_f32(<float>near)) if is_low(near) else 1.0


cdef inline real exp_below(real x, real m) noexcept nogil:
    # e of one value, as the loops below compute it.
    if real is float:
        return exp_scaled_f32(x, m) if is_low(m) else exp_diff_f32(x, m)
    else:
        return exp_near_f64(x, m) if abs_f64(m) < <double>NEAR else exp_diff_f64(x, m)


cdef void exp_chunk(const real* x, real m, real* e, Py_ssize_t n, const real* ahead) noexcept nogil:
    # e of n values elsewhere in memory, while what lies ahead is brought near. In lines of known length, the last one
    # over part of the one before: where a loop of unknown length ends, the CPU loses the time of a hundred values.
    cdef Py_ssize_t i, j, at
    cdef real t[LINE]
    if n < LINE:
        for i in range(n):
            e[i] = exp_below(x[i], m)
    elif real is float:
        if is_low(m):
            for i in range((n + LINE - 1) // LINE):
                at = min(i * LINE, n - LINE)
                prefetch(ahead + at)
                prefetch(e + at + CHUNK)
                for j in range(LINE):
                    t[j] = exp_scaled_f32(x[at + j], m)
                for j in range(LINE):
                    e[at + j] = t[j]
        else:
            for i in range((n + LINE - 1) // LINE):
                at = min(i * LINE, n - LINE)
                prefetch(ahead + at)
                prefetch(e + at + CHUNK)
                for j in range(LINE):
                    t[j] = exp_diff_f32(x[at + j], m)
                for j in range(LINE):
                    e[at + j] = t[j]
    else:
        if abs_f64(m) < <double>NEAR:
            for i in range((n + PIECE - 1) // PIECE):
                at = i * PIECE
                fetch(ahead + at, PIECE * sizeof(real))
                for j in range(at, min(at + PIECE, n)):
                    e[j] = exp_near_f64(x[j], m)
        else:
            for i in range((n + PIECE - 1) // PIECE):
                at = i * PIECE
                fetch(ahead + at, PIECE * sizeof(real))
                for j in range(at, min(at + PIECE, n)):
                    e[j] = exp_diff_f64(x[j], m)


cdef bint exp_and_raise(const real* x, real near, real* e, Py_ssize_t n, const real* ahead, real* m, Py_ssize_t* place) noexcept nogil:
    # exp_chunk() and raise_maximum() in one, of a float32 chunk of TOPS values or more.
    cdef Py_ssize_t i, j, at
    cdef real t[TOPS]
    cdef real a[TOPS]
    for j in range(TOPS):
        a[j] = m[0]
    for i in range((n + TOPS - 1) // TOPS):
        at = min(i * TOPS, n - TOPS)
        fetch(ahead + at, TOPS * sizeof(real))
        fetch(e + at + CHUNK, TOPS * sizeof(real))
        for j in range(TOPS):
            t[j] = exp_scaled_f32(x[at + j], near) if real is float else exp_below(x[at + j], near)
        for j in range(TOPS):
            a[j] = larger(x[at + j], a[j])
        for j in range(TOPS):
            e[at + j] = t[j]
    return raise_to(a, x, n, m, place)


cdef double sum_exponentials(const real* e, Py_ssize_t n) noexcept nogil:
    # float32 values are added in fours before they are widened: in a sum of as many terms as make it pay, those two
    # roundings are within the bounds. Lanes that no caller sees stay in registers.
    cdef Py_ssize_t i, j, quads = n // (4 * SUMS), rest = n % SUMS
    cdef int skip = <int>(SUMS - rest)
    cdef double a[SUMS]
    cdef double b[8]
    cdef double lanes[LANES]
    cdef const real* v
    if real is double:
        clear_lanes(lanes)
        add_lanes(lanes, e, n)
        return total(lanes)
    else:
        for j in range(SUMS):
            a[j] = 0.0
        for i in range(quads):
            v = e + i * 4 * SUMS
            for j in range(SUMS):
                a[j] = a[j] + <double>((v[j] + v[SUMS + j]) + (v[2 * SUMS + j] + v[3 * SUMS + j]))
        for i in range(4 * quads, n // SUMS):
            v = e + i * SUMS
            for j in range(SUMS):
                a[j] = a[j] + <double>v[j]
        if n >= SUMS and rest > 0:
            # What is left, in its last lanes.
            v = e + n - SUMS
            for j in range(SUMS):
                a[j] = a[j] + (<double>v[j] if <int>j >= skip else 0.0)
        elif rest > 0:
            for j in range(rest):
                a[j] = a[j] + <double>e[j]
        for j in range(8):
            b[j] = a[j] + a[j + 8]
        for j in range(4):
            b[j] = b[j] + b[j + 4]
        return (b[0] + b[2]) + (b[1] + b[3])


cdef void fold(double* lanes, double* sums) noexcept nogil:
    # Adds a chunk's lanes to a sum of chunks, and clears them: many small terms would be lost in a lane with a large one.
    add_chunk(sums, total(lanes))
    clear_lanes(lanes)


cdef inline double folded(const double* sums) noexcept nogil:
    # What a sum that is infinite has lost is not a number.
    return sums[0] + (sums[1] if sums[1] == sums[1] else 0.0)


cdef void add_smoothing(double* lanes, const real* x, real m, const double* w, Py_ssize_t n) noexcept nogil:
    # Add w_k (m - x_k), classes of weight 0 left out.
    cdef Py_ssize_t i, j, at, rows = n // LANES
    for i in range(rows):
        at = i * LANES
        if w != NULL:
            for j in range(LANES):
                lanes[j] = lanes[j] + smoothing_term(m, x[at + j], w[at + j])
        else:
            for j in range(LANES):
                lanes[j] = lanes[j] + (<double>m - <double>x[at + j])
    for i in range(rows * LANES, n):
        lanes[i % LANES] += smoothing_term(m, x[i], w[i] if w != NULL else 1.0)


cdef void scale_chunk(const real* e, real* g, real factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = e[i] * factor


cdef void scale_smooth_chunk(const real* e, real* g, double factor, double shift, const double* w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = <real>(<double>e[i] * factor - (shift * w[i] if w != NULL else shift))


cdef inline bint is_short(double factor, const real* _) noexcept nogil:
    # Whether a factor of exponentials may be rounded to their type: it is well within its range.
    return real is double or TINY <= abs_f64(factor) <= 1.0 / TINY


cdef void absorb(real* e, double factor, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    # An infinite factor, of a square of an infinite log-sum-exp, goes into the exponentials: where they are 0 it is not
    # felt.
    cdef Py_ssize_t i
    for i in range(n):
        e[i * step] = <real>(<double>e[i * step] * factor) if e[i * step] != <real>0.0 else <real>0.0


cdef real row_maximum(const RowJob* job, Py_ssize_t i, Py_ssize_t* top, const real* _) noexcept nogil:
    # The maximum and its place; -inf where a row holds nothing but NaN and -inf.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = i * c, chunk, start, n, place = 0
    cdef real x_room[CHUNK]
    cdef const real* x
    cdef real m = <real>-INFINITY
    top[0] = 0
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        x = <const real*>job.x + base + start
        if not is_native(code, _):
            load(code, job.x, base + start, x_room, n)
            x = x_room
        if raise_maximum(x, n, &m, &place):
            top[0] = start + place
    return m


cdef inline real low_guess(const RowJob* job, Py_ssize_t i, const real* _) noexcept nogil:
    # The greatest of a row's first values, from which the maximum is seldom far; NaN if e have no short way.
    cdef Py_ssize_t j, top, base = i * job.classes
    cdef real room[TOPS]
    cdef real m
    load(job.entries.code, job.x, base, room, TOPS)
    for j in range(TOPS):
        room[j] = larger(room[j], <real>-INFINITY)
    m = greatest(room)
    # Where e are written over the logits there is no second try.
    if job.classes > BLOCK and job.grad == job.x and row_maximum(job, i, &top, _) - m > <real>HIGHER:
        return <real>NAN
    return m if is_low(m) else <real>NAN


cdef real find_maximum(const RowJob* job, Py_ssize_t i, Py_ssize_t* top, bint* infinite, const real* _) noexcept nogil:
    # The maximum, or if that is infinite, of the row that stands for this one.
    cdef real m = row_maximum(job, i, top, _)
    infinite[0] = m == <real>INFINITY
    return limit_maximum(job, i, _) if infinite[0] else m


cdef inline real* exponentials(const RowJob* job, real* room, Py_ssize_t r, Py_ssize_t first, Py_ssize_t start) noexcept nogil:
    # Where the e of row first + r are kept from its class start on: in the gradient's own memory; where that is
    # narrower, not wanted or the logits', rows of a block side by side, aligned, and of a longer row the chunk at hand.
    cdef Py_ssize_t c = job.classes
    if job.grad != NULL and is_native(job.entries.code, room) and (c > BLOCK or job.grad != job.x):
        return <real*>job.grad + (first + r) * c + start
    return room + (r * ((c + 15) // 16 * 16) + start if c <= BLOCK else 0)


cdef void wide_rows(const RowJob* job, Py_ssize_t first, Side* side, Py_ssize_t n, Py_ssize_t padded, const real* _) noexcept nogil:
    # Rows first to first + n in phases, so that one row's latencies hide behind another's work.
    # The gradient may be written over the logits.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, r, start, size, base, chunk, chunks = (c + CHUNK - 1) // CHUNK
    cdef bint native = is_native(code, _), kept = c <= BLOCK or (native and job.grad != NULL)
    cdef real x_room[CHUNK]
    cdef real e_room[WIDE_ROOM]
    cdef real m[SIDE]
    cdef real near[SIDE]            # what e are computed with
    cdef real x_y[SIDE]
    cdef Py_ssize_t top[SIDE]
    cdef bint infinite[SIDE]
    # Where it is quick to find or smoothing needs it, the maximum comes first.
    cdef bint guessing = real is float and c >= GUESSED and job.smoothing == 0.0, guessed, raised, pulled_up
    cdef double unit[SIDE]
    cdef double smooth[LANES]
    cdef double sums[2]
    cdef Py_ssize_t place = 0
    cdef const real* x
    cdef real* e
    cdef real* g
    cdef real* top_e
    cdef const double* w
    cdef const real* ahead
    cdef double v = job.smoothing / <double>c, factor, held = 0.0
    for r in range(padded):
        m[r] = <real>0.0
        near[r] = <real>0.0
        x_y[r] = <real>0.0
        infinite[r] = False
        if side.y[r] >= 0:
            load(code, job.x, (first + r) * c + side.y[r], x_y + r, 1)
            m[r] = <real>-INFINITY
            top[r] = -1
            near[r] = low_guess(job, first + r, _) if guessing else <real>NAN
            if near[r] != near[r]:
                m[r] = find_maximum(job, first + r, top + r, infinite + r, _)
                near[r] = m[r]
    for r in range(n):
        if side.y[r] < 0:
            continue
        base = (first + r) * c
        guessed = top[r] < 0
        sums[0] = sums[1] = 0.0
        if v != 0.0:
            clear_lanes(smooth)
        top_e = NULL
        chunk = 0
        while chunk < chunks:
            start = chunk * CHUNK
            size = min(c - start, CHUNK)
            x = <const real*>job.x + base + start
            e = exponentials(job, e_room, r, first, start)
            if not native or e == x or infinite[r]:
                load(code, job.x, base + start, x_room, size)
                x = x_room
                if infinite[r]:
                    to_limit(x_room, size, 1)
            ahead = <const real*>job.x + (base + n * c + start) if native else x
            chunk += 1
            if guessed:
                if size >= TOPS:
                    raised = exp_and_raise(x, near[r], e, size, ahead, m + r, &place)
                else:
                    exp_chunk(x, near[r], e, size, ahead)
                    raised = raise_maximum(x, size, m + r, &place)
                if m[r] - near[r] > <real>HIGHER:
                    # Once more, from the maximum.
                    m[r] = find_maximum(job, first + r, top + r, infinite + r, _)
                    near[r] = m[r]
                    guessed = False
                    sums[0] = sums[1] = 0.0
                    chunk = 0
                    continue
                if raised:
                    if top_e != NULL:
                        add_chunk(sums, held)
                        if kept:
                            top_e[0] = <real>held
                    top[r] = start + place
                    top_e = e + place
                    held = <double>top_e[0]
            else:
                exp_chunk(x, near[r], e, size, ahead)
            # One maximum stays out of the sum, whose digits it would swallow.
            if start <= top[r] < start + size:
                e[top[r] - start] = <real>0.0
            add_chunk(sums, sum_exponentials(e, size))
            if v != 0.0:
                add_smoothing(smooth, x, m[r], job.class_weight + start if job.class_weight != NULL else NULL, size)
        side.s[r] = sums[0] + sums[1]
        if v != 0.0:
            side.smooth[r] = total(smooth)
    for r in range(padded):
        side.m[r] = m[r] + <real>INFINITY if infinite[r] else m[r]
        if infinite[r]:
            to_limit(x_y + r, 1, 1)
    for r in range(padded):
        unit[r] = unit_of(m[r], near[r])
        side.gap[r] = <double>m[r] - <double>x_y[r]
        side.s[r] = side.s[r] / unit[r]
        side.own[r] = <double>exp_below(x_y[r], near[r]) / unit[r]
    finish_sides(job, side, padded)
    if job.grad == NULL:
        return
    for r in range(n):
        if side.y[r] < 0:
            zero_row(job, first + r)
            continue
        base = (first + r) * c
        factor = side.factor[r] / unit[r]
        pulled_up = infinite[r] and abs_f64(factor) == INFINITY
        if pulled_up:
            factor = 1.0
        for chunk in range(chunks):
            start = chunk * CHUNK
            size = min(c - start, CHUNK)
            e = exponentials(job, e_room, r, first, start)
            if not kept:
                load(code, job.x, base + start, x_room, size)
                if infinite[r]:
                    to_limit(x_room, size, 1)
                exp_chunk(x_room, near[r], e, size, x_room)
            if start <= top[r] < start + size:
                e[top[r] - start] = <real>unit[r]
            g = <real*>job.grad + base + start if native else x_room
            if pulled_up:
                absorb(e, side.factor[r], size, 1)
            if v == 0.0 and is_short(factor, _):
                scale_chunk(e, g, <real>factor, size)
            else:
                w = job.class_weight + start if job.class_weight != NULL else NULL
                scale_smooth_chunk(e, g, factor, v * side.scale[r], w, size)
            if start <= side.y[r] < start + size:
                g[side.y[r] - start] = <real>side.g_y[r]
            if not native:
                store(code, g, job.grad, base + start, size)
