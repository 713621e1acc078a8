"""The public face: names, signatures, and what the registry promises about them."""

import doctest
import inspect
from typing import get_type_hints

import pytest
from cases import BACKENDS, LOSS_NAMES

import fastloss as fl
from fastloss import reference
from fastloss.registry import DOMAINS, FORMULAS, LOOPS, LOSSES

COMMON = {
    "sample_weight": None,
    "mask": None,
    "reduction": "mean",
    "normalizer": None,
    "grad": True,
    "out": None,
    "n_threads": None,
    "backend": None,
}


def test_every_expected_backend_is_available():
    # Nothing may quietly run on a fallback; FASTLOSS_TEST_BACKENDS names what a run expects.
    found = tuple(name for name in fl.backends() if name in BACKENDS)
    assert found == BACKENDS, f"found {fl.backends()}, expected {BACKENDS}"
    for name in BACKENDS:
        with fl.use_backend(name):
            assert fl.mse_loss(1.0, 0.0).loss == 1.0


def test_common_parameters_are_the_same_everywhere(loss):
    parameters = inspect.signature(getattr(fl, loss)).parameters
    assert list(parameters)[-len(COMMON) :] == list(COMMON)
    for name, default in COMMON.items():
        assert parameters[name].default == default, name
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    positional = [n for n, p in parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    expected = {
        "td_loss": ["q", "actions", "rewards", "next_q", "terminated"],
        "policy_gradient_loss": ["logits", "actions", "advantages"],
    }.get(loss, ["input", "target"])
    expected += [LOSSES[loss].third] if LOSSES[loss].needs_third else []
    assert positional == expected
    annotations = {name: p.annotation for name, p in parameters.items() if name in COMMON}
    first = inspect.signature(fl.mse_loss).parameters
    assert annotations == {name: first[name].annotation for name in COMMON}


def test_parameters_are_those_of_the_registry(loss):
    parameters = inspect.signature(getattr(fl, loss)).parameters
    for param in LOSSES[loss].params:
        default = parameters[param.name].default
        assert default in (("mean",) if param.derive else (param.default, None)), param.name
        assert parameters[param.name].kind is inspect.Parameter.KEYWORD_ONLY


def test_formula_and_reference_take_the_parameters_in_order(elementwise):
    names = [p.name for p in LOSSES[elementwise].params]
    third = [LOSSES[elementwise].third] if LOSSES[elementwise].needs_third else []
    assert list(inspect.signature(FORMULAS[elementwise]).parameters) == ["x", "y", *third, *LOSSES[elementwise].names]
    assert list(inspect.signature(getattr(reference, elementwise)).parameters) == ["x", "y", *third, *names]


def test_grad_hess_takes_no_reduction():
    parameters = inspect.signature(fl.grad_hess).parameters
    assert list(parameters)[:3] == ["loss", "input", "target"]
    assert not {"reduction", "normalizer", "out"} & set(parameters)


def test_losses_are_numbered_without_gaps():
    for kind in ("rows", "gather"):
        numbers = [facts.index for facts in LOSSES.values() if facts.kind == kind]
        assert numbers == list(range(len(numbers)))
    for name, facts in LOSSES.items():
        if facts.kind == "elementwise":
            assert (LOOPS[facts.index].loss, LOOPS[facts.third_index].loss) == (name, name)
            assert (LOOPS[facts.index].third is None) == (not facts.needs_third)
            assert LOOPS[facts.third_index].third == facts.third
    for facts in LOSSES.values():
        assert facts.target in {"elementwise": (*DOMAINS,), "gather": ("action",), "rows": ("class",),
                                "softmax": ("class", "distribution", "action")}[facts.kind]  # fmt: skip
        assert 0 < facts.loss_ulp < 16
        assert 0 < facts.grad_ulp < 16
        assert all(param.valid(param.default) for param in facts.params)


def test_result_types():
    assert fl.LossGrad._fields == ("loss", "grad")
    assert fl.TDLossGrad._fields == ("loss", "grad", "td_error")
    assert fl.GaussianLossGrad._fields == ("loss", "grad", "grad_var")
    assert fl.GradHess._fields == ("grad", "hess")


def test_the_alias_is_the_function():
    assert fl.bce_with_logits is fl.binary_cross_entropy_with_logits


def test_all_names_exist_and_are_documented():
    assert sorted(fl.__all__) == fl.__all__
    for name in fl.__all__:
        assert getattr(fl, name).__doc__ or name == "__version__", name


def documented(name):
    return inspect.getdoc(getattr(fl, name))  # the same indentation in every version of Python


def test_docstrings_name_every_parameter(loss):
    text = documented(loss)
    for name in inspect.signature(getattr(fl, loss)).parameters:
        assert f"\n{name} : " in text or f"\n{name}, " in text or f", {name} : " in text, name
    for section in ("Parameters", "Returns", "Raises", "Notes", "Examples"):
        assert f"{section}\n---" in text, section


def test_annotations_resolve(loss):
    hints = get_type_hints(getattr(fl, loss))
    kinds = {"td_loss": fl.TDLossGrad, "gaussian_nll_loss": fl.GaussianLossGrad}
    assert hints["return"] is kinds.get(loss, fl.LossGrad)


@pytest.mark.parametrize("name", [*(n for n in fl.__all__ if callable(getattr(fl, n))), "module"])
def test_examples(name):
    thing = fl if name == "module" else getattr(fl, name)
    tests = [t for t in doctest.DocTestFinder(recurse=False).find(thing, name, globs={}) if t.examples]
    assert tests or not inspect.isfunction(thing), f"{name} has no example"
    for test in tests:
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
        assert result.failed == 0


def test_losses_in_all():
    assert set(LOSS_NAMES) <= set(fl.__all__)
