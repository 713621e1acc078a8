"""The same bits for any number of threads, run, alignment, position and chunking."""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from cases import DRIVERS, ROWS, assert_same_bits, build, keep, param_sets, variants, weights
from hypothesis import example, given
from hypothesis import strategies as st

import fastloss as fl
from fastloss._accumulate import LossSum, array_names
from fastloss._exact import ExactSum
from fastloss.registry import LOSSES


@pytest.fixture(params=DRIVERS, scope="session")
def loss(request):
    """A loss of every kernel: what is tested here does not depend on the formula."""
    return request.param


def shape_of(name):
    """Several blocks and a tail."""
    return (21_001,) if LOSSES[name].kind == "elementwise" else (5_003,)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "weighted_mean"])
def test_any_number_of_threads(loss, backend, dtype, reduction):
    for case in variants(loss, dtype, shape_of(loss))[:: 1 if reduction == "mean" else 4]:
        options = {"reduction": reduction, "sample_weight": weights(case.shape), "mask": keep(case.shape)}
        wanted = case(backend, n_threads=1, **options)
        for n in (2, 3, 4, None, 1):
            assert_same_bits(case(backend, n_threads=n, **options), wanted, (case.params, n))


def test_calls_in_a_row(loss, compiled):
    # After some that follow each other closely, threads stay awake for the next.
    case = build(loss, "float32", (70_001,), 9)
    wanted = case(compiled, n_threads=1)
    for k in range(40):
        assert_same_bits(case(compiled, n_threads=(None, None, 2, 3)[k % 4]), wanted, k)


@pytest.mark.parametrize("width", [65, 700, 5000])
@pytest.mark.parametrize("name", ROWS)
def test_any_number_of_threads_over_wide_rows(name, backend, width):
    case = build(name, "float32", (130,), width, **param_sets(name)[-1])
    wanted = case(backend, n_threads=1)
    for n in (2, 3, 4):
        assert_same_bits(case(backend, n_threads=n), wanted, n)


def test_large_work_chooses_threads_by_itself(compiled):
    # Above the threshold of every backend; the choice must not show.
    case = build("mse_loss", "float32", (600_001,))
    assert_same_bits(case(compiled), case(compiled, n_threads=1))


def test_repeated_calls(loss, backend, dtype):
    case = build(loss, dtype, shape_of(loss))
    wanted = case(backend)
    for _ in range(3):
        assert_same_bits(case(backend), wanted)


def moved(array, offset):
    """A copy that starts ``offset`` elements into a fresh buffer."""
    room = np.empty(array.size + offset, array.dtype)
    room[offset:] = array.reshape(-1)
    return room[offset:].reshape(array.shape)


def test_any_alignment_of_the_buffers(loss, backend, dtype):
    case = build(loss, dtype, (5_001,) if LOSSES[loss].kind == "elementwise" else (501,))
    wanted = case(backend)
    for offset in (1, 2, 3, 5, 8, 13):
        out = moved(np.empty_like(case.args[0]), offset // 2)
        assert_same_bits(case.each(lambda a, by=offset: moved(a, by))(backend, out=out), wanted, offset)


def test_the_place_of_an_entry_does_not_show(loss, backend, dtype):
    check_places(loss, backend, dtype, 5)


@pytest.mark.parametrize("width", [2, 31, 63, 64, 65, 130])
@pytest.mark.parametrize("name", ROWS)
def test_the_place_of_a_row_does_not_show(name, backend, dtype, width):
    check_places(name, backend, dtype, width)


def check_places(loss, backend, dtype, width):
    case = build(loss, dtype, (300,), width)
    options = {"reduction": "none", "sample_weight": weights((300,)), "mask": keep((300,))}
    whole = case(backend, **options)
    # Every start of a vector, every length of a tail.
    for start, stop in [(k, 300) for k in range(1, 70, 3)] + [(0, k) for k in range(1, 80, 3)] + [(137, 138)]:
        part = options | {k: options[k][start:stop] for k in ("sample_weight", "mask")}
        found = case.rows(slice(start, stop))(backend, **part)
        assert_same_bits(found, [field[start:stop] for field in whole], (start, stop))
    order = np.random.default_rng(0).permutation(300)
    shuffled = options | {k: options[k][order] for k in ("sample_weight", "mask")}
    assert_same_bits(case.rows(order)(backend, **shuffled), [field[order] for field in whole])


def test_the_reduction_does_not_show_in_the_gradient(loss, backend, dtype):
    case = build(loss, dtype)
    each, summed = case(backend, reduction="none"), case(backend, reduction="sum")
    assert_same_bits((summed.grad,), (each.grad,))


# --- chunk after chunk


def chunks(total, granularity, seed):
    """Random cuts at multiples of the granularity."""
    rng = np.random.default_rng(seed)
    inner = np.arange(granularity, total, granularity)
    cuts = np.sort(rng.choice(inner, min(seed * 2, len(inner)), replace=False)) if len(inner) else []
    return list(zip([0, *cuts], [*cuts, total], strict=True))


def common(case):
    """Parameters that are the same for all rows."""
    return {k: v for k, v in case.params.items() if not isinstance(v, np.ndarray) or k == "weight"}


def of_rows(case):
    """What a chunk holds besides prediction and target."""
    arrays = {k: v for k, v in case.params.items() if isinstance(v, np.ndarray) and k != "weight"}
    return arrays | dict(zip(array_names(case.loss)[2:], case.args[2:], strict=False))


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("shape", [(30_000,), (2_000, 6), (50, 4, 500)])
def test_any_chunking_gives_the_bits_of_a_single_call(name, backend, shape):
    for case in variants(name, "float32", shape, 3):
        weight, kept = weights(shape), keep(shape)
        whole = case(backend, sample_weight=weight, mask=kept, reduction="sum", grad=False).loss
        mean = case(backend, sample_weight=weight, mask=kept, grad=False).loss
        for seed in (0, 1, 5):
            running = LossSum(name, case.args[0].shape, backend=backend, **common(case))
            for start, stop in chunks(shape[0], running.granularity, seed):
                part = case.rows(slice(start, stop))
                running.update(*part.args[:2], weight[start:stop], kept[start:stop], **of_rows(part))
            assert_same_bits((running.total, running.mean), (whole, mean), (case.params, seed))


def _sum_of_chunks(name, shape, backend, params, pieces):
    """A sum over some chunks; at the top level for processes."""
    running = LossSum(name, shape, backend=backend, **params)
    for args, options in pieces:
        running.update(*args[:2], **options)
    return running


@pytest.mark.parametrize("name", DRIVERS)
def test_any_order_of_merging_on_any_processes_gives_the_bits_of_a_single_call(name, backend, spawned):
    shape = (30_000,)
    case = variants(name, "float32", shape, 3)[-1]
    weight, kept = weights(shape), keep(shape)
    options = {"sample_weight": weight, "mask": kept, "grad": False}
    whole = case(backend, reduction="sum", **options).loss, case(backend, **options).loss
    arguments = name, case.args[0].shape, backend, common(case)
    cuts = [slice(*cut) for cut in chunks(shape[0], LossSum(*arguments[:2], **common(case)).granularity, 5)]
    parts = [case.rows(cut) for cut in cuts]
    pieces = [
        (part.args, {"sample_weight": weight[cut], "mask": kept[cut], **of_rows(part)})
        for cut, part in zip(cuts, parts, strict=True)
    ]
    for processes in (1, 2, 5):
        # The last chunk, with the tail, is its sum's last one; which sum that is does not matter.
        shares = [pieces[k::processes] for k in range(processes)]
        run = spawned.map if processes == 2 else map
        for seed in (0, 1):
            sums = list(run(_sum_of_chunks, *zip(*((*arguments, share) for share in shares), strict=True)))
            first, *others = np.random.default_rng(seed).permutation(np.array(sums, object))
            for other in others:
                first.merge(other)
            assert_same_bits((first.total, first.mean), whole, (processes, seed))


@pytest.fixture(scope="module")
def spawned():
    """Two fresh processes."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_sums_over_other_data_are_not_merged():
    running = LossSum("huber_loss", (9000,), delta=2.0)
    for other in (LossSum("huber_loss", (9000,)), LossSum("huber_loss", (9001,), delta=2.0), LossSum("mse_loss", (9,))):
        with pytest.raises(ValueError, match="other must be a sum of the same loss over the same data"):
            running.merge(other)
    ends = [_sum_of_chunks("mse_loss", (10,), None, {}, [((np.zeros(5), np.zeros(5)), {})]) for _ in range(2)]
    with pytest.raises(ValueError, match="only the last chunk"):
        ends[0].merge(ends[1])


@pytest.mark.parametrize("name", DRIVERS)
def test_the_granularity_is_as_fine_as_a_block(name):
    facts = LOSSES[name]
    if facts.kind != "elementwise":
        assert LossSum(name, (100, 10)).granularity == 409
        assert LossSum(name, (100, 5000)).granularity == 1
        assert LossSum(name, (100, 3, 10)).granularity == 409
    else:
        assert LossSum(name, (100,)).granularity == 4096
        assert LossSum(name, (100, 16)).granularity == 256
        assert LossSum(name, (100, 3)).granularity == 4096
        assert LossSum(name, (100, 4096, 2)).granularity == 1


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("shape", [(9_000,), (60, 7, 19)])
def test_chunks_of_any_size_in_order_give_the_bits_of_a_single_call(name, backend, shape):
    for case in variants(name, "float32", shape, 5)[::3]:
        weight, kept = weights(shape[:1]), keep(shape)
        whole = case(backend, sample_weight=weight, mask=kept, grad=False).loss
        for size in (shape[0] // 2 + 1, shape[0] // 7):
            running = LossSum(name, case.args[0].shape, backend=backend, **common(case))
            for start in range(0, shape[0], size):
                part, rows = case.rows(slice(start, start + size)), slice(start, start + size)
                running.update(*part.args[:2], weight[rows], kept[rows], **of_rows(part))
            assert_same_bits((running.mean,), (whole,), (case.params, size))


def test_chunks_may_differ_in_what_they_hold(backend):
    x = np.arange(10_000.0)
    running, part = LossSum("mse_loss", (10_000,), backend=backend), slice(5000, 10_000)
    running.update(x[:5000], 0 * x[:5000])
    running.update(x[part], 0 * x[part], 2 * np.ones(5000), x[part] < 7000)
    weight, mask = np.repeat([1.0, 2.0], 5000), x < 7000
    assert running.mean == fl.mse_loss(x, 0 * x, sample_weight=weight, mask=mask, grad=False, backend=backend).loss
    assert running.count == 7000


def test_a_sum_that_was_merged_with_the_last_rows_takes_no_more(backend):
    first, last = (LossSum("mse_loss", (10_000,), backend=backend) for _ in range(2))
    last.update(np.zeros(100), np.ones(100))
    first.merge(last)
    assert (first.total, first.weight, first.mean) == (100.0, 100.0, 1.0)
    with pytest.raises(ValueError, match="takes no more"):
        first.update(np.zeros(100), np.zeros(100))


def test_a_sum_over_no_chunks():
    running = LossSum("cross_entropy", (0, 3))
    assert running.total == running.weight == 0.0
    assert np.isnan(running.mean)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cross_entropy_stats", (4, 3)), "loss must be one of"),
        (("mse", (4,)), "got 'mse'"),
        (("mse_loss", ()), "axis"),
        (("cross_entropy", (4,)), "class"),
        (("cross_entropy", (4, 0)), "class"),
    ],
)
def test_errors_of_loss_sum(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossSum(*arguments)


@pytest.mark.parametrize(("name", "shape"), [("mse_loss", (4096, 7)), ("cross_entropy", (4096, 3))])
def test_a_chunk_of_another_width_is_refused(name, shape):
    # Its blocks would be cut elsewhere, and the granularity would be wrong.
    case = build(name, "float64", shape if name == "mse_loss" else shape[:1], shape[1])
    with pytest.raises(ValueError, match="4"):
        LossSum(name, (10_000, 4)).update(*case.args)


def test_loss_sum_takes_the_defaults_of_the_loss(backend):
    running = LossSum("binary_cross_entropy_with_logits", (9,), backend=backend, pos_weight=None)
    running.update(np.zeros(9), np.ones(9))
    assert running.mean == pytest.approx(np.log(2))


@pytest.mark.parametrize("size", [3000, 6000, 8999])
def test_bad_targets_are_named_by_their_place_in_the_chunk_whatever_its_size(size, backend):
    x, y = np.zeros(9000), np.zeros(9000)
    y[8998] = 2.0
    running, last = LossSum("binary_cross_entropy_with_logits", (9000,), backend=backend), 8998 // size * size
    for start in range(0, last, size):
        running.update(x[start : start + size], y[start : start + size])
    with pytest.raises(ValueError, match=rf"got 2\.0 at index {8998 % size}$"):
        running.update(x[last : last + size], y[last : last + size])


def test_loss_sum_names_bad_targets(backend):
    running = LossSum("cross_entropy", (9, 3), backend=backend)
    with pytest.raises(IndexError, match="got 3 at index 1"):
        running.update(np.zeros((2, 3)), np.array([0, 3]))
    running = LossSum("binary_cross_entropy_with_logits", (9,), backend=backend)
    with pytest.raises(ValueError, match=r"got 2\.0 at index 1"):
        running.update(np.zeros(2), np.array([0.0, 2.0]))


def test_the_exact_sum_has_no_order():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000) * 10.0 ** rng.integers(-300, 300, 1000)
    sums = set()
    for _ in range(5):
        total = ExactSum()
        for part in np.array_split(rng.permutation(values), 7):
            total.add(part)
        sums.add(total.value())
    assert len(sums) == 1
    total.add(-values)
    assert total.value() == 0.0


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([], 0.0), ([np.inf, 1.0], np.inf), ([-np.inf], -np.inf), ([np.inf, -np.inf], np.nan), ([np.nan, 1.0], np.nan),
     ([1e308] * 2, np.inf), ([-1e308] * 2, -np.inf), ([1e308, 1e308, -1e308], 1e308), ([5e-324] * 3, 1.5e-323)],
)  # fmt: skip
def test_the_exact_sum_of_extremes(values, wanted):
    total = ExactSum()
    for value in values:
        total.add(np.array([value]))
    np.testing.assert_equal(total.value(), wanted)


def test_a_single_call_sums_extremes_alike(compiled):
    # One block each: 4096 elements.
    for first, second, wanted in ((1e308, 1e308, np.inf), (np.inf, 1.0, np.inf), (np.nan, 1.0, np.nan)):
        x = np.zeros(8192)
        x[0], x[5000] = first, second
        np.testing.assert_equal(fl.l1_loss(x, 0 * np.nan_to_num(x), reduction="sum", backend=compiled).loss, wanted)


HALF = 2.0**-53  # of the last place of 1


@given(
    values=st.lists(
        st.floats(-1e300, 1e300) | st.sampled_from([1.0, HALF, -HALF, HALF**2, -(HALF**2), 5e-324]), max_size=9
    )
)
@example(values=[1.0, HALF])
@example(values=[1.0, HALF, 5e-324])
@example(values=[1.0, HALF, HALF, -(HALF**2)])
@example(values=[1e300, 1.0, -1e300, HALF])
def test_block_sums_are_added_exactly(compiled, values):
    # One value per block of 4096 elements.
    x, sign = np.zeros(4096 * (len(values) + 1)), np.ones(4096 * (len(values) + 1))
    x[: 4096 * len(values) : 4096], sign[: 4096 * len(values) : 4096] = np.abs(values), np.copysign(1.0, values)
    found = fl.l1_loss(x, np.zeros(x.size), sample_weight=sign, reduction="sum", backend=compiled).loss
    assert found == math.fsum(values)
