# A kernel over blocks on several threads: the calling one, and helpers that sleep until there is work.
#
# Helpers are no Python threads. They have no interpreter state, so they never wait for its lock and no finalizer,
# signal handler, greenlet or monkey patch can run on them or take their place. A call goes like this:
#   1. It takes a slot and copies its job there: another greenlet may use the caller's stack before the call ends.
#   2. It sets `claimed` to 0, which opens the slot, and wakes helpers if too few are awake.
#   3. Caller and helpers claim pieces one after the other until none is left. A helper that comes late, or whose core
#      is busy elsewhere, holds up nobody. The caller looks at pending signals between bursts of pieces; what Python
#      runs then may call again, and takes a slot of its own.
#   4. The caller closes the slot, by claiming more pieces than there are, and waits for the helpers that are inside.
# A helper announces itself (`inside`) before it claims, and the caller looks at `inside` after it has closed the slot,
# so one of the two sees the other.

import atexit
import os

from fastloss._threads import FINER, GRAIN, PATIENCE, ended

cdef extern from "pythread.h" nogil:
    # What CPython builds its own threads from, on every system; these work without the interpreter's lock.
    void* PyThread_allocate_lock()
    void PyThread_free_lock(void*)
    int PyThread_acquire_lock(void*, int)
    void PyThread_release_lock(void*)
    unsigned long PyThread_get_thread_ident()

cdef extern from "pythread.h":
    unsigned long PyThread_start_new_thread(void (*)(void*) noexcept nogil, void*)

cdef enum:
    CALLS = 32          # slots: so many calls at a time have helpers
    HELPERS = 255
    JOB = 1024          # bytes of the largest job and more

cdef int64_t CLOSED = 1 << 62


cdef struct Slot:
    int64_t taken       # 0: free
    int64_t inside      # helpers that may be working on it
    int64_t places      # for more of them
    int64_t claimed     # pieces; CLOSED and more while there is no work
    int64_t bad         # pieces in which a value was bad
    int64_t[3] apart    # what follows is only read while there is work: a cache line of its own
    int64_t owner       # the thread whose call this is
    int64_t pieces
    int64_t blocks
    int64_t burst       # pieces between two looks at pending signals
    Kernel kernel
    char job[JOB]


cdef struct Helper:
    int64_t parked      # 1: sleeps, or is about to; who sets it to 0 releases the lock
    void* lock


cdef struct Board:
    int64_t hired       # helpers that have been started
    int64_t alive
    int64_t awake       # helpers that look for work
    int64_t called      # helpers that have been told to wake up and have not yet
    int64_t paused      # above 0 while a fork is under way
    int64_t stopped     # the interpreter is about to end
    int cpu             # that the last caller ran on


cdef Slot slots[CALLS]
cdef Helper helpers[HELPERS]
cdef Board board
cdef int64_t patience = PATIENCE  # looks for work before a helper goes to sleep
cdef int64_t worth_noting = 2 * GRAIN // FINER  # elements of a call whose end `choose` wants to know of


cdef bint work_on(Slot* s, int64_t most) noexcept nogil:
    # Work until nothing is left, or on so many pieces; returns whether there may be more.
    cdef int64_t k, done = 0
    while done < most:
        k = atomic_add(&s.claimed, 1)
        if k >= s.pieces:
            return False
        if s.kernel(s.job, s.blocks * k // s.pieces, s.blocks * (k + 1) // s.pieces):
            atomic_add(&s.bad, 1)
        done += 1
    return True


cdef inline bint is_open(Slot* s) noexcept nogil:
    return atomic_load(&s.claimed) < s.pieces and atomic_load(&s.places) > 0


cdef bint find_work() noexcept nogil:
    # Whether there is work for a helper.
    cdef int k
    if atomic_load(&board.paused) == 0:
        for k in range(CALLS):
            if slots[k].pieces > 0 and is_open(&slots[k]):
                return True
    return False


cdef bint take_up(Slot* s) noexcept nogil:
    # Help with a call if there is a place left; returns whether there was.
    cdef bint found = False
    atomic_add(&s.inside, 1)
    if is_open(s) and atomic_add(&s.places, -1) > 0:
        found = True
        # Piece by piece: a fork waits for helpers to stop.
        while atomic_load(&board.paused) == 0 and work_on(s, 1):
            pass
    atomic_add(&s.inside, -1)
    return found


cdef void wait_for_work() noexcept nogil:
    # Stay awake for a while and take up what comes.
    cdef int64_t k = 0
    cdef int i
    atomic_add(&board.awake, 1)
    while k < patience and atomic_load(&board.stopped) == 0:
        k += 1
        # On the caller's own CPU, caller and helper would take turns; a thread that never sleeps is not moved.
        if this_cpu() == board.cpu:
            leave_cpu(board.cpu)
        if find_work():
            for i in range(CALLS):
                if is_open(&slots[i]) and take_up(&slots[i]):
                    k = 0
        yield_core()
    atomic_add(&board.awake, -1)


cdef void help(void* which) noexcept nogil:
    # What a helper does all its life.
    cdef Helper* me = <Helper*>which
    while atomic_load(&board.stopped) == 0:
        wait_for_work()
        atomic_swap(&me.parked, 1)
        # Work that came in between had no reason to wake this helper.
        if (find_work() or atomic_load(&board.stopped) != 0) and atomic_swap(&me.parked, 0) == 1:
            continue
        PyThread_acquire_lock(me.lock, 1)
        atomic_add(&board.called, -1)
    atomic_add(&board.alive, -1)


cdef void hire(int64_t wanted):
    # Start helpers, with the interpreter's lock held: so only one thread is here at a time.
    cdef Helper* new
    while board.hired < min(wanted, <int64_t>HELPERS):
        new = &helpers[board.hired]
        new.parked = 0
        new.lock = PyThread_allocate_lock()
        if new.lock == NULL:
            return
        PyThread_acquire_lock(new.lock, 1)
        atomic_add(&board.alive, 1)
        if PyThread_start_new_thread(help, new) == <unsigned long>-1:  # a limit is reached: the caller does it all
            atomic_add(&board.alive, -1)
            PyThread_free_lock(new.lock)
            return
        board.hired += 1


cdef void wake(int64_t wanted) noexcept nogil:
    cdef int64_t k = 0
    while k < board.hired and wanted > 0:
        if atomic_swap(&helpers[k].parked, 0) == 1:
            atomic_add(&board.called, 1)
            PyThread_release_lock(helpers[k].lock)
            wanted -= 1
        k += 1


cdef Slot* take_slot() noexcept nogil:
    cdef int k
    for k in range(CALLS):
        if atomic_add(&slots[k].taken, 1) == 0:
            return &slots[k]
        atomic_add(&slots[k].taken, -1)
    return NULL


cdef void close(Slot* s) noexcept nogil:
    # Let nobody begin another piece, and wait for those who have: what the job points to is about to go.
    atomic_add(&s.claimed, CLOSED)
    if atomic_load(&board.called) > 0:  # a helper that was woken, perhaps on this CPU
        yield_core()
    while atomic_load(&s.inside) > 0:
        yield_core()
    s.pieces = 0


cdef inline int note_end(Py_ssize_t size) except -1:
    if size >= worth_noting:
        ended()
    return 0


cdef bint launch(Kernel kernel, const void* job, size_t job_size, Py_ssize_t blocks, Py_ssize_t size, int threads) except? True:
    # Run a kernel over all blocks, of `size` elements each.
    cdef Slot own
    cdef Slot* s
    cdef int64_t others
    cdef bint bad, more
    if blocks < 2 or (threads <= 1 and blocks * size <= SPAN):
        with nogil:
            bad = kernel(job, 0, blocks)
        note_end(blocks * size)
        return bad
    s = take_slot()
    if s == NULL:  # more calls at once than slots: this one goes without helpers
        s = &own
        s.inside = 0
        threads = 1
    memcpy(s.job, job, job_size)
    s.owner = <int64_t>PyThread_get_thread_ident()
    s.kernel = kernel
    s.blocks = blocks
    s.bad = 0
    others = min(<int64_t>threads, blocks) - 1 if board.stopped == 0 else 0
    atomic_swap(&s.places, others)
    atomic_swap(&s.claimed, CLOSED)
    s.pieces = min(blocks, max(blocks * size // SPAN + 1, 32 * threads if threads > 1 else 1))
    s.burst = max(1, SPAN // max(1, blocks * size // s.pieces))
    atomic_swap(&s.claimed, 0)
    try:
        if others > 0:
            board.cpu = this_cpu()
            hire(others)
            wake(others - atomic_load(&board.awake) - max(<int64_t>0, atomic_load(&board.called)))
        while True:
            with nogil:
                more = work_on(s, s.burst)
            if not more:
                break
            PyErr_CheckSignals()
    finally:
        with nogil:
            close(s)
        bad = s.bad > 0
        if s != &own:
            atomic_add(&s.taken, -1)
    note_end(blocks * size)
    return bad


def _before_fork():
    # Let helpers finish the pieces that they work on: a child has none of them to wait for.
    cdef int k
    with nogil:
        atomic_add(&board.paused, 1)
        for k in range(CALLS):
            while atomic_load(&slots[k].inside) > 0:
                yield_core()


def _after_fork_in_parent():
    atomic_add(&board.paused, -1)


def _after_fork_in_child():
    # No helper is left, and of all calls only those of this thread, which may be in the middle of one.
    cdef int k
    cdef int64_t stopped = board.stopped, me = <int64_t>PyThread_get_thread_ident()
    memset(&board, 0, sizeof(Board))
    board.stopped = stopped
    memset(helpers, 0, sizeof(helpers))
    for k in range(CALLS):
        if slots[k].taken > 0 and slots[k].owner == me:
            slots[k].places = slots[k].inside = 0
        else:
            memset(&slots[k], 0, sizeof(Slot))


def _stop():
    # The interpreter is about to end: let helpers go, and wait for them a moment.
    cdef int64_t k
    with nogil:
        atomic_swap(&board.stopped, 1)
        wake(HELPERS)
        for k in range(100 * patience):
            if atomic_load(&board.alive) == 0:
                break
            yield_core()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_stop)
