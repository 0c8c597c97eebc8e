"""The gradient laboratory: estimators held against exact gradients, and the claims of the field with them."""

from pgrad.lab.claim import Claim, Measured, Verdict
from pgrad.lab.estimate import estimates, expectation, variance
from pgrad.lab.grade import Grade, Report, grade, standard_cases
from pgrad.lab.kl_grade import KLCase, KLGrade, KLReport, grade_kl, standard_kl_cases
from pgrad.lab.problems import Case, load_case, random_case, reference
from pgrad.worlds.tensors.tabular import Tabular

__all__ = [
    "Case",
    "Claim",
    "Grade",
    "KLCase",
    "KLGrade",
    "KLReport",
    "Measured",
    "Report",
    "Tabular",
    "Verdict",
    "estimates",
    "expectation",
    "grade",
    "grade_kl",
    "load_case",
    "random_case",
    "reference",
    "standard_cases",
    "standard_kl_cases",
    "variance",
]
