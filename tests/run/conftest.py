"""Runs without pictures, which take longer than the training of a test."""

import pytest

import pgrad.run.conduct


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgrad.run.conduct, "learning_curve", lambda *args, **kwargs: None)
