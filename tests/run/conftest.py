"""Runs without pictures, which take longer than the training of a test."""

import pytest

import pgrad.conduct


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgrad.conduct, "learning_curve", lambda *args, **kwargs: None)
