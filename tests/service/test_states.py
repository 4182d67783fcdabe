from __future__ import annotations

import pytest

from service.errors import IllegalSweepAction, IllegalTransition
from service.states import TERMINAL, Action, ErrorCode, Request, Status, SweepAction, SweepStatus, allowed_actions

LEGAL_ACTIONS = {
    Status.QUEUED: {Action.CANCEL},
    Status.RUNNING: {Action.CANCEL, Action.PAUSE},
    Status.PAUSED: {Action.CANCEL, Action.RESUME},
    Status.SUCCEEDED: {Action.REPRODUCE, Action.DELETE},
    Status.FAILED: {Action.RETRY, Action.DELETE},
    Status.CANCELLED: {Action.DELETE},
}


@pytest.mark.parametrize("status", Status)
def test_each_state_offers_the_actions_of_the_state_diagram(status: Status) -> None:
    assert set(allowed_actions(status)) == LEGAL_ACTIONS[status]


def test_delete_is_offered_in_exactly_the_terminal_states() -> None:
    assert {status for status in Status if Action.DELETE in allowed_actions(status)} == TERMINAL


def test_a_job_with_a_cancel_request_offers_no_action() -> None:
    assert allowed_actions(Status.RUNNING, requested=Request.CANCEL) == ()


def test_a_job_with_a_pause_request_can_only_be_cancelled() -> None:
    assert allowed_actions(Status.RUNNING, requested=Request.PAUSE) == (Action.CANCEL,)


@pytest.mark.parametrize("requested", [None, *Request])
@pytest.mark.parametrize("status", Status)
def test_a_job_with_a_completed_epoch_can_be_forked_in_every_state(status: Status, requested: Request | None) -> None:
    actions_without_epoch = allowed_actions(status, requested=requested)
    assert set(allowed_actions(status, requested=requested, epoch=1)) == {*actions_without_epoch, Action.FORK}


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


def test_every_action_in_every_state_has_a_refusal_message() -> None:
    for status in Status:
        for action in Action:
            assert " and cannot be " in str(IllegalTransition("j", action, status, []))
    for sweep_status in SweepStatus:
        for sweep_action in SweepAction:
            assert " and cannot be " in str(IllegalSweepAction("s", sweep_action, sweep_status, []))
