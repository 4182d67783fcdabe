from __future__ import annotations

import pytest

from service.errors import IllegalSweepAction, IllegalTransition
from service.states import TERMINAL, Action, ErrorCode, Request, Status, SweepAction, SweepStatus, allowed_actions

LEGAL = {
    Status.QUEUED: {Action.CANCEL},
    Status.RUNNING: {Action.CANCEL, Action.PAUSE},
    Status.PAUSED: {Action.CANCEL, Action.RESUME},
    Status.SUCCEEDED: {Action.REPRODUCE, Action.DELETE},
    Status.FAILED: {Action.RETRY, Action.DELETE},
    Status.CANCELLED: {Action.DELETE},
}


@pytest.mark.parametrize("status", Status)
def test_each_state_offers_what_the_diagram_says(status: Status) -> None:
    assert set(allowed_actions(status)) == LEGAL[status]


def test_delete_is_for_terminal_states_only() -> None:
    assert {status for status in Status if Action.DELETE in allowed_actions(status)} == TERMINAL


def test_a_job_that_is_to_be_cancelled_offers_nothing_more() -> None:
    assert allowed_actions(Status.RUNNING, requested=Request.CANCEL) == ()


def test_a_job_that_is_to_be_paused_can_still_be_cancelled() -> None:
    assert allowed_actions(Status.RUNNING, requested=Request.PAUSE) == (Action.CANCEL,)


@pytest.mark.parametrize("requested", [None, *Request])
@pytest.mark.parametrize("status", Status)
def test_a_job_with_a_finished_epoch_can_be_forked_whatever_its_state(
    status: Status, requested: Request | None
) -> None:
    without = allowed_actions(status, requested=requested)
    assert set(allowed_actions(status, requested=requested, epoch=1)) == {*without, Action.FORK}


def test_a_job_that_diverged_is_not_offered_a_retry() -> None:
    assert allowed_actions(Status.FAILED, error_code=ErrorCode.DIVERGED) == (Action.DELETE,)


@pytest.mark.parametrize(
    ("status", "action", "sentence"),
    [
        (
            Status.SUCCEEDED,
            Action.CANCEL,
            "job j has succeeded and cannot be cancelled; possible actions: fork, delete",
        ),
        (Status.FAILED, Action.PAUSE, "job j has failed and cannot be paused; possible actions: fork, delete"),
        (Status.CANCELLED, Action.RESUME, "job j was cancelled and cannot be resumed; possible actions: fork, delete"),
        (Status.QUEUED, Action.RETRY, "job j is queued and cannot be retried; possible actions: fork, delete"),
    ],
)
def test_a_refused_action_is_explained_in_a_sentence(status: Status, action: Action, sentence: str) -> None:
    assert str(IllegalTransition("j", action, status, [Action.FORK, Action.DELETE])) == sentence


def test_every_action_can_be_refused() -> None:
    for status in Status:
        for action in Action:
            assert " and cannot be " in str(IllegalTransition("j", action, status, []))
    for sweep_status in SweepStatus:
        for sweep_action in SweepAction:
            assert " and cannot be " in str(IllegalSweepAction("s", sweep_action, sweep_status, []))
