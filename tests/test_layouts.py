"""Strides, alignment, read-only memory, and where the gradient may go."""

import numpy as np
import pytest
from cases import DRIVERS, ELEMENTWISE, ROWS, assert_same_bits, build, keep, param_sets, variants, weights


@pytest.fixture(params=DRIVERS, scope="session")
def loss(request):
    """A loss of every kernel: what is tested here does not depend on the formula."""
    return request.param


def transposed(a):
    return np.ascontiguousarray(a.T).T


def reversed_(a):
    return np.ascontiguousarray(a[::-1])[::-1]


def spaced(a):
    room = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    room[..., ::2] = a
    return room[..., ::2]


def unaligned(a):
    room = np.zeros(a.nbytes + 1, np.uint8)
    view = room[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def read_only_and_spaced(a):
    return read_only(spaced(a))


LAYOUTS = [transposed, reversed_, spaced, unaligned, read_only, read_only_and_spaced, np.asfortranarray]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(loss, backend, dtype, layout):
    for case in variants(loss, dtype, (9, 8)):
        options = {"sample_weight": weights((9, 8)), "mask": keep((9, 8)), "reduction": "none"}
        wanted = case(backend, **options)
        changed = {k: layout(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        found = case.each(layout)(backend, **changed)
        assert found.grad.flags.c_contiguous
        assert_same_bits(found, wanted)


@pytest.mark.parametrize("name", ROWS)
def test_read_only_class_weights(name, backend):
    case = build(name, "float64", weight=np.array([1.0, 2.0, 0.5, 3.0, 1.0]))
    wanted = case(backend)
    case.params["weight"].flags.writeable = False
    assert_same_bits(case(backend), wanted)


def test_broadcast_inputs(loss, backend, dtype):
    # Zero strides: one row of memory stands for all.
    case = build(loss, dtype, (1, 6))
    wanted = case.each(lambda a: np.repeat(a, 50, axis=0))(backend, reduction="none")
    found = case.each(lambda a: np.broadcast_to(a, (50, *a.shape[1:])))(backend, reduction="none")
    assert_same_bits(found, wanted)


def test_inputs_are_left_alone(loss, backend, dtype):
    for case in variants(loss, dtype):
        options = {"sample_weight": weights(case.shape), "mask": keep(case.shape)}
        arrays = [*case.args, *options.values(), *(v for v in case.params.values() if isinstance(v, np.ndarray))]
        before = [a.copy() for a in arrays]
        for reduction in ("mean", "none"):
            case(backend, reduction=reduction, out=np.empty_like(case.args[0]), **options)
        for a, b in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(a, b)


def test_out_receives_the_gradient(loss, backend, dtype):
    case = build(loss, dtype, (9, 8))
    wanted = case(backend)
    shape = case.args[0].shape
    for out in (np.full(shape, 7, dtype), *(layout(np.full(shape, 7, dtype)) for layout in LAYOUTS[:4])):
        found = case(backend, out=out)
        assert found.grad is out
        assert_same_bits(found, wanted)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_out_of_a_subclass(loss, backend, dtype):
    # A matrix stays two-dimensional whatever is done to it.
    case = build(loss, dtype, (9, 8) if loss in ELEMENTWISE else (9,))
    out = np.matrix(np.full(case.args[0].shape, 7, dtype))
    found = case(backend, out=out)
    assert found.grad is out
    np.testing.assert_array_equal(np.asarray(out), case(backend).grad)


def test_out_with_gaps_leaves_the_gaps_alone(loss, backend):
    case = build(loss, "float64", (30,))
    room = np.full((30, *case.args[0].shape[1:-1], 2 * case.args[0].shape[-1]) if case.args[0].ndim > 1 else 60, 7.0)
    case(backend, out=room[..., ::2])
    assert np.all(room[..., 1::2] == 7.0)


def test_in_place(loss, backend, dtype):
    for case in variants(loss, dtype, (300,)):
        for options in ({}, {"reduction": "none", "mask": keep((300,)), "sample_weight": weights((300,))}):
            wanted = case(backend, **options)
            x = case.args[0].copy()
            found = case.with_args(x, *case.args[1:])(backend, out=x, **options)
            assert found.grad is x
            assert_same_bits(found, wanted, case.params)


@pytest.mark.parametrize("width", [70, 1500, 5000])
@pytest.mark.parametrize("name", ROWS)
def test_wide_rows_in_place(name, backend, dtype, width):
    case = build(name, dtype, (12,), width, **param_sets(name)[-1])
    wanted = case(backend, mask=keep((12,)))
    assert_same_bits(case(backend, mask=keep((12,)), out=case.args[0]), wanted)


@pytest.mark.parametrize("above", [20, 60])
def test_wide_rows_in_place_whose_maximum_comes_late(backend, dtype, above):
    case = build("cross_entropy", dtype, (3,), 5000)
    case.args[0][:, -1] += above
    wanted = case(backend)
    assert_same_bits(case(backend, out=case.args[0]), wanted)


@pytest.mark.parametrize("layout", [transposed, reversed_, spaced])
def test_in_place_with_strides(loss, backend, layout):
    case = build(loss, "float64", (9, 8))
    wanted = case(backend)
    x = layout(case.args[0])
    found = case.with_args(x, *case.args[1:])(backend, out=x)
    assert found.grad is x
    assert_same_bits(found, wanted)


def test_another_view_of_the_input_is_in_place_too(loss, backend):
    case = build(loss, "float64")
    wanted = case(backend)
    assert_same_bits(case(backend, out=case.args[0][:]), wanted)


def test_out_may_lie_between_the_elements_of_the_input(backend):
    room = np.zeros(80)
    room[::2] = np.linspace(-3, 3, 40)
    case = build("mse_loss", "float64", (40,)).with_args(room[::2], np.ones(40))
    wanted = case(backend)
    assert_same_bits(case(backend, out=room[1::2]), wanted)


def test_overlaps_are_refused(loss, backend):
    case = build(loss, "float64", (40,))
    x = case.args[0]
    shape, row = x.shape, x[0].size
    room = np.zeros(x.size + row)
    shifted = room[row:].reshape(shape)
    np.copyto(shifted, x)
    late = case.with_args(shifted, *case.args[1:])
    early = room[:-row].reshape(shape)
    with pytest.raises(ValueError, match=r"out overlaps (input|logits|q) partly"):
        late(backend, out=early)
    np.testing.assert_array_equal(shifted, x)
    with pytest.raises(ValueError, match=r"out overlaps (input|logits|q) partly"):
        late(backend, out=shifted[::-1])


def test_the_same_memory_in_another_order_is_refused(backend):
    x = np.arange(36.0).reshape(6, 6)
    case = build("mse_loss", "float64").with_args(x, np.zeros((6, 6)))
    with pytest.raises(ValueError, match="out overlaps input partly"):
        case(backend, out=x.T)


def test_overlap_with_anything_else_is_refused(backend):
    case = build("mse_loss", "float64", (40,))
    with pytest.raises(ValueError, match="out overlaps target"):
        case(backend, out=case.args[1])
    weight = weights((40,))
    with pytest.raises(ValueError, match="out overlaps sample_weight"):
        case(backend, out=weight, sample_weight=weight)
    flags = np.zeros(40 * 8, bool)
    with pytest.raises(ValueError, match="out overlaps mask"):
        case(backend, out=flags.view(np.float64), mask=flags[::8])
    case = build("td_loss", "float64", (40,))
    q, actions, _, next_q, terminated = case.args
    with pytest.raises(ValueError, match="out overlaps next_q"):
        case(backend, out=next_q)
    with pytest.raises(ValueError, match="out overlaps next_q_online"):
        case.with_params(next_q_online=q)(backend, out=q)
    room = np.zeros(q.size + 40)
    with pytest.raises(ValueError, match="out overlaps rewards"):
        case.with_args(q, actions, room[-50:-10], next_q, terminated)(backend, out=room[: q.size].reshape(q.shape))


def test_out_that_overlaps_itself_is_refused(loss, backend):
    case = build(loss, "float64", (40,))
    repeated = np.lib.stride_tricks.as_strided(np.zeros(40), case.args[0].shape, (0,) * (case.args[0].ndim - 1) + (8,))
    if case.args[0].ndim == 1:
        repeated = np.lib.stride_tricks.as_strided(np.zeros(40), (40,), (4,))
    with pytest.raises(ValueError, match="out overlaps itself"):
        case(backend, out=repeated)


def test_memory_mapped_files(loss, backend, tmp_path):
    case = build(loss, "float64", (30,))
    wanted = case(backend)

    def mapped(array):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(file, array)
        return np.load(file, mmap_mode="r")

    found = case.each(mapped)(backend)
    assert type(found.grad) is np.ndarray
    assert_same_bits(found, wanted)
    out = np.memmap(tmp_path / "out", case.args[0].dtype, "w+", shape=case.args[0].shape)
    assert case(backend, out=out).grad is out
    np.testing.assert_array_equal(out, wanted.grad)


def test_targets_as_a_view_of_the_input(backend):
    # Only out is written, so inputs may share memory.
    x = np.linspace(0, 1, 50)
    assert build("mse_loss", "float64").with_args(x, x)(backend).loss == 0.0
