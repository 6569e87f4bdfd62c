"""What schemathesis does not know of this API: NDJSON, and rules between fields."""

import json
import os
import re

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation

# What is wrong with data that the schema takes, by field and message. No schema can say these, so they are said in words
# in the contract; everything else that is called valid must be taken.
RULES = [
    (r"placed_at", r"is in the future"),
    (r"expires_at", r"^has passed$"),
    (r"signed_by|signature", r"^is missing beside the other one$"),
    (r"as_of|from", r"lies in the future"),
    # What an endpoint's URL must be: absolute, https, without user and fragment, and of no private address.
    (
        r"url",
        r"^is not an absolute URL: |^has the scheme |^has a user name or password; |^has a fragment, "
        r"|^(names|leads to) .+, which is no public (host|address)$",
    ),
    (r"events\[\d+\]", r"no event has the type"),
    (r"type", r"is not an event type"),
    (r"replay_from", r"needs enabled: true|lies in the future"),
    (r"lines", r"come to -?\d+ minor units"),
    (r"lines\[\d+\]\.discount", r"is more than the line comes to"),
    (r"discounts\[\d+\]", r"has not exactly one of amount and rate_bp"),
    (r"tenant", r"cannot name a tenant$"),
    (r"delta", r"is zero"),
    (r"to", r"is before from"),
    (r"offset", r"needs its partition|\d+ is past the end"),
    (r"partition", r"cannot be taken"),
    (r"topic", r"has no dead letters"),
    # To JSON Schema 606.0 is a whole number; here money and quantities are written without a fraction, or refused.
    (r".+", r"-?\d+\.0 is not a whole number"),
    # Cursors are opaque: the pattern is right, but no page gave them out.
    (r"cursor", r"is not a (cursor of this (list|topic)|place (of this stream|in an order's events))"),
]
# A command that comes too early or too late (409), an id that is not there (404), a key used before (422).
JUDGED = {404, 409, 422}


@schemathesis.hook
def filter_path_parameters(context, path_parameters):
    """The key of this run is not the run's to revoke: nothing after it would be tested."""
    is_revocation = context.operation.label == "DELETE /v1/keys/{id}"
    return not (is_revocation and path_parameters and path_parameters.get("id") == os.environ["OWN_KEY_ID"])


@schemathesis.check
def valid_data_is_taken(ctx, response, case):
    """Data that the contract calls valid is taken, but for the rules above."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    status = response.status_code
    if 200 <= status < 300 or status in JUDGED or status in (401, 429):
        return
    if status == 503 and case.path == "/readyz":
        return
    errors = response.json().get("errors", []) if status == 400 else []
    unknown = [
        error
        for error in errors
        if not any(
            re.fullmatch(field, error["field"]) and re.search(message, error["message"])
            for field, message in RULES
        )
    ]
    assert errors and not unknown, f"{status}: valid data was refused: {unknown or response.text}"


def refuses_without_key(response):
    """401; or 429, since calls without a valid key are limited, and this run makes more of them than it may."""
    status = response.status_code
    return status == 401 or (status == 429 and response.json().get("code") == "TS0602")


# Operations that were seen to ask for a key; once is enough.
CLOSED = set()


@schemathesis.check
def a_key_is_asked_for(ctx, response, case):
    """An operation that says it needs a key refuses calls without one, and with one that is nobody's."""
    operation = case.operation
    if not operation.definition.raw.get("security", operation.schema.raw_schema.get("security")):
        return
    if "Authorization" not in response.request.headers:
        # No route, or not by this method: that is told to anybody.
        is_refused = response.status_code in (404, 405) or refuses_without_key(response)
        assert is_refused, f"{response.status_code} without a key: {response.text}"
    if operation.label in CLOSED or not 200 <= response.status_code < 300:
        return
    for authorization in (None, "Bearer till_nobodys_0123456789abcdef"):
        again = response.request.copy()
        again.headers.pop("Authorization", None)
        if authorization is not None:
            again.headers["Authorization"] = authorization
        with requests.Session() as session:
            answer = session.send(again, timeout=40)
        assert refuses_without_key(answer), f"{authorization}: {answer.status_code} {answer.text}"
    CLOSED.add(operation.label)


@schemathesis.check
def bad_lines_are_refused(ctx, response, case):
    """A line that the contract calls invalid has a result that refuses it."""
    if case.operation.label != "POST /v1/orders/bulk" or case.meta is None or response.status_code != 200:
        return
    body = case.meta.components.get(ParameterLocation.BODY)
    if body is not None and body.mode.is_negative:
        results = [json.loads(line) for line in response.content.splitlines()]
        assert all(it["status"] >= 400 for it in results), f"an invalid line was taken: {results}"


@schemathesis.check
def problems_name_the_fix(ctx, response, case):
    """A refusal is a problem document, and every error in it says what to send instead."""
    if response.status_code < 400 or case.path == "/readyz":
        return
    problem = response.json()
    assert problem["status"] == response.status_code
    assert re.fullmatch(r"TS\d{4}", problem["code"])
    assert all(error["field"] and error["message"] and error["fix"] for error in problem.get("errors", []))


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    """One line; the schema is that of a line."""
    return json.dumps(value).encode()


@schemathesis.serializer("application/wasm")
def module(ctx, value):
    """Bytes as they are: to a schema any are a module."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.deserializer("application/x-ndjson")
def first_line(ctx, response):
    """The result of the first line; of none, where nothing but blanks was sent."""
    lines = response.content.splitlines()
    return json.loads(lines[0]) if lines else {"line": 1, "status": 202}
