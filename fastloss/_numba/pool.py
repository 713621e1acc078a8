"""Kernels over blocks on several threads: ``_cython/tasks.pxi``, whose protocol this is, in compiled Python.

Helpers are no Python threads: CPython starts them, by the function that its own threads come from, on code that Numba
has compiled. They have no interpreter state, so nothing of Python's can run on them, wait for them or take their place.
All state is in one block of 64-bit words that is never freed: a board, a helper each, a slot for each call at a time.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import sys

import numpy as np
from llvmlite import ir
from numba import typeof
from numba._dispatcher import compute_fingerprint
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

from fastloss._blocks import CHUNK, LANES
from fastloss._numba import elementwise, gather, margins, narrow, soft, soft_narrow, wide
from fastloss._numba._jit import inline, kernel, native, uncounted
from fastloss._numba.rows import SIDES
from fastloss._threads import PATIENCE, SPAN

CALLS = 32  # slots: so many calls at a time have helpers
HELPERS = 255
CLOSED = 1 << 62
WORD = 8
# Words of the board.
ALIVE, AWAKE, CALLED, PAUSED, STOPPED, CPU, KNOWN, ACQUIRE, RELEASE, YIELD, GETCPU, GETAFFINITY, SETAFFINITY = range(13)
# Words of a helper.
PARKED, LOCK, BOARD, ROOM, CPUS = range(5)
# Words of a slot; what follows APART is only read while there is work, and has cache lines of its own.
TAKEN, INSIDE, PLACES, CLAIMED, BAD = range(5)
APART = 8
OWNER, PIECES, BLOCKS, BURST, RUN, KERNEL, JOB = range(APART, APART + 7)
BOARD_SIZE, HELPER_SIZE, SLOT_SIZE = 16, 40, 256
HELPER_AT = BOARD_SIZE
SLOT_AT = HELPER_AT + HELPERS * HELPER_SIZE
TOTAL = SLOT_AT + CALLS * SLOT_SIZE
CPU_BYTES = 128  # of a set of CPUs
WORK = max(module.ROOM for module in (elementwise, gather, margins, narrow, soft, soft_narrow, wide))
ROOM_BYTES = 8 * (3 * LANES + SIDES) + CHUNK + 8 * WORK  # of memory that a kernel works in


# --- what Python cannot spell: memory by address, atomically, and calls by address


def _word(builder, address):
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to a word; returns what was there before."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _word(builder, arguments[0]), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_swap(typingctx, address, value):
    """Set a word; returns what was there before."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("xchg", _word(builder, arguments[0]), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_load(typingctx, address):
    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_word(builder, arguments[0]), "seq_cst", WORD)

    return types.int64(types.int64), generate


def _caller(result, *kinds):
    """A function that calls C code by its address."""

    @intrinsic
    def call(typingctx, address, arguments):
        def generate(context, builder, signature, values):
            function = ir.FunctionType(ir.IntType(result) if result else ir.VoidType(), [ir.IntType(k) for k in kinds])
            given = cgutils.unpack_tuple(builder, values[1])
            given = [builder.trunc(v, ir.IntType(k)) if k < 64 else v for v, k in zip(given, kinds, strict=True)]
            found = builder.call(builder.inttoptr(values[0], function.as_pointer()), given)
            return builder.sext(found, ir.IntType(64)) if result else ir.IntType(64)(0)

        return types.int64(types.int64, types.UniTuple(types.int64, len(kinds))), generate

    return call


_acquire = _caller(32, 64, 32)  # PyThread_acquire_lock(lock, wait)
_release = _caller(0, 64)
_get_cpu = _caller(32)
_yield = _caller(32)
_cpus = _caller(32, 32, 64, 64)  # sched_getaffinity(thread, size, set) and its opposite
_work = _caller(8, 64, 64, 64, 64, 64)  # a function of pack(): (kernel, job, first, last, room)


@intrinsic
def pack(typingctx, job, arguments, like):
    """Write a kernel's first arguments to memory; returns the address of a function that calls a kernel with them.

    ``like`` is an array of the type that the kernel computes in.
    """
    kinds, real = tuple(arguments), like.dtype

    def generate(context, builder, signature, values):
        # The counters of the arrays' references end with this call; the caller keeps the arrays.
        items = zip(kinds, cgutils.unpack_tuple(builder, values[1]), strict=True)
        items = [uncounted(context, builder, k, v) if isinstance(k, types.Array) else v for k, v in items]
        flat = context.get_arg_packer(kinds).as_arguments(builder, items)
        record = ir.LiteralStructType([v.type for v in flat])
        if context.get_abi_sizeof(record) > WORD * (SLOT_SIZE - JOB):
            raise AssertionError("a job is larger than its place in a slot")
        place = builder.inttoptr(values[0], record.as_pointer())
        for k, value in enumerate(flat):
            builder.store(value, cgutils.gep_inbounds(builder, place, 0, k))
        return builder.ptrtoint(_trampoline(context, builder.module, kinds, real, record), ir.IntType(64))

    return types.int64(types.int64, arguments, like), generate


def _trampoline(context, module, kinds, real, record):
    """A function (kernel, job, first, last, room) that calls a kernel with packed arguments, a range and a room."""
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.IntType(8), [word] * 5), f"fastloss_run_{len(module.functions)}")
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    kernel, job, first, last, room = function.args
    job = builder.inttoptr(job, record.as_pointer())
    loaded = [builder.load(cgutils.gep_inbounds(builder, job, 0, k)) for k in range(len(record.elements))]
    values = context.get_arg_packer(kinds).from_arguments(builder, loaded)
    rooms = []
    # Lanes, then flags, then work: its size is not asked for.
    for kind, size in ((types.float64, 3 * LANES + SIDES), (types.boolean, CHUNK), (real, WORK)):
        array = types.Array(kind, 1, "C")
        described = context.make_array(array)(context, builder)
        bytes_each = 1 if kind == types.boolean else kind.bitwidth // 8
        pointer = builder.inttoptr(room, context.get_data_type(kind).as_pointer())
        arrayobj.populate_array(described, pointer, [word(size)], [word(bytes_each)], word(bytes_each), None)
        rooms.append((array, described._getvalue()))
        room = builder.add(room, word(size * bytes_each))
    lanes, flags, work = rooms
    every = [*kinds, types.intp, types.intp, work[0], flags[0], lanes[0]]
    callee = builder.inttoptr(kernel, context.call_conv.get_function_type(types.boolean, every).as_pointer())
    given = [*values, first, last, work[1], flags[1], lanes[1]]
    _, bad = context.call_conv.call_function(builder, callee, types.boolean, every, given)
    builder.ret(builder.zext(bad, ir.IntType(8)))
    return function


# --- the protocol


@inline
def at(base, k):
    """Address of a word."""
    return base + WORD * k


@inline
def slot(board, k):
    return board + WORD * (SLOT_AT + k * SLOT_SIZE)


@inline
def work_on(s, room, most):
    """Work until nothing is left, or on so many pieces; returns whether there may be more."""
    done = 0
    while done < most:
        k = atomic_add(at(s, CLAIMED), 1)
        pieces = atomic_load(at(s, PIECES))
        if k >= pieces:
            return False
        blocks = atomic_load(at(s, BLOCKS))
        run, function = atomic_load(at(s, RUN)), atomic_load(at(s, KERNEL))
        if _work(run, (function, at(s, JOB), blocks * k // pieces, blocks * (k + 1) // pieces, room)) != 0:
            atomic_add(at(s, BAD), 1)
        done += 1
    return True


@inline
def is_open(s):
    return atomic_load(at(s, CLAIMED)) < atomic_load(at(s, PIECES)) and atomic_load(at(s, PLACES)) > 0


@inline
def find_work(board):
    """Whether there is work for a helper."""
    if atomic_load(at(board, PAUSED)) == 0:
        for k in range(CALLS):
            if is_open(slot(board, k)):
                return True
    return False


@inline
def take_up(board, s, room):
    """Help with a call if there is a place left; returns whether there was."""
    found = False
    atomic_add(at(s, INSIDE), 1)
    if is_open(s) and atomic_add(at(s, PLACES), -1) > 0:
        found = True
        # Piece by piece: a fork waits for helpers to stop.
        while atomic_load(at(board, PAUSED)) == 0 and work_on(s, room, 1):
            pass
    atomic_add(at(s, INSIDE), -1)
    return found


@inline
def this_cpu(board):
    address = atomic_load(at(board, GETCPU))
    return _get_cpu(address, ()) if address != 0 else -1


@inline
def leave_cpu(board, me, cpu):
    """Move this thread to another CPU if it may use any: back to all of them thereafter."""
    allowed = at(me, CPUS)
    others = allowed + CPU_BYTES
    get, set_ = atomic_load(at(board, GETAFFINITY)), atomic_load(at(board, SETAFFINITY))
    if cpu < 0 or cpu >= 8 * CPU_BYTES or _cpus(get, (0, CPU_BYTES, allowed)) < 0:
        return
    left = 0
    for k in range(CPU_BYTES // WORD):
        found = atomic_load(at(allowed, k))
        if k == cpu // 64:
            found &= ~(1 << (cpu % 64))
        atomic_swap(at(others, k), found)
        left |= found
    if left != 0 and _cpus(set_, (0, CPU_BYTES, others)) == 0:
        _cpus(set_, (0, CPU_BYTES, allowed))


@inline
def wait_for_work(board, me):
    """Stay awake for a while and take up what comes."""
    room = atomic_load(at(me, ROOM))
    atomic_add(at(board, AWAKE), 1)
    k = 0
    while k < PATIENCE and atomic_load(at(board, STOPPED)) == 0:
        k += 1
        # On the caller's own CPU, caller and helper would take turns; a thread that never sleeps is not moved.
        cpu = atomic_load(at(board, CPU))
        if cpu >= 0 and this_cpu(board) == cpu:
            leave_cpu(board, me, cpu)
        if find_work(board):
            for i in range(CALLS):
                if is_open(slot(board, i)) and take_up(board, slot(board, i), room):
                    k = 0
        _yield(atomic_load(at(board, YIELD)), ())
    atomic_add(at(board, AWAKE), -1)


@kernel
def help_out(me):
    """What a helper does all its life."""
    board = atomic_load(at(me, BOARD))
    while atomic_load(at(board, STOPPED)) == 0:
        wait_for_work(board, me)
        atomic_swap(at(me, PARKED), 1)
        # Work that came in between had no reason to wake this helper.
        if (find_work(board) or atomic_load(at(board, STOPPED)) != 0) and atomic_swap(at(me, PARKED), 0) == 1:
            continue
        _acquire(atomic_load(at(board, ACQUIRE)), (atomic_load(at(me, LOCK)), 1))
        atomic_add(at(board, CALLED), -1)
    atomic_add(at(board, ALIVE), -1)


@kernel
def wake(board, wanted):
    """Wake so many helpers that sleep."""
    k = 0
    while k < atomic_load(at(board, KNOWN)) and wanted > 0:
        me = board + WORD * (HELPER_AT + k * HELPER_SIZE)
        if atomic_swap(at(me, PARKED), 0) == 1:
            atomic_add(at(board, CALLED), 1)
            _release(atomic_load(at(board, RELEASE)), (atomic_load(at(me, LOCK)),))
            wanted -= 1
        k += 1


@kernel
def open_slot(board, ticket, function, arguments, like, owner, blocks, pieces, burst, places):
    """Take a slot, offer its work, note its address on the caller's ticket; returns how many helpers to wake.

    No ticket where all slots are taken: more calls at once than those go without helpers.
    """
    for k in range(CALLS):
        s = slot(board, k)
        if atomic_add(at(s, TAKEN), 1) == 0:
            atomic_swap(at(s, OWNER), owner)
            atomic_swap(at(s, CLAIMED), CLOSED)
            atomic_swap(at(s, KERNEL), function)
            atomic_swap(at(s, RUN), pack(at(s, JOB), arguments, like))
            atomic_swap(at(s, BLOCKS), blocks)
            atomic_swap(at(s, BURST), burst)
            atomic_swap(at(s, PIECES), pieces)
            atomic_swap(at(s, BAD), 0)
            atomic_swap(at(s, PLACES), places)
            atomic_swap(at(board, CPU), this_cpu(board))
            ticket[0] = s
            atomic_swap(at(s, CLAIMED), 0)
            return places - atomic_load(at(board, AWAKE)) - max(0, atomic_load(at(board, CALLED)))
        atomic_add(at(s, TAKEN), -1)
    return 0


@kernel
def work_for_a_while(ticket, room):
    """A burst of pieces; returns whether there may be more."""
    s = ticket[0]
    return work_on(s, room, atomic_load(at(s, BURST)))


@kernel
def close(board, ticket):
    """Let nobody begin another piece, and wait for those who have; returns whether a value was bad."""
    s = ticket[0]
    if s == 0:
        return False
    atomic_add(at(s, CLAIMED), CLOSED)
    relax = atomic_load(at(board, YIELD))
    if atomic_load(at(board, CALLED)) > 0:  # a helper that was woken, perhaps on this CPU
        _yield(relax, ())
    while atomic_load(at(s, INSIDE)) > 0:
        _yield(relax, ())
    atomic_swap(at(s, PIECES), 0)
    bad = atomic_load(at(s, BAD)) > 0
    ticket[0] = 0
    atomic_add(at(s, TAKEN), -1)
    return bad


@kernel
def pause(board):
    """Before a fork: let helpers finish the pieces that they work on. A child has none of them to wait for."""
    atomic_add(at(board, PAUSED), 1)
    relax = atomic_load(at(board, YIELD))
    for k in range(CALLS):
        while atomic_load(at(slot(board, k), INSIDE)) > 0:
            _yield(relax, ())


@kernel
def change(address, value):
    """Add to a word of Python's."""
    atomic_add(address, value)


@kernel
def forget(board, me):
    """In a child: no helper is left, and of all calls only those of this thread, which may be in the middle of one."""
    for k in (ALIVE, AWAKE, CALLED, PAUSED, KNOWN):
        atomic_swap(at(board, k), 0)
    for k in range(CALLS):
        s = slot(board, k)
        atomic_swap(at(s, PLACES), 0)
        atomic_swap(at(s, INSIDE), 0)
        if atomic_load(at(s, TAKEN)) > 0 and atomic_load(at(s, OWNER)) != me:
            atomic_swap(at(s, PIECES), 0)
            atomic_swap(at(s, TAKEN), 0)


@kernel
def stop(board):
    """The interpreter is about to end: let helpers go, and wait for them a moment."""
    atomic_swap(at(board, STOPPED), 1)
    wake(board, HELPERS)
    for _ in range(100 * PATIENCE):
        if atomic_load(at(board, ALIVE)) == 0:
            break
        _yield(atomic_load(at(board, YIELD)), ())


# --- Python's side


def _memory(size):
    """Zeroed memory at the beginning of a cache line."""
    memory = np.zeros(size + 64, np.uint8)
    return memory, memory.ctypes.data + -memory.ctypes.data % 64


def _python(name, result, *kinds):
    """A C function of the interpreter's; not ctypes.pythonapi's own, whose types others may set."""
    return ctypes.PYFUNCTYPE(result, *kinds)((name, ctypes.pythonapi))


def _system():
    return ctypes.WinDLL("kernel32") if sys.platform == "win32" else ctypes.CDLL(None)


def _symbol(library, *names):
    """Address of the first C function that there is, or 0."""
    for name in names:
        if hasattr(library, name):
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    return 0


class Pool:
    """The board and what Python does about it."""

    def __init__(self):
        memory, self.board = _memory(WORD * TOTAL)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # helpers may outlive the interpreter's modules
        self.words = np.ndarray(TOTAL, np.int64, memory, self.board - memory.ctypes.data)
        self.numbers, self.spare = itertools.count(), []  # of helpers; those that could not be started
        self.addresses = {}  # of kernels by the types of their arguments
        self.rooms = []  # that no call uses, each with its address
        python, system = ctypes.pythonapi, _system()
        self.words[ACQUIRE] = _symbol(python, "PyThread_acquire_lock")
        self.words[RELEASE] = _symbol(python, "PyThread_release_lock")
        self.words[YIELD] = _symbol(system, "sched_yield", "SwitchToThread")
        affinity = [_symbol(system, name) for name in ("sched_getcpu", "sched_getaffinity", "sched_setaffinity")]
        self.words[GETCPU], self.words[GETAFFINITY], self.words[SETAFFINITY] = affinity if all(affinity) else (0, 0, 0)
        self.new_lock = _python("PyThread_allocate_lock", ctypes.c_void_p)
        self.acquire = _python("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        self.start = _python("PyThread_start_new_thread", ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)
        self.thread = _python("PyThread_get_thread_ident", ctypes.c_ulong)
        # Compiled now, not in the middle of a call: a handler or a finalizer may need them there.
        help_out.compile((types.int64,))
        self.helper = native(help_out, (types.int64,))
        ticket = types.Array(types.int64, 1, "C")
        for function, kinds in (
            (wake, (types.int64, types.int64)), (work_for_a_while, (ticket, types.int64)),
            (close, (types.int64, ticket)), (pause, (types.int64,)), (change, (types.int64, types.int64)),
            (forget, (types.int64, types.int64)), (stop, (types.int64,)),
        ):  # fmt: skip
            function.compile(kinds)

    def hire(self, wanted):
        """Start helpers until there are so many; no lock, which a signal handler could meet twice."""
        while self.words[ALIVE] < wanted:
            k = self.spare.pop() if self.spare else next(self.numbers)
            if k >= HELPERS:
                return
            me = self.board + WORD * (HELPER_AT + k * HELPER_SIZE)
            helper = self.words[HELPER_AT + k * HELPER_SIZE :]
            if helper[BOARD] == 0:
                memory, room = _memory(ROOM_BYTES)
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
                helper[BOARD], helper[ROOM], helper[LOCK] = self.board, room, self.new_lock()
                self.acquire(int(helper[LOCK]), 1)
                change(self.board + WORD * KNOWN, 1)
            change(self.board + WORD * ALIVE, 1)
            if self.start(self.helper, me) == ctypes.c_ulong(-1).value:  # a limit is reached: the caller does it all
                change(self.board + WORD * ALIVE, -1)
                self.spare.append(k)
                return

    def address(self, kernel, arguments, rooms):
        """Address of a kernel for arguments of these types."""
        key = kernel, compute_fingerprint(arguments)
        found = self.addresses.get(key)
        if found is None:
            kinds = tuple(map(typeof, (*arguments, 0, 0, *rooms)))
            kernel.compile(kinds)
            found = self.addresses[key] = native(kernel, kinds, "llvm_func_name")
        return found

    def launch(self, kernel, arguments, rooms, blocks, size, threads):
        """Run a kernel over all blocks, of ``size`` elements each; None if it has to be done without helpers."""
        pieces = min(blocks, max(blocks * size // SPAN + 1, 32 * threads))
        burst = max(1, SPAN // max(1, blocks * size // pieces))
        places = min(threads, pieces, HELPERS + 1) - 1
        if self.words[STOPPED]:
            return None
        function, ticket = self.address(kernel, arguments, rooms), np.zeros(1, np.int64)
        try:
            room = self.rooms.pop()
        except IndexError:
            room = _memory(ROOM_BYTES)
        try:
            # Whatever interrupts this thread from here on, the slot is closed before the arrays can go.
            wanted = open_slot(
                self.board, ticket, function, arguments, rooms[0], self.thread(), blocks, pieces, burst, places
            )  # fmt: skip
            if ticket[0] == 0:
                return None
            self.hire(places)
            if wanted > 0:
                wake(self.board, wanted)
            while work_for_a_while(ticket, room[1]):  # signals are looked at between bursts
                pass
        finally:
            bad = close(self.board, ticket)
        self.rooms.append(room)
        return bad

    def child(self):
        """After a fork, in the child."""
        self.numbers, self.spare = itertools.count(), []
        self.words[HELPER_AT:SLOT_AT] = 0
        forget(self.board, self.thread())


_shared: Pool | None = None


def shared() -> Pool:
    """The process's pool, made when it is first needed. No lock: of two that are made at once, one is used."""
    global _shared
    if _shared is None:
        pool = Pool()
        if _shared is None:
            _shared = pool
            atexit.register(stop, pool.board)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(
                    before=lambda: pause(pool.board),
                    after_in_parent=lambda: change(pool.board + WORD * PAUSED, -1),
                    after_in_child=pool.child,
                )
    return _shared
