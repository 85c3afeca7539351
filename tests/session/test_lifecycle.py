import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpwatch.errors import SessionError
from drpwatch.session.lifecycle import ACTIVE, PICKING, TRANSITIONS, WATCHING, SessionState, Verb, advance


def walk(*verbs: Verb) -> SessionState:
    state = SessionState.CREATED
    for verb in verbs:
        state = advance(state, verb)
    return state


def test_a_session_lives_to_its_end_and_again() -> None:
    V = Verb
    assert walk(V.START, V.FOUND, V.PAUSE, V.RESUME, V.STOP, V.DRAINED, V.REOPEN) is SessionState.WAITING


@given(st.sampled_from([s for s in SessionState if s is not SessionState.FAILED]))
def test_any_state_can_fail_and_a_failed_session_reopens(state: SessionState) -> None:
    assert advance(advance(state, Verb.FAIL), Verb.REOPEN) is SessionState.WAITING


@given(st.sampled_from(SessionState), st.sampled_from(Verb))
def test_a_verb_leads_on_or_says_what_is_possible(state: SessionState, verb: Verb) -> None:
    if (state, verb) in TRANSITIONS:
        assert advance(state, verb) is TRANSITIONS[state, verb]
    else:
        with pytest.raises(SessionError, match=f"cannot {verb} a session that is {state}"):
            advance(state, verb)


def test_a_refusal_names_the_way_out() -> None:
    with pytest.raises(SessionError, match=r"cannot resume .* completed; possible now: reopen"):
        advance(SessionState.COMPLETED, Verb.RESUME)


def test_only_active_sessions_watch_and_pick() -> None:
    assert PICKING < WATCHING < ACTIVE
    assert SessionState.PAUSED not in PICKING
