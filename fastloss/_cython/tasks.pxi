# A kernel over blocks on several threads: the calling one, and those of the pool.

import os

from fastloss._threads import submit

cdef enum:
    PATIENCE = 300  # looks, a fraction of a microsecond each, for another task before a thread goes to sleep


cdef struct Work:
    # In pieces that threads claim one after the other, so a thread that comes late or whose core is busy elsewhere does
    # not hold up the call. One that comes after the end finds nothing to do.
    Kernel kernel
    const void* job
    Py_ssize_t blocks
    Py_ssize_t burst        # pieces between two looks at pending signals
    int64_t pieces, claimed, active, bad
    int64_t places          # for other threads than the caller's


cdef struct Board:
    # Where one call at a time offers its work to threads that are still awake: to wake one takes 60 to 90 µs.
    int64_t callers         # that offer their work, or would
    int64_t work            # its address, or 0
    int64_t offers          # so far, counted
    int64_t looking         # threads that are about to take it up: it must not go
    int64_t waiting         # threads that are awake
    int64_t called          # threads that have been told to wake up
    int cpu                 # that the last caller ran on


cdef Board board


cdef bint work_on(Work* w, bint to_the_end) noexcept nogil:
    # Work until nothing is left, or for a while; returns whether there may be more.
    cdef int64_t k = 0, done = 0
    atomic_add(&w.active, 1)
    while to_the_end or done < w.burst:
        k = atomic_add(&w.claimed, 1)
        if k >= w.pieces:
            break
        if w.kernel(w.job, w.blocks * k // w.pieces, w.blocks * (k + 1) // w.pieces):
            atomic_add(&w.bad, 1)
        done += 1
    atomic_add(&w.active, -1)
    return k < w.pieces


cdef void take_up(int64_t* seen) noexcept nogil:
    # The work on the board, unless this thread has seen it.
    cdef Work* w
    cdef int64_t offer
    atomic_add(&board.looking, 1)
    w = <Work*><Py_ssize_t>atomic_add(&board.work, 0)
    offer = atomic_add(&board.offers, 0)
    if w == NULL or offer == seen[0] or atomic_add(&w.places, -1) <= 0:
        atomic_add(&board.looking, -1)
        return
    seen[0] = offer
    atomic_add(&w.active, 1)
    atomic_add(&board.looking, -1)
    work_on(w, True)
    atomic_add(&w.active, -1)


cdef void wait_for_more() noexcept nogil:
    cdef int64_t seen = 0, last
    cdef int k = 0
    atomic_add(&board.waiting, 1)
    while k < PATIENCE:
        last = seen
        # On the caller's own CPU it would but take turns with it, and who never sleeps is not moved.
        if this_cpu() == board.cpu:
            leave_cpu(board.cpu)
        if atomic_add(&board.work, 0) != 0:
            take_up(&seen)
        k = k + 1 if seen == last else 0
        yield_core()
    atomic_add(&board.waiting, -1)


cdef bint offer_work(Work* w) noexcept nogil:
    # Whether the board was free for it.
    if atomic_add(&board.callers, 1) != 0:
        atomic_add(&board.callers, -1)
        return False
    board.cpu = this_cpu()
    atomic_add(&board.offers, 1)
    atomic_add(&board.work, <int64_t><Py_ssize_t>w)
    return True


cdef void end_work(Work* w, bint offered) noexcept nogil:
    # Let nobody begin another piece, and wait for those who have: the job is about to go.
    atomic_add(&w.claimed, w.pieces)
    if offered:
        atomic_add(&board.work, -<int64_t><Py_ssize_t>w)
        while atomic_add(&board.looking, 0) > 0:  # whoever saw it is active by then
            yield_core()
        atomic_add(&board.callers, -1)
    if atomic_add(&board.called, 0) > 0:  # perhaps on this CPU
        yield_core()
    while atomic_add(&w.active, 0) > 0:
        yield_core()


cdef class Task:
    cdef Work work

    def __call__(self):
        with nogil:
            atomic_add(&board.called, -1)
            if atomic_add(&self.work.places, -1) > 0:
                work_on(&self.work, True)
            wait_for_more()


cdef bint launch(Kernel kernel, const void* job, Py_ssize_t blocks, Py_ssize_t size, int threads) except? True:
    # Run a kernel over all blocks, of `size` elements each.
    cdef Task task
    cdef Work* w
    cdef bint bad, more, offered = False
    cdef int64_t helpers
    if blocks < 2 or (threads <= 1 and blocks * size <= SPAN):
        with nogil:
            bad = kernel(job, 0, blocks)
        return bad
    task = Task.__new__(Task)
    w = &task.work
    w.kernel = kernel
    w.job = job
    w.blocks = blocks
    w.pieces = min(blocks, max(blocks * size // SPAN + 1, 32 * threads if threads > 1 else 1))
    w.burst = max(1, SPAN // max(1, blocks * size // w.pieces))
    w.places = helpers = min(<int64_t>threads, w.pieces) - 1
    try:
        offered = helpers > 0 and offer_work(w)
        if offered:
            helpers -= atomic_add(&board.waiting, 0) + max(<int64_t>0, atomic_add(&board.called, 0))
        while helpers > 0:
            if not submit(task, threads).cancelled():  # a thread could be started; it may have begun already
                atomic_add(&board.called, 1)
            helpers -= 1
        while True:
            with nogil:
                more = work_on(w, False)
            if not more:
                break
            PyErr_CheckSignals()
    finally:
        with nogil:
            end_work(w, offered)
    return w.bad > 0


def _after_fork():
    # What is on the board is the parent's.
    memset(&board, 0, sizeof(Board))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
